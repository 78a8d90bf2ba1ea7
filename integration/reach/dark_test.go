package reach_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// darkFailover: all processes of the primary are stopped, and the standby, which waits for none, is promoted.
func darkFailover(t *testing.T, k kind) *result {
	ctx := within(t)
	primary, standby := newPair(t, true)
	l := (&load{client: k.open(t, eitherOf(primary, standby), workers), record: newRecord(ctx, t, primary), timeout: timeout}).start(t, workers)
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
