package driver_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// half is a procedure that commits a row before its conflict: what must not be sent again.
const half = `create procedure half() language plpgsql as $$ begin
	insert into t values (1);
	commit;
	raise exception 'conflict' using errcode = '40001';
end $$`

// instead makes pgx send another text than the one that it was given.
type instead string

func (i instead) RewriteQuery(context.Context, *pgx.Conn, string, []any) (string, []any, error) {
	return string(i), nil, nil
}

// senders are the ways to send a statement with arguments outside of a transaction, over database/sql and over a pool.
var senders = map[string]func(ctx context.Context, db *sql.DB, pool *retrypg.Pool, query string, args ...any) error{
	"db.Exec": func(ctx context.Context, db *sql.DB, _ *retrypg.Pool, query string, args ...any) error {
		_, err := db.ExecContext(ctx, query, args...)
		return err
	},
	"db.Query": func(ctx context.Context, db *sql.DB, _ *retrypg.Pool, query string, args ...any) error {
		return readAll(db.QueryContext(ctx, query, args...))
	},
	"conn.Exec": func(ctx context.Context, db *sql.DB, _ *retrypg.Pool, query string, args ...any) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.ExecContext(ctx, query, args...)
		return err
	},
	"pool.Exec": func(ctx context.Context, _ *sql.DB, pool *retrypg.Pool, query string, args ...any) error {
		_, err := pool.Exec(ctx, query, args...)
		return err
	},
	"pool.Query": func(ctx context.Context, _ *sql.DB, pool *retrypg.Pool, query string, args ...any) error {
		rows, err := pool.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		_, err = pgx.CollectRows(rows, pgx.RowTo[any])
		return err
	},
	"pool.QueryRow": func(ctx context.Context, _ *sql.DB, pool *retrypg.Pool, query string, args ...any) error {
		var v any
		return pool.QueryRow(ctx, query, args...).Scan(&v)
	},
}

// eachSender runs test with every way to send a statement.
func eachSender(t *testing.T, opts []retrypg.Option, test func(t *testing.T, s *scene, send func(query string, args ...any) error)) {
	t.Helper()
	server := newServer(t)
	for name, send := range senders {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, server)
			s.run(half)
			db := s.openWith(s.dsn(), opts...)
			pool, err := retrypg.NewPool(s.context(), s.dsn(), opts...)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			test(t, s, func(query string, args ...any) error { return send(s.context(), db, pool, query, args...) })
		})
	}
}

// TestTextThatARewriterReplacesIsNotSentAgain: the text that was given says nothing of the text that is sent.
func TestTextThatARewriterReplacesIsNotSentAgain(t *testing.T) {
	eachSender(t, nil, func(t *testing.T, s *scene, send func(string, ...any) error) {
		for _, given := range []string{"select 1", "insert into t values (1)", "with x as (select 1) select * from x"} {
			before := s.rows()
			require.Equal(t, "40001", serverError(t, send(given, instead("call half()"))).Code)
			require.Equal(t, before+1, s.rows(), given)
		}
	})
}

// TestRewriterBehindAQueryOptionIsSeenToo: pgx takes options of a query from the first arguments, a rewriter among them.
func TestRewriterBehindAQueryOptionIsSeenToo(t *testing.T) {
	eachSender(t, nil, func(t *testing.T, s *scene, send func(string, ...any) error) {
		require.Equal(t, "40001", serverError(t, send("select 1", pgx.QueryExecModeExec, instead("call half()"))).Code)
		require.Equal(t, 1, s.rows())
	})
}

// TestNamedArgumentsDoNotKeepAStatementFromBeingSentAgain: they change the names of parameters only.
func TestNamedArgumentsDoNotKeepAStatementFromBeingSentAgain(t *testing.T) {
	eachSender(t, nil, func(t *testing.T, s *scene, send func(string, ...any) error) {
		if !retried(t) {
			return
		}
		s.run(flaky)
		require.NoError(t, send("select flaky(@last)", pgx.NamedArgs{"last": 3}))
		require.Equal(t, 3, s.calls())
		s.run("alter sequence calls restart")
		require.NoError(t, send("select flaky(@last)", pgx.StrictNamedArgs{"last": 2}))
		require.Equal(t, 2, s.calls())
	})
}

// retried reports whether the subtest's way hands errors out before its rows: errors of Pool.Query come with the rows,
// when nothing can be sent again.
func retried(t *testing.T) bool {
	t.Helper()
	return t.Name() != "TestNamedArgumentsDoNotKeepAStatementFromBeingSentAgain/pool.Query"
}

// TestNameOfAPreparedStatementIsNotTakenForItsText: pgx sends the prepared statement where the text is the name of one.
func TestNameOfAPreparedStatementIsNotTakenForItsText(t *testing.T) {
	names := []string{"select", "insert", "update", "delete", "merge", "with", "values", "table", "SELECT", "select2"}
	prepare := retrypg.WithAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		for _, name := range names {
			if _, err := conn.Prepare(ctx, name, "call half()"); err != nil {
				return err
			}
		}
		return nil
	})
	eachSender(t, []retrypg.Option{prepare}, func(t *testing.T, s *scene, send func(string, ...any) error) {
		for i, name := range names {
			require.Equal(t, "40001", serverError(t, send(name)).Code)
			require.Equal(t, i+1, s.rows(), name)
		}
	})
}
