package cost_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// transaction is one whose round trips are counted.
type transaction struct {
	level      sql.IsolationLevel
	readOnly   bool
	text       string // of each statement, with one argument
	statements int
	// prepared says that the statements go through one that the caller prepared before.
	prepared bool
}

// sql returns the transaction over database/sql: by hand, or with WithTx.
func (x transaction) sql(t *testing.T, driver, dsn string, withTx bool) func(ctx context.Context) error {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	db.SetMaxOpenConns(1)
	run := func(ctx context.Context, tx *sql.Tx) error {
		for range x.statements {
			if _, err := tx.ExecContext(ctx, x.text, "note"); err != nil {
				return err
			}
		}
		return nil
	}
	if x.prepared {
		statement, err := db.PrepareContext(t.Context(), x.text)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, statement.Close()) })
		run = func(ctx context.Context, tx *sql.Tx) error {
			own := tx.StmtContext(ctx, statement)
			defer func() { _ = own.Close() }() // sends nothing
			for range x.statements {
				if _, err := own.ExecContext(ctx, "note"); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return func(ctx context.Context) error {
		if withTx {
			return retrypg.WithTx(ctx, db, retrypg.TxOptions{Isolation: x.level, ReadOnly: x.readOnly}, run)
		}
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: x.level, ReadOnly: x.readOnly})
		if err != nil {
			return err
		}
		if err := run(ctx, tx); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	}
}

// pgxPool is what pgxpool.Pool and retrypg.Pool have in common.
type pgxPool interface {
	retrypg.PgxTxBeginner
	Close()
}

// pgx returns the transaction over a pool of pgx: by hand, or with WithPgxTx. There, what is prepared is pgx's own affair.
func (x transaction) pgx(t *testing.T, open func(ctx context.Context) (pgxPool, error), withTx bool) func(ctx context.Context) error {
	t.Helper()
	pool, err := open(t.Context())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	run := func(ctx context.Context, tx pgx.Tx) error {
		for range x.statements {
			if _, err := tx.Exec(ctx, x.text, "note"); err != nil {
				return err
			}
		}
		return nil
	}
	var options pgx.TxOptions
	if x.level == sql.LevelSerializable {
		options.IsoLevel = pgx.Serializable
	}
	if x.readOnly {
		options.AccessMode = pgx.ReadOnly
	}
	return func(ctx context.Context) error {
		if withTx {
			return retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{Isolation: x.level, ReadOnly: x.readOnly}, run)
		}
		tx, err := pool.BeginTx(ctx, options)
		if err != nil {
			return err
		}
		if err := run(ctx, tx); err != nil {
			return errors.Join(err, tx.Rollback(ctx))
		}
		return tx.Commit(ctx)
	}
}

func plainPool(dsn string) func(ctx context.Context) (pgxPool, error) {
	return func(ctx context.Context) (pgxPool, error) { return pgxpool.New(ctx, dsn) }
}

func ownPool(dsn string) func(ctx context.Context) (pgxPool, error) {
	return func(ctx context.Context) (pgxPool, error) { return retrypg.NewPool(ctx, dsn) }
}
