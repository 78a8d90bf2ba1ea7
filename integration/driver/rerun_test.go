package driver_test

import (
	"context"
	"database/sql"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// flaky is a function that inserts a row and fails with a SQLSTATE until its call with the number given. Calls are
// counted by a sequence, which no rollback takes back.
const flaky = `create sequence calls;
	create function flaky(last int, code text default '40001') returns int language plpgsql as $$ begin
		insert into t values (1);
		if nextval('calls') < last then raise exception 'conflict' using errcode = code; end if;
		return last;
	end $$;
	create procedure flaky_call(last int) language plpgsql as $$ begin perform flaky(last); end $$`

// calls returns how often flaky was called.
func (s *scene) calls() int {
	s.t.Helper()
	n, err := strconv.Atoi(s.ask("select case when is_called then last_value else 0 end from calls"))
	require.NoError(s.t, err)
	return n
}

// backoffs collects what Hooks.Backoff is told.
type backoffs struct {
	mu   sync.Mutex
	seen []retrypg.BackoffInfo
}

func (b *backoffs) option() retrypg.Option {
	return retrypg.WithHooks(retrypg.Hooks{Backoff: func(_ context.Context, info retrypg.BackoffInfo) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.seen = append(b.seen, info)
	}})
}

func (b *backoffs) all() []retrypg.BackoffInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen
}

// statements are the ways to send one statement outside of a transaction.
var statements = map[string]func(ctx context.Context, db *sql.DB, query string) error{
	"Exec": func(ctx context.Context, db *sql.DB, query string) error {
		_, err := db.ExecContext(ctx, query)
		return err
	},
	"Query": func(ctx context.Context, db *sql.DB, query string) error { return readAll(db.QueryContext(ctx, query)) },
	"QueryRow": func(ctx context.Context, db *sql.DB, query string) error {
		var v any
		return db.QueryRowContext(ctx, query).Scan(&v)
	},
	"prepared Exec": func(ctx context.Context, db *sql.DB, query string) error {
		stmt, err := db.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		defer stmt.Close()
		_, err = stmt.ExecContext(ctx)
		return err
	},
	"prepared Query": func(ctx context.Context, db *sql.DB, query string) error {
		stmt, err := db.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		defer stmt.Close()
		return readAll(stmt.QueryContext(ctx))
	},
	"pinned": func(ctx context.Context, db *sql.DB, query string) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.ExecContext(ctx, query)
		return err
	},
}

func TestStatementRolledBackByAConflictIsSentAgainUntilItSucceeds(t *testing.T) {
	server := newServer(t)
	for _, mode := range execModes {
		for name, send := range statements {
			t.Run(mode+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				s.run(flaky)
				var b backoffs
				db := s.openWith(s.dsn("default_query_exec_mode="+mode), b.option())
				require.NoError(t, send(s.context(), db, "select flaky(4)"))
				require.Equal(t, 4, s.calls())
				require.Equal(t, 1, s.rows())
				require.Len(t, b.all(), 3)
				for i, info := range b.all() {
					require.Equal(t, "statement", info.Operation)
					require.Equal(t, i+1, info.Attempt)
					requireBare(t, "40001", info.Err)
					require.Equal(t, retrypg.RetryTransaction, info.Class.Retry)
				}
			})
		}
	}
}

func TestConflictThatDoesNotEndIsReturnedBareAfterTheAttempts(t *testing.T) {
	server := newServer(t)
	for _, attempts := range []int{1, 3} {
		t.Run(strconv.Itoa(attempts), func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			s.run(flaky)
			db := s.openWith(s.dsn(), retrypg.WithMaxAttempts(attempts))
			_, err := db.ExecContext(s.context(), "select flaky(1000)")
			requireBare(t, "40001", err)
			require.Equal(t, attempts, s.calls())
			require.Zero(t, s.rows())
		})
	}
}

