package connect_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// TestRestartUnderTenBusyConnections: whoever uses WithTx is not told of it; a single statement is, if it was under way.
func TestRestartUnderTenBusyConnections(t *testing.T) {
	const connections = 10
	c := newCluster(t, pgtest.Options{})
	for _, name := range []string{"WithTx", "WithPgxTx", "db.Exec", "db.Exec without arguments", "pool.Exec"} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t)
			require.NoError(t, c.Exec(ctx, "drop table if exists entry; "+audit.Schema))
			whole := strings.HasPrefix(name, "With")
			reading := audit.OfStatement
			if whole {
				reading = audit.OfTransaction
			}
			r := audit.New(reading)
			db := open(t, c.DSN())
			db.SetMaxOpenConns(connections)
			db.SetMaxIdleConns(connections)
			pool := newPool(t, c.DSN("pool_max_conns=10"))
			stop := r.Start(ctx, connections, writers(db, pool)[name])
			defer stop()
			require.NoError(t, r.Await(ctx, 5*connections, audit.OK))
			for range 2 {
				require.NoError(t, c.Restart(ctx))
				require.NoError(t, r.Await(ctx, 5*connections, audit.OK))
			}
			stop()
			require.NoError(t, ctx.Err())

			report := r.Compare(audit.CountAt(ctx, t, c.DSN(), audit.Table))
			report.Check(t)
			failed := report.Errors()
			if whole {
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
	require.NoError(t, c.Exec(ctx, audit.Schema))
	r := audit.New(audit.OfStatement)
	w := newWatch()
	db := open(t, c.DSN(), w.option())
	db.SetMaxIdleConns(connections)
	pool := newPool(t, c.DSN("pool_max_conns=10"), w.option())
	fill := func() {
		t.Helper()
		fillDB(ctx, t, db, connections)
		fillPool(ctx, t, pool, connections)
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
			require.NoError(t, r.Write(ctx, insert), "%s after %s", name, kill)
		}
	}
	r.Compare(audit.CountAt(ctx, t, c.DSN(), audit.Table)).Check(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	require.NotEmpty(t, w.evicted)
}
