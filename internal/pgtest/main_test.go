//go:build unix

package pgtest_test

import (
	"os"
	"testing"

	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		childMain()
	}
	pgt.Main(m)
}