func TestConflictThatMayHaveLeftSomethingBehindIsNotSentAgain(t *testing.T) {
	server := newServer(t)
	for name, query := range map[string]string{
		"CALL":                      "call flaky_call(3)",
		"DO":                        "do 'begin perform flaky(3); end'",
		"several statements":        "select flaky(3); select 1",
		"a commit before it":        "insert into t values (2); commit; select flaky(3)",
		"EXPLAIN ANALYZE":           "explain analyze select flaky(3)",
		"CREATE TABLE AS":           "create table copied as select flaky(3)",
		"CREATE INDEX CONCURRENTLY": "create index concurrently broken on other (n) where picky(n) > 0",
		"begin and work":            "begin; select flaky(3)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			s.run(flaky + `; create table other (n int); insert into other values (1);
				create function picky(n int) returns int immutable language plpgsql set search_path from current
					as 'begin perform flaky(3); return n; end'`) // PostgreSQL 17 and later build indexes with a path of their own
			var b backoffs
			db := s.openWith(s.dsn(), b.option())
			_, err := db.ExecContext(s.context(), query)
			require.Equal(t, "40001", serverError(t, err).Code)
			require.Equal(t, 1, s.calls())
			require.Empty(t, b.all())
		})
	}
}

func TestConflictInATransactionIsNotSentAgainByTheDriver(t *testing.T) {
	server := newServer(t)
	for _, mode := range execModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			s.run(flaky)
			var b backoffs
			db := s.openWith(s.dsn("default_query_exec_mode="+mode), b.option())
			tx, err := db.BeginTx(s.context(), nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(s.context(), "select flaky(3)")
			requireBare(t, "40001", err)
			require.NoError(t, tx.Rollback())

			conn := s.pinned(db)
			_, err = conn.ExecContext(s.context(), "begin") // a transaction that database/sql knows nothing of
			require.NoError(t, err)
			_, err = conn.ExecContext(s.context(), "select flaky(3)")
			requireBare(t, "40001", err)
			_, err = conn.ExecContext(s.context(), "rollback")
			require.NoError(t, err)
			require.Equal(t, 2, s.calls())
			require.Empty(t, b.all())
		})
	}
}

func TestConflictAfterTheFirstRowIsTheCallers(t *testing.T) {
	server := newServer(t)
	for _, mode := range execModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			s.run(flaky)
			var b backoffs
			db := s.openWith(s.dsn("default_query_exec_mode="+mode), b.option())
			rows, err := db.QueryContext(s.context(), "select case when n < 3 then n else flaky(1000) end from generate_series(1, 9) n")
			require.NoError(t, err)
			defer rows.Close()
			read := 0
			for rows.Next() {
				read++
			}
			require.Equal(t, 2, read)
			requireBare(t, "40001", rows.Err())
			require.Equal(t, 1, s.calls())
			require.Empty(t, b.all())
		})
	}
}

// NOWAIT asks not to wait, and so does lock_timeout.
func TestLockNotAvailableIsReturnedAtOnce(t *testing.T) {
	server := newServer(t)
	for name, params := range map[string][]string{
		"select n from t for update nowait": nil,
		"update t set n = n + 1":            {"lock_timeout=1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			s.run(insertRow)
			s.run("begin; select n from t for update")
			var b backoffs
			db := s.openWith(s.dsn(params...), b.option())
			_, err := db.ExecContext(s.context(), name)
			requireBare(t, "55P03", err)
			require.Empty(t, b.all())
			require.Equal(t, 1, s.proxy.Stats().Seen(name))
		})
	}
}

// CockroachDB sends 58C00 for a statement that may have been applied, on a connection that lives on.
func TestErrorWithAnUnknownOutcomeIsNotSentAgain(t *testing.T) {
	s := newScene(t, newServer(t))
	var b backoffs
	db := s.openWith(s.dsn(), b.option())
	s.proxy.OnMessages(10, pgtest.Sending(insertRow), pgtest.Answer(
		&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "58C00", Message: "replica unavailable"},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	))
	_, err := db.ExecContext(s.context(), insertRow)
	requireBare(t, "58C00", err)
	require.Empty(t, b.all())
	require.Equal(t, 1, s.proxy.Stats().Seen(insertRow))
}
