package soak_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) { pgt.Main(m) }

// noLeaks fails the test if a goroutine that it started is still there when it and everything it opened have ended.
func noLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}
