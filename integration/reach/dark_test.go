package reach_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPrimaryThatFellSilentIsLeft: its connections stay open, the kernel goes on acknowledging, and no answer comes.
func TestPrimaryThatFellSilentIsLeft(t *testing.T) {
	each(t, withLedger, func(t *testing.T, k kind) {
		r := darkFailover(t, k)
		r.within(t, 25*time.Second)
		r.untold(t)
		r.sound(t)
	})
}

// TestOnlyACommitThatMetTheSilenceMayBeUnknown: of an id of a transaction nobody can say what became of it then.
func TestOnlyACommitThatMetTheSilenceMayBeUnknown(t *testing.T) {
	each(t, ours, func(t *testing.T, k kind) {
		r := darkFailover(t, k)
		r.within(t, 25*time.Second)
		require.Equal(t, len(r.told), r.unknown(), "%v", r.told)
		require.LessOrEqual(t, r.unknown(), workers, "more than what was being committed")
		r.sound(t)
	})
}

// darkFailover: all processes of the primary are stopped, and the standby, which waits for none, is promoted.
func darkFailover(t *testing.T, k kind) *result {
	ctx := within(t)
	primary, standby := newPair(ctx, t, true)
	l := (&load{client: k.open(t, eitherOf(primary, standby), workers), ledger: newLedger(ctx, t, primary), timeout: timeout}).start(t, workers)
	require.NoError(t, l.progress(ctx))
	require.NoError(t, primary.Freeze())
	began := time.Now()
	require.NoError(t, standby.Promote(ctx))
	t0 := accepting(ctx, t, standby, began)
	l.allBack(ctx, t0, patience())
	r := l.judge(ctx, t, t0, standby)
	require.NoError(t, primary.StopImmediate(ctx)) // nobody writes any more: what it does on its way is not seen
	return r
}
