package commit_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
)

const insertItem = "insert into item (id) values ($1)"

// way is one way to run a transaction that inserts a row. It runs it on one connection.
type way struct {
	name string
	// reruns: a transaction that was not applied is run again.
	reruns bool
	open   func(t *testing.T, dsn string, hooks retrypg.Hooks) func(ctx context.Context, id string) error
}

var ways = []way{
	{"sql.Tx.Commit", false, func(t *testing.T, dsn string, hooks retrypg.Hooks) func(context.Context, string) error {
		db := openDB(t, dsn, hooks)
		return func(ctx context.Context, id string) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, insertItem, id); err != nil {
				return errors.Join(err, tx.Rollback())
			}
			return tx.Commit()
		}
	}},
	{"WithTx", true, func(t *testing.T, dsn string, hooks retrypg.Hooks) func(context.Context, string) error {
		db := openDB(t, dsn, hooks)
		return func(ctx context.Context, id string) error {
			return audit.ExecTx(ctx, db, retrypg.TxOptions{}, insertItem, id)
		}
	}},
	{"pgx.Tx.Commit", false, func(t *testing.T, dsn string, hooks retrypg.Hooks) func(context.Context, string) error {
		pool := openPool(t, dsn, hooks)
		return func(ctx context.Context, id string) error {
			tx, err := pool.Begin(ctx)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, insertItem, id); err != nil {
				return errors.Join(err, tx.Rollback(ctx))
			}
			return tx.Commit(ctx)
		}
	}},
	{"WithPgxTx", true, func(t *testing.T, dsn string, hooks retrypg.Hooks) func(context.Context, string) error {
		return withPgxTx(openPool(t, dsn, hooks))
	}},
	{"WithPgxTx, ConfigurePool", true, func(t *testing.T, dsn string, hooks retrypg.Hooks) func(context.Context, string) error {
		t.Helper()
		cfg, err := pgxpool.ParseConfig(dsn)
		require.NoError(t, err)
		cfg.MaxConns = 1
		require.NoError(t, retrypg.ConfigurePool(cfg, retrypg.WithHooks(hooks), retrypg.WithoutBudget()))
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		return withPgxTx(pool)
	}},
}

func withPgxTx(pool retrypg.PgxTxBeginner) func(context.Context, string) error {
	return func(ctx context.Context, id string) error {
		return audit.ExecPgxTx(ctx, pool, retrypg.TxOptions{}, insertItem, id)
	}
}

// openDB opens a database without a budget: the tests lose more commits than any budget is for.
func openDB(t *testing.T, dsn string, hooks retrypg.Hooks, opts ...retrypg.Option) *sql.DB {
	t.Helper()
	db, err := retrypg.OpenDB(dsn, append(opts, retrypg.WithHooks(hooks), retrypg.WithoutBudget())...)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func openPool(t *testing.T, dsn string, hooks retrypg.Hooks, opts ...retrypg.Option) *retrypg.Pool {
	t.Helper()
	pool, err := retrypg.NewPool(t.Context(), withKey(dsn, "pool_max_conns", "1"), append(opts, retrypg.WithHooks(hooks), retrypg.WithoutBudget())...)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}
