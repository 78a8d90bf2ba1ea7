package connect_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestEveryMethodOfThePoolRidesOutARestart(t *testing.T) {
	c := newCluster(t, pgtest.Options{})
	ctx := within(t)
	require.NoError(t, c.Exec(ctx, "create table item (id int)"))
	pool := newPool(t, c.DSN("pool_max_conns=5"))
	for name, use := range poolMethods {
		t.Run(name, func(t *testing.T) {
			fillPool(ctx, t, pool, 5)
			require.NoError(t, c.Restart(ctx))
			require.NoError(t, use(ctx, pool))
			require.Zero(t, pool.Stat().AcquiredConns())
		})
	}
}

func TestEveryMethodOfThePoolWaitsForAServerThatIsAway(t *testing.T) {
	d := newDatabase(t)
	for name, use := range poolMethods {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			ctx := within(t)
			w := newWatch()
			pool := newPool(t, through(p, d, "pool_max_conns=5"), w.option())
			_, err := pool.Exec(ctx, "create table if not exists item (id int)")
			require.NoError(t, err)
			fillPool(ctx, t, pool, 5)
			require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
			p.CutAll(pgtest.Both, pgtest.FIN)
			working := later(func() error { return use(ctx, pool) })
			require.NoError(t, w.waits(ctx, 3))
			require.NoError(t, p.SetAccept(pgtest.AcceptForward))
			require.NoError(t, done(t, working))
			require.Zero(t, pool.Stat().AcquiredConns())
		})
	}
}

// TestEveryMethodOfThePoolEndsWithItsContext: and gives back what it has.
func TestEveryMethodOfThePoolEndsWithItsContext(t *testing.T) {
	d, p := newProxied(t)
	pool := newPool(t, through(p, d, "pool_max_conns=5"))
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	for name, use := range poolMethods {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			working := later(func() error { return use(ctx, pool) })
			cancel()
			err := done(t, working)
			harmless(t, err)
			require.ErrorIs(t, err, context.Canceled)
			require.Zero(t, pool.Stat().AcquiredConns())
		})
	}
}

