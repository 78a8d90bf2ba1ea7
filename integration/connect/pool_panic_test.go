package connect_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// bomb is code of the user's that panics where pgx calls it.
type bomb struct{}

func (bomb) Value() (driver.Value, error) { panic("boom") }
func (*bomb) Scan(any) error              { panic("boom") }
func (bomb) RewriteQuery(context.Context, *pgx.Conn, string, []any) (string, []any, error) {
	panic("boom")
}

// bombs are the places in which code of the user's runs while a pool's connection is taken. The source of CopyFrom is not
// among them: pgx calls it on a goroutine of its own, and nobody can recover from its panic.
var bombs = map[string]func(ctx context.Context, pool *retrypg.Pool){
	"argument of Exec":  func(ctx context.Context, pool *retrypg.Pool) { _, _ = pool.Exec(ctx, "select $1::text", bomb{}) },
	"argument of Query": func(ctx context.Context, pool *retrypg.Pool) { _, _ = pool.Query(ctx, "select $1::text", bomb{}) },
	"argument of QueryRow": func(ctx context.Context, pool *retrypg.Pool) {
		var s string
		_ = pool.QueryRow(ctx, "select $1::text", bomb{}).Scan(&s)
	},
	"argument of SendBatch": func(ctx context.Context, pool *retrypg.Pool) {
		var b pgx.Batch
		b.Queue("select $1::text", bomb{})
		_ = pool.SendBatch(ctx, &b).Close()
	},
	"rewriter of Exec":        func(ctx context.Context, pool *retrypg.Pool) { _, _ = pool.Exec(ctx, "select 1", bomb{}) },
	"Scan of QueryRow":        func(ctx context.Context, pool *retrypg.Pool) { _ = pool.QueryRow(ctx, "select 1").Scan(&bomb{}) },
	"function of AcquireFunc": func(ctx context.Context, pool *retrypg.Pool) { _ = pool.AcquireFunc(ctx, explode) },
	"closure of WithPgxTx": func(ctx context.Context, pool *retrypg.Pool) {
		_ = retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(context.Context, pgx.Tx) error { panic("boom") })
	},
}

func explode(*pgxpool.Conn) error { panic("boom") }

func TestPanicOfUserCodeGivesThePoolsConnectionBack(t *testing.T) {
	d := newDatabase(t)
	for name, run := range bombs {
		t.Run(name, func(t *testing.T) {
			ctx := within(t)
			pool := newPool(t, d.DSN("pool_max_conns=1"))
			for range 3 {
				require.PanicsWithValue(t, "boom", func() { run(ctx, pool) }) // in its Acquire it waits for the only connection
			}
			require.NoError(t, pool.Ping(ctx))
		})
	}
}

// TestPanicEndsEverySpan: the panics of statements too, over a pool and over database/sql.
func TestPanicEndsEverySpan(t *testing.T) {
	d := newDatabase(t)
	r := newTracer(t)
	pool := newPool(t, d.DSN("pool_max_conns=1"), r.option())
	db := open(t, d.DSN(), r.option())
	for name, run := range map[string]func(ctx context.Context){
		"pool.Exec":     func(ctx context.Context) { bombs["argument of Exec"](ctx, pool) },
		"pool.QueryRow": func(ctx context.Context) { bombs["Scan of QueryRow"](ctx, pool) },
		"db.Exec":       func(ctx context.Context) { _, _ = db.ExecContext(ctx, "select 1", bomb{}) },
		"WithPgxTx":     func(ctx context.Context) { bombs["closure of WithPgxTx"](ctx, pool) },
		"BeforeConnect": func(ctx context.Context) {
			_ = open(t, d.DSN(), r.option(), retrypg.WithBeforeConnect(func(context.Context, *pgx.ConnConfig) error { panic("boom") })).PingContext(ctx)
		},
		"WithTx": func(ctx context.Context) {
			_ = retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(context.Context, *sql.Tx) error { panic("boom") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			r.trace(t, func(ctx context.Context) { require.Panics(t, func() { run(ctx) }) })
		})
	}
}

