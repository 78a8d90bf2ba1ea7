package reach_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestNobodyIsToldOfAFailover: the primary is killed under load, and its synchronous standby promoted.
func TestNobodyIsToldOfAFailover(t *testing.T) {
	each(t, withLedger, func(t *testing.T, k kind) {
		r := failover(t, k)
		r.untold(t)
		r.sound(t)
		r.within(t, 5*time.Second)
	})
}

// TestOnlyACommitThatMetTheFailoverMayBeUnknown: of an id of a transaction nobody can say what became of it then.
func TestOnlyACommitThatMetTheFailoverMayBeUnknown(t *testing.T) {
	each(t, ours, func(t *testing.T, k kind) {
		r := failover(t, k)
		require.Equal(t, len(r.told), r.unknown(), "%v", r.told)
		require.LessOrEqual(t, r.unknown(), workers, "more than what was being committed")
		r.sound(t)
		r.within(t, 5*time.Second)
	})
}

// failover: kill -9 of the primary, promotion of the synchronous standby, both in the connection string.
func failover(t *testing.T, k kind) *result {
	ctx := within(t)
	primary, standby := newPair(ctx, t, true)
	l := (&load{client: k.open(t, eitherOf(primary, standby), workers), ledger: newLedger(ctx, t, primary), timeout: timeout}).start(t, workers)
	require.NoError(t, l.progress(ctx))
	require.NoError(t, primary.Kill(ctx))
	began := time.Now()
	require.NoError(t, standby.Promote(ctx))
	t0 := accepting(ctx, t, standby, began)
	l.allBack(ctx, t0, patience())
	return l.judge(ctx, t, t0, standby)
}
