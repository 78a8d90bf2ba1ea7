package connect_test

import (
	"context"
	"database/sql"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// newPair starts a primary and its standby, and sees to it that the test leaves no goroutine behind.
func newPair(t *testing.T, synchronous bool) (primary, standby *pgtest.Cluster) {
	t.Helper()
	leak.Check(t)
	return pgt.Pair(t, pgtest.Options{}, synchronous)
}

// TestWithTxLosesNothingInAFailover: the primary is killed and the standby promoted, under load.
func TestWithTxLosesNothingInAFailover(t *testing.T) {
	const connections = 8
	for _, name := range []string{"WithTx", "WithPgxTx"} {
		t.Run(name, func(t *testing.T) {
			primary, standby := newPair(t, true)
			ctx := within(t)
			require.NoError(t, primary.Exec(ctx, audit.Schema))
			r := audit.New(audit.OfTransaction)
			dsn := pgtest.DSN([]string{primary.Addr(), standby.Addr()}, "target_session_attrs=read-write")
			db := open(t, dsn)
			db.SetMaxOpenConns(connections)
			pool := newPool(t, dsn+"&pool_max_conns=8")
			stop := r.Start(ctx, connections, writers(db, pool)[name])
			defer stop()
			require.NoError(t, r.Await(ctx, 5*connections, audit.OK))
			require.NoError(t, primary.Kill(ctx))
			require.NoError(t, standby.Exec(ctx, "alter system reset synchronous_standby_names"))
			require.NoError(t, standby.Promote(ctx))
			require.NoError(t, r.Await(ctx, 5*connections, audit.OK))
			stop()
			require.NoError(t, ctx.Err())

			report := r.Compare(audit.CountAt(ctx, t, standby.DSN(), audit.Table))
			report.Check(t)
			require.Empty(t, report.Of(audit.NotApplied), "what a failover may cause is ErrCommitUnknown")
			require.LessOrEqual(t, len(report.Of(audit.Unknown)), connections, "more than what was being committed")
		})
	}
}

// TestServerOfTheWrongRoleIsLeft: behind one address now sits a standby, as after a switch-over with a virtual address.
// The connections to it are sound, and of no use.
func TestServerOfTheWrongRoleIsLeft(t *testing.T) {
	primary, standby := newPair(t, false)
	ctx := within(t)
	require.NoError(t, primary.Exec(ctx, audit.Schema))
	require.NoError(t, standby.WaitReplayed(ctx, primary))
	p := pgt.Proxy(t, standby.Addr())

	t.Run("statement", func(t *testing.T) {
		db, pool := open(t, p.DSN()), newPool(t, p.DSN())
		for _, writer := range []string{"db.Exec", "db.Exec without arguments", "pool.Exec"} {
			insert := writers(db, pool)[writer]
			p.SetUpstream(standby.Addr())
			p.CutAll(pgtest.Both, pgtest.FIN)
			require.NoError(t, db.PingContext(ctx))
			require.NoError(t, pool.Ping(ctx))
			err := insert(ctx, "1")
			require.Equal(t, "25006", retrypg.SQLState(err), "%s: %v", writer, err)
			require.Equal(t, retrypg.RetryFailover, retrypg.Classify(err).Retry)
			require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
			opened := p.Stats().Opened
			p.SetUpstream(primary.Addr())
			require.NoError(t, insert(ctx, "2"), writer)
			require.Equal(t, opened+1, p.Stats().Opened, "%s used the connection to the standby again", writer)
		}
	})

	t.Run("transaction", func(t *testing.T) {
		moved := retrypg.WithHooks(retrypg.Hooks{Backoff: func(context.Context, retrypg.BackoffInfo) { p.SetUpstream(primary.Addr()) }})
		db, pool := open(t, p.DSN(), moved), newPool(t, p.DSN(), moved)
		for _, writer := range []string{"WithTx", "WithPgxTx"} {
			p.SetUpstream(standby.Addr())
			p.CutAll(pgtest.Both, pgtest.FIN)
			require.NoError(t, db.PingContext(ctx))
			require.NoError(t, pool.Ping(ctx))
			require.NoError(t, writers(db, pool)[writer](ctx, "3"))
		}
	})
}

// TestAllConnectionsToAServerThatLostItsRoleAreLeftWhenOneFindsItOut: none of the others has to meet the error.
func TestAllConnectionsToAServerThatLostItsRoleAreLeftWhenOneFindsItOut(t *testing.T) {
	const connections = 8
	primary, standby := newPair(t, false)
	ctx := within(t)
	require.NoError(t, primary.Exec(ctx, audit.Schema))
	require.NoError(t, standby.WaitReplayed(ctx, primary))
	for _, writer := range []string{"WithTx", "WithPgxTx"} {
		t.Run(writer, func(t *testing.T) {
			p := pgt.Proxy(t, standby.Addr())
			var refused, fenced, evicted atomic.Int32
			p.OnMessages(1000, func(m pgtest.Message) bool {
				if m.Type == 'E' && m.Code == "25006" {
					refused.Add(1)
					p.SetUpstream(primary.Addr()) // as a virtual address would
				}
				return false
			}, pgtest.Pause())
			hooks := retrypg.WithHooks(retrypg.Hooks{
				ServerFenced: func(err error) {
					require.Equal(t, "25006", retrypg.SQLState(err))
					fenced.Add(1)
				},
				Evicted: func(reason string) {
					if reason == "fenced" {
						evicted.Add(1)
					}
				},
			})
			db := open(t, p.DSN(), hooks)
			db.SetMaxOpenConns(connections)
			db.SetMaxIdleConns(connections)
			pool := newPool(t, p.DSN("pool_max_conns=8"), hooks)
			if writer == "WithTx" {
				fillDB(ctx, t, db, connections)
			} else {
				fillPool(ctx, t, pool, connections)
			}
			insert := writers(db, pool)[writer]
			require.NoError(t, insert(ctx, "1"))
			var wg sync.WaitGroup
			for i := range 3 * connections {
				wg.Go(func() {
					if err := insert(ctx, strconv.Itoa(i)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			require.Equal(t, []int32{1, 1}, []int32{refused.Load(), fenced.Load()}, "refused, fenced")
			require.LessOrEqual(t, evicted.Load(), int32(connections))
			require.Positive(t, evicted.Load())
		})
	}
}

// TestReadOnlyTransactionOnThePrimaryKeepsItsConnection: 25006 alone does not say that the server is a standby.
func TestReadOnlyTransactionOnThePrimaryKeepsItsConnection(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	db, pool := open(t, through(p, d)), newPool(t, through(p, d))
	for range 2 {
		err := retrypg.WithTx(ctx, db, retrypg.TxOptions{ReadOnly: true, MaxAttempts: 2}, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "create table entry (id int)")
			return err
		})
		require.Equal(t, "25006", retrypg.SQLState(err))
		err = retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{ReadOnly: true, MaxAttempts: 2}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "create table entry (id int)")
			return err
		})
		require.Equal(t, "25006", retrypg.SQLState(err))
	}
	require.Equal(t, 2, p.Stats().Opened, "one for each handle")
}

