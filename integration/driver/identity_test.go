package driver_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// faulty are statements that fail without leaving anything behind. code is the server's, or "" for an error of pgx.
var faulty = []struct {
	name  string
	code  string
	query string
	args  []any
}{
	{"unique violation", "23505", "insert into u values ($1)", []any{1}},
	{"unique violation without argument", "23505", "insert into u values (1)", nil},
	{"not null violation", "23502", "insert into u values ($1)", []any{nil}},
	{"foreign key violation", "23503", "insert into f values ($1)", []any{2}},
	{"check violation", "23514", "insert into u values ($1)", []any{-1}},
	{"no such table", "42P01", "select * from nowhere where n = $1", []any{1}},
	{"no such column", "42703", "select nothing from u", nil},
	{"no such function", "42883", "select nothing(1)", nil},
	{"syntax error", "42601", "selec 1", nil},
	{"invalid text", "22P02", "select ($1::text)::int", []any{"x"}},
	{"division by zero", "22012", "select 1 / $1::int", []any{0}},
	{"out of range", "22003", "select 2147483647 + $1::int", []any{1}},
	{"not supported", "0A000", "select count(*) from u for update", nil},
	{"no privilege", "42501", "select pg_read_file('/') from pretend", nil},
	{"lock not available", "55P03", "select n from locked for update nowait", nil},
	{"cancelled by the server", "57014", "select pg_cancel_backend(pg_backend_pid()), pg_sleep(300)", nil},
	{"raised", "P0001", "do 'begin raise exception ''mine''; end'", nil},
	{"raised with detail", "22023", "do 'begin raise exception ''mine'' using errcode = ''22023'', detail = ''d'', hint = ''h'', table = ''u''; end'", nil},
	{"conflict in DO", "40001", "do 'begin raise exception ''mine'' using errcode = ''40001''; end'", nil},
	{"argument of the wrong type", "", "select n from u where n = $1", []any{"x"}},
	{"too few arguments", "", "select n from u where n = $1 and n = $2", []any{1}},
}

const faultyTables = `create table u (n int primary key check (n > 0)); insert into u values (1);
	create table f (n int references u);
	create table locked (n int); insert into locked values (1);
	create function deny() returns int language plpgsql as 'begin raise exception ''denied'' using errcode = ''42501''; end';
	create view pretend as select deny() as n`

// shape is everything that a caller can tell errors apart by: the types and texts of an error and of all that it wraps.
func shape(err error) []string {
	if err == nil {
		return nil
	}
	s := []string{fmt.Sprintf("%T: %s", err, err)}
	if pgErr, ok := err.(*pgconn.PgError); ok { //nolint:errorlint // this node only
		s = append(s, fmt.Sprintf("%+v", *pgErr))
	}
	switch e := err.(type) { //nolint:errorlint // walks the tree itself
	case interface{ Unwrap() error }:
		s = append(s, shape(e.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			s = append(s, shape(inner)...)
		}
	}
	return s
}

// onBoth calls f with both drivers and requires that their errors are the same. It returns ours.
func onBoth(t *testing.T, s *scene, mode string, f func(*sql.DB) error) error {
	t.Helper()
	want := f(s.open(plain, "default_query_exec_mode="+mode))
	got := f(s.open(ours, "default_query_exec_mode="+mode))
	require.Equal(t, shape(want), shape(got))
	return got
}

func TestServerErrorsAreThoseOfPlainPgx(t *testing.T) {
	server := newServer(t)
	calls := map[string]func(ctx context.Context, db *sql.DB, query string, args []any) error{
		"Exec": func(ctx context.Context, db *sql.DB, query string, args []any) error {
			_, err := db.ExecContext(ctx, query, args...)
			return err
		},
		"Query": func(ctx context.Context, db *sql.DB, query string, args []any) error {
			return readAll(db.QueryContext(ctx, query, args...))
		},
		"QueryRow": func(ctx context.Context, db *sql.DB, query string, args []any) error {
			var v any
			return db.QueryRowContext(ctx, query, args...).Scan(&v)
		},
		"Prepare": func(ctx context.Context, db *sql.DB, query string, args []any) error {
			stmt, err := db.PrepareContext(ctx, query)
			if err != nil {
				return err
			}
			defer stmt.Close()
			_, err = stmt.ExecContext(ctx, args...)
			return err
		},
		"Tx": func(ctx context.Context, db *sql.DB, query string, args []any) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, query, args...)
			_, next := tx.ExecContext(ctx, "select 1") // 25P02, if the first was the server's
			return errors.Join(err, next, tx.Commit())
		},
		"Conn": func(ctx context.Context, db *sql.DB, query string, args []any) error {
			conn, err := db.Conn(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			return readAll(conn.QueryContext(ctx, query, args...))
		},
	}
	for _, mode := range execModes {
		for name, call := range calls {
			t.Run(mode+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				s.run(faultyTables)
				s.run("begin; select n from locked for update")
				theirs, own := s.open(plain, "default_query_exec_mode="+mode), s.open(ours, "default_query_exec_mode="+mode)
				spans := sdktrace.NewTracerProvider()
				traced := s.openWith(s.dsn("default_query_exec_mode="+mode), retrypg.WithTracerProvider(spans))
				for _, f := range faulty {
					want := call(s.context(), theirs, f.query, f.args)
					got := call(s.context(), own, f.query, f.args)
					require.Error(t, got, f.name)
					require.Equal(t, shape(want), shape(got), f.name)
					require.Equal(t, shape(want), shape(call(s.context(), traced, f.query, f.args)), "%s, traced", f.name)
					if f.code != "" && mode != "simple_protocol" && mode != "exec" { // which leave types to the server
						require.Equal(t, f.code, retrypg.SQLState(got), f.name)
					}
					if f.code != "" && name != "Tx" {
						require.IsType(t, want, got, f.name)
					}
				}
			})
		}
	}
}

