package reach_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// failover: kill -9 of the primary, promotion of the synchronous standby, both in the connection string.
func failover(t *testing.T, k kind) *result {
	ctx := within(t)
	primary, standby := newPair(t, true)
	l := (&load{client: k.open(t, eitherOf(primary, standby), workers), record: newRecord(ctx, t, primary), timeout: timeout}).start(t, workers)
	require.NoError(t, l.progress(ctx))
	require.NoError(t, primary.Kill(ctx))
	began := time.Now()
	require.NoError(t, standby.Promote(ctx))
	t0 := accepting(ctx, t, standby, began)
	l.allBack(ctx, t0, patience())
	return l.judge(ctx, t, t0, standby)
}