// TestRoleIsWaitedFor: target_session_attrs is not met by any server until one is promoted.
func TestRoleIsWaitedFor(t *testing.T) {
	primary, standby := newPair(t, false)
	ctx := within(t)
	require.NoError(t, primary.StopFast(ctx))
	for _, attrs := range []string{"read-write", "primary"} {
		t.Run(attrs+" is not there", func(t *testing.T) {
			dsn := pgtest.DSN([]string{primary.Addr(), standby.Addr()}, "target_session_attrs="+attrs, "retry_connect_max_elapsed=200ms")
			each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
				_ = exhausted(t, connect(context.WithoutCancel(t.Context()), dsn))
			})
		})
	}
	w := newWatch()
	db := open(t, pgtest.DSN([]string{primary.Addr(), standby.Addr()}, "target_session_attrs=read-write"), w.option())
	statement := later(func() error { _, err := db.ExecContext(ctx, "create table entry (id bigint)"); return err })
	require.NoError(t, w.waits(ctx, 3))
	require.NoError(t, standby.Promote(ctx))
	require.NoError(t, done(t, statement))

	// The old primary comes back as a standby: the first host in the list, and not the one that is wanted.
	require.NoError(t, primary.RejoinAsStandby(ctx, standby))
	other := open(t, pgtest.DSN([]string{primary.Addr(), standby.Addr()}, "target_session_attrs=read-write"))
	_, err := other.ExecContext(ctx, "insert into entry values (1)")
	require.NoError(t, err)
	reader := open(t, pgtest.DSN([]string{standby.Addr(), primary.Addr()}, "target_session_attrs=standby"))
	var recovering bool
	require.NoError(t, reader.QueryRowContext(ctx, "select pg_is_in_recovery()").Scan(&recovering))
	require.True(t, recovering)
}

// TestAStatementThatMeetsAStandbyIsRunOnThePrimaryThatTakesItsPlace: nobody is told of the role that was lost.
func TestAStatementThatMeetsAStandbyIsRunOnThePrimaryThatTakesItsPlace(t *testing.T) {
	primary, standby := newPair(t, false)
	ctx := within(t)
	require.NoError(t, primary.Exec(ctx, audit.Schema))
	require.NoError(t, standby.WaitReplayed(ctx, primary))
	p := pgt.Proxy(t, standby.Addr())
	p.OnMessages(1000, func(m pgtest.Message) bool {
		if m.Type == 'E' && m.Code == "25006" {
			p.SetUpstream(primary.Addr()) // as a virtual address would
		}
		return false
	}, pgtest.Pause())
	db, pool := open(t, p.DSN()), newPool(t, p.DSN())
	for _, writer := range []string{"db.Exec", "db.Exec without arguments", "pool.Exec"} {
		p.SetUpstream(standby.Addr())
		p.CutAll(pgtest.Both, pgtest.FIN)
		require.NoError(t, db.PingContext(ctx))
		require.NoError(t, pool.Ping(ctx))
		require.NoError(t, writers(db, pool)[writer](ctx, "1"), writer)
	}
	n, err := primary.Value(ctx, "select count(*) from entry")
	require.NoError(t, err)
	require.Equal(t, "3", n)
}
