package compat_test

import (
	"context"
	"database/sql"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

const pairTable = "create table pair (id int primary key, name text not null unique)"

func TestStatementsAreTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		s.exec(t, pairTable)
		insert, err := s.db.PrepareContext(s.ctx, "insert into pair values ($1, $2)")
		require.NoError(t, err)
		defer func() { require.NoError(t, insert.Close()) }()
		res, err := insert.ExecContext(s.ctx, 1, "a")
		require.NoError(t, err)
		s.note("result", res)
		n, err := res.RowsAffected()
		s.note("rows affected", []any{n, err})
		_, err = res.LastInsertId()
		s.fail("last insert id", err)
		_, err = insert.ExecContext(s.ctx, 1, "a")
		s.fail("duplicate", err)
		_, err = insert.ExecContext(s.ctx, 1)
		s.fail("too few", err)
		_, err = insert.ExecContext(s.ctx, "one", "a")
		s.fail("wrong type", err)

		tx, err := s.db.BeginTx(s.ctx, nil)
		require.NoError(t, err)
		for id, name := range []string{2: "b", 3: "c"} {
			if name != "" {
				bound := tx.StmtContext(s.ctx, insert)
				_, err = bound.ExecContext(s.ctx, id, name)
				require.NoError(t, err)
				require.NoError(t, bound.Close()) //nolint:sqlclosecheck // in a loop
			}
		}
		own, err := tx.PrepareContext(s.ctx, "select name from pair where id >= $1 order by id")
		require.NoError(t, err)
		defer func() { s.fail("close a statement of a transaction that is over", own.Close()) }()
		s.note("in the transaction", names(t, s, own, 2))
		require.NoError(t, tx.Commit())
		_, err = own.QueryContext(s.ctx, 1) //nolint:sqlclosecheck,rowserrcheck // fails
		s.fail("statement of a transaction that is over", err)

		_, err = s.db.PrepareContext(s.ctx, "selekt") //nolint:sqlclosecheck // fails
		s.fail("cannot be prepared", err)
		closed, err := s.db.PrepareContext(s.ctx, "select 1")
		require.NoError(t, err)
		require.NoError(t, closed.Close()) //nolint:sqlclosecheck // what the next lines are about
		_, err = closed.ExecContext(s.ctx)
		s.fail("closed statement", err)
	})
}

func names(t *testing.T, s *stage, stmt *sql.Stmt, args ...any) (names []string) {
	t.Helper()
	rows, err := stmt.QueryContext(s.ctx, args...)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		names = append(names, name)
	}
	require.NoError(t, rows.Err())
	return names
}

func TestRowsAreTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		s.exec(t, pairTable, "insert into pair select n, 'name ' || n from generate_series(1, 500) n")
		rows, err := s.db.QueryContext(s.ctx, "select id, name, 1.25::numeric(10, 2) as price, now() - now() as age, null from pair order by id")
		require.NoError(t, err)
		defer func() { require.NoError(t, rows.Close()) }()
		columns, err := rows.Columns()
		s.note("columns", []any{columns, err})
		kinds, err := rows.ColumnTypes()
		require.NoError(t, err)
		for _, k := range kinds {
			length, hasLength := k.Length()
			nullable, knows := k.Nullable()
			precision, scale, decimal := k.DecimalSize()
			s.note("column", []any{k.Name(), k.DatabaseTypeName(), k.ScanType(), length, hasLength, nullable, knows, precision, scale, decimal})
		}
		count := 0
		for rows.Next() {
			count++
		}
		s.note("rows", []any{count, rows.Err(), rows.NextResultSet()})

		several, err := s.db.QueryContext(s.ctx, "select 1; select 2")
		s.fail("several statements", err)
		if err == nil {
			s.note("first", []any{several.Next(), several.NextResultSet(), several.Err()})
			s.fail("close", several.Close()) //nolint:sqlclosecheck // its error is noted in its turn
		}
		res, err := s.db.ExecContext(s.ctx, "insert into pair values (-1, 'x'); update pair set name = name || '!' where id < 3")
		require.NoError(t, err)
		n, err := res.RowsAffected()
		s.note("rows affected by the last of several", []any{n, err})
		_, err = s.db.ExecContext(s.ctx, "delete from pair where id = -1; select 1/0")
		s.fail("error in the second of several", err)
		var left int
		require.NoError(t, s.db.QueryRowContext(s.ctx, "select count(*) from pair where id = -1").Scan(&left))
		s.note("left by the first", left)

		failing, err := s.db.QueryContext(s.ctx, "select 1 / (3 - id) from pair order by id")
		s.fail("an error after some rows, at first", err)
		if err == nil {
			seen := 0
			for failing.Next() {
				seen++
			}
			s.note("rows before the error", seen)
			s.fail("at last", failing.Err())
			s.fail("close", failing.Close()) //nolint:sqlclosecheck // its error is noted in its turn
		}
		s.fail("no rows", s.db.QueryRowContext(s.ctx, "select 1 where false").Scan(new(int)))
	})
}

func TestTransactionsAreTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		s.exec(t, pairTable)
		for _, o := range []*sql.TxOptions{
			nil,
			{ReadOnly: true},
			{Isolation: sql.LevelReadUncommitted},
			{Isolation: sql.LevelRepeatableRead},
			{Isolation: sql.LevelSnapshot},
			{Isolation: sql.LevelSerializable, ReadOnly: true},
		} {
			tx, err := s.db.BeginTx(s.ctx, o)
			require.NoError(t, err)
			var isolation, readOnly string
			require.NoError(t, tx.QueryRowContext(s.ctx, "select current_setting('transaction_isolation'), current_setting('transaction_read_only')").Scan(&isolation, &readOnly))
			s.note("transaction", []any{isolation, readOnly})
			_, err = tx.ExecContext(s.ctx, "insert into pair values (1, 'a')")
			s.fail("write", err)
			s.fail("rollback", tx.Rollback())
			s.fail("rollback again", tx.Rollback())
			s.fail("commit after it", tx.Commit())
			_, err = tx.ExecContext(s.ctx, "select 1")
			s.fail("statement after it", err)
		}
		_, err := s.db.BeginTx(s.ctx, &sql.TxOptions{Isolation: sql.LevelLinearizable})
		require.ErrorContains(t, err, "unsupported isolation: ") // pgx goes on with 7, retrypg with its name
		s.note("unsupported isolation", reflect.TypeOf(err))

		ctx, cancel := context.WithCancel(s.ctx)
		tx, err := s.db.BeginTx(ctx, nil)
		require.NoError(t, err)
		cancel()
		_, err = tx.ExecContext(ctx, "insert into pair values (2, 'b')")
		s.note("after its context's end", errors.Is(err, context.Canceled) || errors.Is(err, sql.ErrTxDone))
		require.Error(t, tx.Commit())

		s.exec(t, "alter table pair add constraint late unique (name) deferrable initially deferred")
		tx, err = s.db.BeginTx(s.ctx, nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(s.ctx, "alter table pair drop constraint pair_name_key")
		require.NoError(t, err)
		_, err = tx.ExecContext(s.ctx, "insert into pair values (3, 'c'), (4, 'c')")
		require.NoError(t, err)
		s.fail("refused by commit", tx.Commit())
		tx, err = s.db.BeginTx(s.ctx, nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(s.ctx, "select 1/0")
		s.fail("aborts", err)
		s.fail("commit of an aborted transaction", tx.Commit())
	})
}

func TestConnectionsAreTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		s.exec(t, pairTable)
		s.fail("ping", s.db.PingContext(s.ctx))
		conn, err := s.db.Conn(s.ctx)
		require.NoError(t, err)
		require.NoError(t, conn.Raw(func(driverConn any) error {
			c := driverConn.(interface{ Conn() *pgx.Conn }).Conn()
			n, err := c.CopyFrom(s.ctx, pgx.Identifier{"pair"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{1, "a"}, {2, "b"}}))
			s.note("copied", []any{n, err})
			_, err = c.CopyFrom(s.ctx, pgx.Identifier{"pair"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{1, "a"}}))
			s.fail("copied twice", err)
			_, err = c.Exec(s.ctx, "listen news")
			require.NoError(t, err)
			_, err = c.Exec(s.ctx, "notify news, 'hello'")
			require.NoError(t, err)
			news, err := c.WaitForNotification(s.ctx)
			require.NoError(t, err)
			s.note("heard", news.Payload)
			return nil
		}))
		_, err = conn.ExecContext(s.ctx, "set search_path to nowhere")
		require.NoError(t, err)
		_, err = conn.ExecContext(s.ctx, "select * from pair")
		s.fail("on the connection with another search_path", err)
		var mode string
		require.NoError(t, conn.QueryRowContext(s.ctx, "select $1::text", pgx.QueryExecModeSimpleProtocol, "mode first").Scan(&mode))
		s.note("a mode as the first argument", mode)
		require.NoError(t, conn.QueryRowContext(s.ctx, "select @name::text", pgx.NamedArgs{"name": "named"}).Scan(&mode))
		s.note("named arguments", mode)
		require.NoError(t, conn.Close())
		_, err = conn.ExecContext(s.ctx, "select 1")
		s.fail("closed connection", err)

		ctx, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond)
		defer cancel()
		_, err = s.db.ExecContext(ctx, "select pg_sleep(60)")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		s.fail("deadline", err)
		cancelled, stop := context.WithCancel(s.ctx)
		stop()
		_, err = s.db.ExecContext(cancelled, "select 1")
		s.fail("cancelled before", err)
		_, err = s.db.ExecContext(s.ctx, "select pg_terminate_backend(pg_backend_pid())")
		var pgErr *pgconn.PgError
		require.ErrorAs(t, err, &pgErr)
		s.fail("terminated", pgErr)
		s.fail("after that", s.db.PingContext(s.ctx))
	})
}

func TestErrorsOfConnectingAreTheSame(t *testing.T) {
	sameOverBoth(t, []string{cacheStatement}, func(t *testing.T, s *stage) {
		for _, more := range []string{"&dbname=nowhere", "&user=nobody", "&sslmode=require", "&search_path=x&nonsense=1"} {
			db, err := sql.Open(s.driver, s.dsn+more)
			require.NoError(t, err)
			s.fail(more, db.PingContext(s.ctx))
			require.NoError(t, db.Close())
		}
	})
}