func TestErrorsOfBeginAndCommitAreThoseOfPlainPgx(t *testing.T) {
	server := newServer(t)
	for _, mode := range execModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			s.run("alter table t add constraint one unique (n) deferrable initially deferred")
			for _, driver := range drivers {
				db := s.open(driver, "default_query_exec_mode="+mode)
				_, err := db.BeginTx(s.context(), &sql.TxOptions{Isolation: sql.LevelLinearizable})
				require.ErrorContains(t, err, "isolation")
			}
			err := onBoth(t, s, mode, func(db *sql.DB) error {
				tx, err := db.BeginTx(s.context(), nil)
				require.NoError(t, err)
				for range 2 {
					_, err = tx.ExecContext(s.context(), insertRowArgs, 1)
					require.NoError(t, err)
				}
				err = tx.Commit()
				return errors.Join(err, tx.Commit(), tx.Rollback())
			})
			require.Equal(t, "23505", serverError(t, err).Code)

			err = onBoth(t, s, mode, func(db *sql.DB) error {
				tx, err := db.BeginTx(s.context(), &sql.TxOptions{ReadOnly: true})
				require.NoError(t, err)
				_, err = tx.ExecContext(s.context(), insertRowArgs, 1)
				return errors.Join(err, tx.Commit())
			})
			require.Equal(t, "25006", serverError(t, err).Code)

			err = onBoth(t, s, mode, func(db *sql.DB) error {
				tx, err := db.BeginTx(s.context(), nil)
				require.NoError(t, err)
				require.NoError(t, tx.Rollback())
				_, err = tx.ExecContext(s.context(), insertRow)
				return err
			})
			require.ErrorIs(t, err, sql.ErrTxDone)
		})
	}
}

func TestNoRowsIsTheErrorOfDatabaseSQL(t *testing.T) {
	s := newScene(t, newServer(t))
	err := onBoth(t, s, "cache_statement", func(db *sql.DB) error {
		var n int
		return db.QueryRowContext(s.context(), "select n from t").Scan(&n)
	})
	require.Equal(t, sql.ErrNoRows, err)
}

func TestContextErrorsAreThoseOfPlainPgx(t *testing.T) {
	server := newServer(t)
	const sleep = "select pg_sleep(300)"
	calls := map[string]func(context.Context, *sql.DB) error{
		"Exec": func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, sleep)
			return err
		},
		"Query": func(ctx context.Context, db *sql.DB) error { return readAll(db.QueryContext(ctx, sleep)) },
		"QueryRow": func(ctx context.Context, db *sql.DB) error {
			var v any
			return db.QueryRowContext(ctx, sleep).Scan(&v)
		},
		"Exec with an argument": func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "select pg_sleep($1)", 300)
			return err
		},
		"Conn": func(ctx context.Context, db *sql.DB) error {
			conn, err := db.Conn(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.ExecContext(ctx, sleep)
			return err
		},
	}
	for _, mode := range execModes {
		for name, call := range calls {
			t.Run(mode+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				err := onBoth(t, s, mode, func(db *sql.DB) error {
					ctx, cancel := context.WithCancel(s.context())
					defer cancel()
					s.afterwards(s.proxy.OnMessage(pgtest.Sent("select pg_sleep"), pgtest.BlackHoleAfter()), cancel)
					return call(ctx, db)
				})
				require.ErrorIs(t, err, context.Canceled)
				err = onBoth(t, s, mode, func(db *sql.DB) error {
					ctx := newExpiring(s.context())
					s.afterwards(s.proxy.OnMessage(pgtest.Sent("select pg_sleep"), pgtest.BlackHoleAfter()), ctx.expire)
					return call(ctx, db)
				})
				require.ErrorIs(t, err, context.DeadlineExceeded)
				err = onBoth(t, s, mode, func(db *sql.DB) error {
					ctx, cancel := context.WithCancel(s.context())
					cancel()
					return call(ctx, db)
				})
				require.Equal(t, context.Canceled, err)
			})
		}
	}
}
