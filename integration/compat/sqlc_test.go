package compat_test

import (
	"context"
	"database/sql"
	_ "embed"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/compat/sqlc/sqlcpgx"
	"github.com/retrypg/retrypg/integration/compat/sqlc/sqlcsql"
)

//go:embed sqlc/schema.sql
var sqlcSchema string

// Both have two accounts with 100 each; a transfer is from the first to the second.
const sqlcAccounts = "insert into account values (1, 100), (2, 100)"

func TestSqlcOnDatabaseSQLIsTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		prepareSqlc(t, s)
		q := sqlcsql.New(s.db)
		n, err := q.AddToBalance(s.ctx, sqlcsql.AddToBalanceParams{ID: 1, Amount: 5})
		s.note("updated", []any{n, err})
		n, err = q.AddToBalance(s.ctx, sqlcsql.AddToBalanceParams{ID: 3, Amount: 5})
		s.note("no such account", []any{n, err})
		balance, err := q.Balance(s.ctx, 1)
		s.note("balance", []any{balance, err})
		_, err = q.Balance(s.ctx, 3)
		s.fail("no rows", err)

		tx, err := s.db.BeginTx(s.ctx, nil)
		require.NoError(t, err)
		s.fail("create", q.WithTx(tx).CreateTransfer(s.ctx, sqlcsql.CreateTransferParams{ID: "a", Payer: 1, Payee: 2, Amount: 5}))
		s.fail("commit", tx.Commit())
		s.fail("duplicate", q.CreateTransfer(s.ctx, sqlcsql.CreateTransferParams{ID: "a", Payer: 1, Payee: 2, Amount: 5}))
		transfers, err := q.TransfersOf(s.ctx, 1)
		s.note("transfers", []any{transfers, err})
	})
}

func TestSqlcOnAPoolIsTheSame(t *testing.T) {
	program := func(t *testing.T, s *stage, db sqlcpgx.DBTX) {
		prepareSqlc(t, s)
		q := sqlcpgx.New(db)
		n, err := q.AddToBalance(s.ctx, sqlcpgx.AddToBalanceParams{ID: 1, Amount: 5})
		s.note("updated", []any{n, err})
		balance, err := q.Balance(s.ctx, 1)
		s.note("balance", []any{balance, err})
		_, err = q.Balance(s.ctx, 3)
		s.fail("no rows", err)
		s.fail("create", q.CreateTransfer(s.ctx, sqlcpgx.CreateTransferParams{ID: "a", Payer: 1, Payee: 2, Amount: 5}))
		s.fail("duplicate", q.CreateTransfer(s.ctx, sqlcpgx.CreateTransferParams{ID: "a", Payer: 1, Payee: 2, Amount: 5}))
		transfers, err := q.TransfersOf(s.ctx, 1)
		s.note("transfers", []any{transfers, err})
	}
	t.Run("embedded", func(t *testing.T) {
		sameOverPools(t, allModes, func(t *testing.T, s *stage, pool *pgxpool.Pool) { program(t, s, pool) })
	})
	t.Run("own methods", func(t *testing.T) {
		sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
			if s.driver == "pgx" {
				program(t, s, pools[0].open(t, s))
				return
			}
			program(t, s, newPool(t, s))
		})
	})
}

// The conflict is one of the server: another transaction changes the row after this one has taken its snapshot.
func TestTransferWithSqlcIsThereOnceAfterASerializationFailure(t *testing.T) {
	s := newStage(t)
	prepareSqlc(t, s)
	q := sqlcsql.New(s.db)
	runs := 0
	opts := retrypg.TxOptions{Isolation: sql.LevelRepeatableRead}
	require.NoError(t, retrypg.WithTx(s.ctx, s.db, opts, func(ctx context.Context, tx *sql.Tx) error {
		runs++
		q := q.WithTx(tx)
		balance, err := q.Balance(ctx, 1)
		if err != nil {
			return err
		}
		if runs == 1 {
			s.exec(t, "update account set balance = balance - 1 where id = 1")
		} else {
			require.EqualValues(t, 99, balance, "it is read anew")
		}
		for id, amount := range map[int64]int64{1: -10, 2: 10} {
			if _, err := q.AddToBalance(ctx, sqlcsql.AddToBalanceParams{ID: id, Amount: amount}); err != nil {
				return err
			}
		}
		return q.CreateTransfer(ctx, sqlcsql.CreateTransferParams{ID: "a", Payer: 1, Payee: 2, Amount: 10})
	}))
	require.Equal(t, 2, runs)
	requireTransferred(t, s)
}

