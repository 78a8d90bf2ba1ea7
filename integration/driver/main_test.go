package driver_test

import (
	"testing"

	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) { pgt.Main(m) }

// newServer returns a database of the shared cluster, and fails the test if a goroutine that it started is still there
// when it, its subtests and everything they opened have ended. Tests that call it must not be parallel; their subtests
// may be.
func newServer(t *testing.T) *pgt.Database {
	t.Helper()
	server := pgt.Shared(t)
	leak.Check(t)
	return server
}