// TestPanicDoesNotKeepTheProbeOfAHalfOpenBreaker: the next caller is let through.
func TestPanicDoesNotKeepTheProbeOfAHalfOpenBreaker(t *testing.T) {
	d := newDatabase(t)
	for _, name := range []string{"db", "pool"} {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			ctx := within(t)
			clock := make(chan struct{}) // closed when the breaker is half-open
			o := retrypg.WithBreaker(breaker.Options{Failures: 1, OpenFor: time.Millisecond, ProbeLease: time.Hour, OnStateChange: func(_, to breaker.State) {
				if to == breaker.HalfOpen {
					close(clock)
				}
			}})
			// exec runs on a connection that is open already: connecting would be the probe else.
			var lose, exec, panics func() error
			if name == "db" {
				db := open(t, through(p, d), o)
				conn, err := db.Conn(ctx)
				require.NoError(t, err)
				defer conn.Close()
				lose = func() error { _, err := db.ExecContext(ctx, "select 'lost'"); return err }
				exec = func() error { _, err := conn.ExecContext(ctx, "select 1"); return err }
				panics = func() error { _, err := conn.ExecContext(ctx, "select 1", bomb{}); return err }
			} else {
				pool := newPool(t, through(p, d, "pool_max_conns=2"), o)
				conn, err := pool.Acquire(ctx)
				require.NoError(t, err)
				lose = func() error { _, err := pool.Exec(ctx, "select 'lost'"); conn.Release(); return err }
				exec = func() error { _, err := pool.Exec(ctx, "select 1"); return err }
				panics = func() error { _, err := pool.Exec(ctx, "select 1", bomb{}); return err }
			}
			p.OnMessage(pgtest.Sent("select 'lost'"), pgtest.CutAfter(pgtest.Client, pgtest.FIN))
			require.Error(t, lose()) // opens the breaker
			for panicked := false; !panicked; {
				func() {
					defer func() { panicked = recover() != nil }()
					_ = refused(t, panics())
				}()
			}
			<-clock
			require.NoError(t, exec(), "the probe that panicked was not given back")
		})
	}
}

// TestRowIsSentOnceHoweverOftenItIsScanned: and tells the second time.
func TestRowIsSentOnceHoweverOftenItIsScanned(t *testing.T) {
	d := newDatabase(t)
	ctx := within(t)
	pool := newPool(t, d.DSN())
	_, err := pool.Exec(ctx, "create table item (id int)")
	require.NoError(t, err)
	for query, target := range map[string]any{
		"insert into item values (1) returning id":       new(int),
		"insert into item select 1 where false":          new(int), // no row
		"insert into item values (2) returning id::text": &bomb{},
	} {
		row := pool.QueryRow(ctx, query)
		func() {
			defer func() { _ = recover() }()
			_ = row.Scan(target)
		}()
		require.ErrorContains(t, row.Scan(target), "scanned already", query)
	}
	var n int
	require.NoError(t, pool.QueryRow(ctx, "select count(*) from item").Scan(&n))
	require.Equal(t, 2, n)
}

// TestRowThatIsNotThereIsNoFailure: the statement worked.
func TestRowThatIsNotThereIsNoFailure(t *testing.T) {
	d, p := newProxied(t)
	m := newMeter(t)
	pool := newPool(t, through(p, d), m.option())
	var n int
	require.ErrorIs(t, pool.QueryRow(within(t), "select 1 where false").Scan(&n), pgx.ErrNoRows)
	require.Empty(t, m.read(t, "retry.failures"))
	require.EqualValues(t, 1, m.value(t, "retry.successes", "retry.operation", "statement"))
	require.Zero(t, pool.Stat().AcquiredConns())
}
