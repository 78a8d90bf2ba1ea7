// Package leak finds goroutines that tests leave behind.
package leak

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is for what pgx does in the background: it cancels what it gave up on a goroutine of its own, which has 15 s.
const patience = 30 * time.Second

// Check fails the test if a goroutine that it started is still there when it, its subtests and everything they opened have
// ended. It must be called before anything is opened that the test is to end with, but after clusters were started that
// outlive it; not in a test that runs beside others.
func Check(t testing.TB) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		began := time.Now()
		err := goleak.Find(before)
		for err != nil && time.Since(began) < patience {
			err = goleak.Find(before)
		}
		if err != nil {
			t.Error(err)
		}
	})
}