// TestConnectionsComeBackHoweverRowsAreLeft: read to the end, closed before, scanned wrongly, never looked at.
func TestConnectionsComeBackHoweverRowsAreLeft(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	pool := newPool(t, through(p, d, "pool_max_conns=2"))
	var n int
	var text *string
	query := func(sql string) pgx.Rows {
		t.Helper()
		rows, err := pool.Query(ctx, sql)
		require.NoError(t, err)
		return rows
	}
	for name, use := range map[string]func(){
		"read to the end": func() {
			rows := query("select generate_series(1, 3)")
			for rows.Next() {
				require.NoError(t, rows.Scan(&n))
			}
			require.NoError(t, rows.Err())
			require.Equal(t, 3, n)
			require.Equal(t, "SELECT 3", rows.CommandTag().String())
		},
		"closed at the first row": func() {
			rows := query("select generate_series(1, 3)")
			require.True(t, rows.Next())
			rows.Close()
			rows.Close()
		},
		"closed unread":   func() { query("select generate_series(1, 3)").Close() },
		"scanned wrongly": func() { rows := query("select 'a'"); require.True(t, rows.Next()); require.Error(t, rows.Scan(&n)) },
		"values": func() {
			rows := query("select 1::int4, 'a'::text")
			require.True(t, rows.Next())
			values, err := rows.Values()
			require.NoError(t, err)
			require.Equal(t, []any{int32(1), "a"}, values)
			require.False(t, rows.Next())
		},
		"fails at a later row": func() {
			rows := query("select 1 / (2 - i) from generate_series(1, 3) as i")
			for rows.Next() {
			}
			require.Equal(t, "22012", retrypg.SQLState(rows.Err()))
		},
		"collected": func() {
			got, err := pgx.CollectRows(query("select generate_series(1, 3)"), pgx.RowTo[int])
			require.NoError(t, err)
			require.Equal(t, []int{1, 2, 3}, got)
		},
		"wrong statement": func() {
			rows, err := pool.Query(ctx, "select nonsense")
			require.Equal(t, "42703", retrypg.SQLState(err))
			require.False(t, rows.Next())
			require.Equal(t, "42703", retrypg.SQLState(rows.Err()))
			rows.Close()
		},
		"no row":    func() { require.ErrorIs(t, pool.QueryRow(ctx, "select 1 where false").Scan(&n), pgx.ErrNoRows) },
		"null row":  func() { require.NoError(t, pool.QueryRow(ctx, "select null::text").Scan(&text)) },
		"wrong row": func() { require.Error(t, pool.QueryRow(ctx, "select 'a'").Scan(&n)) },
		"batch closed unread": func() {
			b := &pgx.Batch{}
			b.Queue("select 1")
			b.Queue("select 2")
			require.NoError(t, pool.SendBatch(ctx, b).Close())
		},
		"batch that fails": func() {
			b := &pgx.Batch{}
			b.Queue("select 1/0")
			b.Queue("select 2")
			results := pool.SendBatch(ctx, b)
			require.Equal(t, "22012", retrypg.SQLState(results.QueryRow().Scan(&n)))
			require.Error(t, results.Close())
			_ = results.Close()
		},
		"batch with functions": func() {
			b := &pgx.Batch{}
			b.Queue("select 7").QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
			require.NoError(t, pool.SendBatch(ctx, b).Close())
			require.Equal(t, 7, n)
		},
		"copy that fails": func() {
			_, err := pool.CopyFrom(ctx, pgx.Identifier{"nowhere"}, []string{"id"}, pgx.CopyFromRows([][]any{{1}}))
			require.Equal(t, "42P01", retrypg.SQLState(err))
		},
		"function that fails": func() {
			require.Error(t, pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error { return fmt.Errorf("no") }))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 3 { // more than there are connections
				use()
				require.Zero(t, pool.Stat().AcquiredConns())
			}
		})
	}
	require.LessOrEqual(t, p.Stats().Opened, 2, "a connection was thrown away")
}

// TestConflictsOfPlainStatementsAreRunAgain: the server says 40001 or 40P01 twice, to what it has rolled back.
func TestConflictsOfPlainStatementsAreRunAgain(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	w := newWatch()
	pool := newPool(t, through(p, d), w.option())
	_, err := pool.Exec(ctx, `create sequence calls; create sequence expected;
		create function conflict(code text) returns int language plpgsql as $$ begin
			if nextval('calls') % 3 <> 0 then raise exception 'conflict' using errcode = code; end if; return 1; end $$`)
	require.NoError(t, err)
	var n int
	for _, code := range []string{"40001", "40P01"} {
		tag, err := pool.Exec(ctx, "select conflict($1)", code)
		require.NoError(t, err)
		require.Equal(t, "SELECT 1", tag.String())
		require.NoError(t, pool.QueryRow(ctx, "select conflict($1)", code).Scan(&n))
		require.Equal(t, 1, n)
	}
	require.Equal(t, 8, w.counts(), "two waits for each of four statements")
	w.mu.Lock()
	for _, b := range w.backoffs {
		require.Equal(t, "statement", b.Operation)
		require.Equal(t, retrypg.RetryTransaction, b.Class.Retry)
	}
	w.mu.Unlock()

	// What may have committed a part of its work is the caller's.
	_, err = pool.Exec(ctx, "do $$ begin perform conflict('40001'); end $$")
	require.Equal(t, "40001", retrypg.SQLState(err))
	_, err = pool.Exec(ctx, "select 1; select conflict('40001')")
	require.Equal(t, "40001", retrypg.SQLState(err))
	_, err = pool.Exec(ctx, "select conflict('40001')")
	require.NoError(t, err)
	require.Equal(t, 8, w.counts())
	require.Zero(t, pool.Stat().AcquiredConns())
}
