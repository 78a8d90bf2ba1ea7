package reach_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// losses are the ways to lose a primary under load, and how long callers may take to be served again.
var losses = map[string]struct {
	run    func(t *testing.T, k kind) *result
	within time.Duration
}{
	"crash and restart":                    {crash, 5 * time.Second},
	"failover to a synchronous standby":    {failover, 5 * time.Second},
	"failover, and the old primary silent": {darkFailover, 25 * time.Second},
}

func TestNobodyIsToldOfALostPrimary(t *testing.T) {
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			each(t, withLedger, func(t *testing.T, k kind) {
				r := loss.run(t, k)
				r.within(t, loss.within)
				r.untold(t)
				r.sound(t)
			})
		})
	}
}

// TestOnlyACommitThatMetTheLossMayBeUnknown: of an id of a transaction nobody can say what became of it then.
func TestOnlyACommitThatMetTheLossMayBeUnknown(t *testing.T) {
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			each(t, ours, func(t *testing.T, k kind) {
				r := loss.run(t, k)
				r.within(t, loss.within)
				require.Equal(t, len(r.told), r.unknown(), "%v", r.told)
				require.LessOrEqual(t, r.unknown(), workers, "more than what was being committed")
				r.sound(t)
			})
		})
	}
}
