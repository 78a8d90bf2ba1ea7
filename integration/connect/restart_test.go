package connect_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// TestRestartUnderTenBusyConnections: whoever uses WithTx is not told of it; a single statement is, if it was under way.
func TestRestartUnderTenBusyConnections(t *testing.T) {
	const connections = 10
	c := newCluster(t, pgtest.Options{})
	for _, name := range []string{"WithTx", "WithPgxTx", "db.Exec", "db.Exec without arguments", "pool.Exec"} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t)
			l := newLedger(t, c)
			db := open(t, c.DSN())
			db.SetMaxOpenConns(connections)
			db.SetMaxIdleConns(connections)
			pool := newPool(t, c.DSN("pool_max_conns=10"))
			insert := writers(db, pool)[name]
			stop := make(chan struct{})
			var working sync.WaitGroup
			for range connections {
				working.Go(func() { l.write(ctx, stop, insert) })
			}
			require.NoError(t, l.progress(ctx, 5*connections))
			for range 2 {
				require.NoError(t, c.Restart(ctx))
				require.NoError(t, l.progress(ctx, 5*connections))
			}
			close(stop)
			working.Wait()
			require.NoError(t, ctx.Err())

			failed := l.audit(t, c)
			t.Logf("%d entries, %d errors", len(l.told), len(failed))
			if strings.HasPrefix(name, "With") {
				require.Empty(t, failed)
			}
			require.LessOrEqual(t, len(failed), 2*connections, "more than what was under way")
			for _, err := range failed {
				require.Contains(t, []retrypg.Retry{retrypg.RetryReconnect, retrypg.RetryWait}, retrypg.Classify(err).Retry, "%v", err)
			}
		})
	}
}

// TestIdleConnectionsThatDiedAreExchangedUnseen: the whole pool is stale, and nothing of the statement was sent.
func TestIdleConnectionsThatDiedAreExchangedUnseen(t *testing.T) {
	const connections = 10
	c := newCluster(t, pgtest.Options{})
	ctx := within(t)
	l := newLedger(t, c)
	w := newWatch()
	db := open(t, c.DSN(), w.option())
	db.SetMaxIdleConns(connections)
	pool := newPool(t, c.DSN("pool_max_conns=10"), w.option())
	fill := func() {
		t.Helper()
		var held []func()
		for range connections {
			one, err := db.Conn(ctx)
			require.NoError(t, err)
			other, err := pool.Acquire(ctx)
			require.NoError(t, err)
			held = append(held, func() { require.NoError(t, one.Close()); other.Release() })
		}
		for _, f := range held {
			f()
		}
		require.Equal(t, connections, db.Stats().Idle)
		require.Equal(t, connections, int(pool.Stat().IdleConns()))
	}
	kills := map[string]func(context.Context) error{
		"fast": c.StopFast, "immediate": c.StopImmediate, "killed": c.Kill,
	}
	for kill, stop := range kills {
		for name, insert := range writers(db, pool) {
			fill()
			require.NoError(t, stop(ctx))
			require.NoError(t, c.Start(ctx))
			id := l.next.Add(1)
			err := insert(ctx, id)
			require.NoError(t, err, "%s after %s", name, kill)
			l.told[id] = err
		}
	}
	require.Empty(t, l.audit(t, c))
	w.mu.Lock()
	defer w.mu.Unlock()
	require.NotEmpty(t, w.evicted)
}
