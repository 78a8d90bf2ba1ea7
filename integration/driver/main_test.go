package driver_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) { pgt.Main(m) }

// newServer returns a database of the shared cluster, and fails the test if a goroutine that it started is still there
// when it, its subtests and everything they opened have ended. Tests that call it must not be parallel; their subtests
// may be.
func newServer(t *testing.T) *pgt.Database {
	t.Helper()
	server := pgt.Shared(t)
	noLeaks(t)
	return server
}

// noLeaks must be called before anything is opened that the test is to end with. It is patient, because pgx cancels what it
// gave up on a goroutine of its own, which has 15 s for it.
func noLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		began := time.Now()
		err := goleak.Find(before)
		for err != nil && time.Since(began) < limit {
			err = goleak.Find(before)
		}
		if err != nil {
			t.Error(err)
		}
	})
}
