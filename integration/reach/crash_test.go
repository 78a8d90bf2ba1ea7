package reach_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestNobodyIsToldOfACrash: the server is killed under load, and started again.
func TestNobodyIsToldOfACrash(t *testing.T) {
	each(t, withLedger, func(t *testing.T, k kind) {
		r := crash(t, k)
		r.untold(t)
		r.sound(t)
		r.within(t, 5*time.Second)
	})
}

// TestOnlyACommitThatMetTheCrashMayBeUnknown: of an id of a transaction nobody can say what became of it then.
func TestOnlyACommitThatMetTheCrashMayBeUnknown(t *testing.T) {
	each(t, ours, func(t *testing.T, k kind) {
		r := crash(t, k)
		require.Equal(t, len(r.told), r.unknown(), "%v", r.told)
		require.LessOrEqual(t, r.unknown(), workers, "more than what was being committed")
		r.sound(t)
		r.within(t, 5*time.Second)
	})
}

// crash: kill -9 of the server, which recovers.
func crash(t *testing.T, k kind) *result {
	ctx := within(t)
	server := newServer(t, "crash", nil)
	l := (&load{client: k.open(t, server.DSN(), workers), ledger: newLedger(ctx, t, server), timeout: timeout}).start(t, workers)
	require.NoError(t, l.progress(ctx))
	require.NoError(t, server.Kill(ctx))
	began := time.Now()
	require.NoError(t, server.Start(ctx))
	t0 := accepting(ctx, t, server, began)
	l.allBack(ctx, t0, patience())
	return l.judge(ctx, t, t0, server)
}