func TestTransferWithSqlcOverAPoolIsThereOnceAfterASerializationFailure(t *testing.T) {
	s := newStage(t)
	prepareSqlc(t, s)
	pool := newPool(t, s)
	q := sqlcpgx.New(pool)
	runs := 0
	opts := retrypg.TxOptions{Isolation: sql.LevelRepeatableRead}
	require.NoError(t, retrypg.WithPgxTx(s.ctx, pool, opts, func(ctx context.Context, tx pgx.Tx) error {
		runs++
		q := q.WithTx(tx)
		balance, err := q.Balance(ctx, 1)
		if err != nil {
			return err
		}
		if runs == 1 {
			s.exec(t, "update account set balance = balance - 1 where id = 1")
		} else {
			require.EqualValues(t, 99, balance, "it is read anew")
		}
		for id, amount := range map[int64]int64{1: -10, 2: 10} {
			if _, err := q.AddToBalance(ctx, sqlcpgx.AddToBalanceParams{ID: id, Amount: amount}); err != nil {
				return err
			}
		}
		return q.CreateTransfer(ctx, sqlcpgx.CreateTransferParams{ID: "a", Payer: 1, Payee: 2, Amount: 10})
	}))
	require.Equal(t, 2, runs)
	requireTransferred(t, s)
}

// The text that sqlc sends begins with a comment. A sequence counts the attempts, as no rollback takes its values back.
func TestStatementOfSqlcIsSentAgainAfterASerializationFailure(t *testing.T) {
	s := newStage(t)
	prepareSqlc(t, s)
	s.exec(
		t, "create sequence attempt",
		`create function conflict() returns trigger language plpgsql as $$
		begin
		  if nextval('attempt') < 3 then
		    raise exception using errcode = '40001';
		  end if;
		  return new;
		end $$`,
		"create trigger conflict before update on account for each row execute function conflict()",
	)
	attempts := func() (n int) {
		require.NoError(t, s.db.QueryRowContext(s.ctx, "select last_value from attempt").Scan(&n))
		return n
	}

	n, err := sqlcsql.New(s.db).AddToBalance(s.ctx, sqlcsql.AddToBalanceParams{ID: 1, Amount: 5})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Equal(t, 3, attempts())

	s.exec(t, "alter sequence attempt restart")
	n, err = sqlcpgx.New(newPool(t, s)).AddToBalance(s.ctx, sqlcpgx.AddToBalanceParams{ID: 1, Amount: 5})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Equal(t, 3, attempts())

	var balance int
	require.NoError(t, s.db.QueryRowContext(s.ctx, "select balance from account where id = 1").Scan(&balance))
	require.Equal(t, 110, balance)
}

func prepareSqlc(t *testing.T, s *stage) {
	t.Helper()
	s.exec(t, "drop table if exists account, transfer")
	conn, err := s.db.Conn(s.ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	require.NoError(t, conn.Raw(func(driverConn any) error {
		_, err := driverConn.(interface{ Conn() *pgx.Conn }).Conn().PgConn().Exec(s.ctx, sqlcSchema).ReadAll()
		return err
	}))
	s.exec(t, sqlcAccounts)
}

func newPool(t *testing.T, s *stage) *retrypg.Pool {
	t.Helper()
	pool, err := retrypg.NewPool(s.ctx, s.dsn)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func requireTransferred(t *testing.T, s *stage) {
	t.Helper()
	var balances []int64
	var transfers int
	require.NoError(t, s.db.QueryRowContext(s.ctx, "select count(*) from transfer").Scan(&transfers))
	require.Equal(t, 1, transfers)
	for id := range int64(2) {
		balance, err := sqlcsql.New(s.db).Balance(s.ctx, id+1)
		require.NoError(t, err)
		balances = append(balances, balance)
	}
	require.Equal(t, []int64{89, 110}, balances)
}
