package reach_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// crash: kill -9 of the server, which recovers.
func crash(t *testing.T, k kind) *result {
	ctx := within(t)
	server := newServer(t, "crash", nil)
	l := (&load{client: k.open(t, server.DSN(), workers), record: newRecord(ctx, t, server), timeout: timeout}).start(t, workers)
	require.NoError(t, l.progress(ctx))
	require.NoError(t, server.Kill(ctx))
	began := time.Now()
	require.NoError(t, server.Start(ctx))
	t0 := accepting(ctx, t, server, began)
	l.allBack(ctx, t0, patience())
	return l.judge(ctx, t, t0, server)
}
