package tx_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// pgxDatabase is an adapter over pgx.
type pgxDatabase struct {
	retrypg.PgxTxBeginner
	run func(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
	end func()
}

func openRetrypgPool(t *testing.T, dsn string, size int, opts []retrypg.Option) database {
	t.Helper()
	pool, err := retrypg.NewPool(t.Context(), withSize(dsn, size), opts...)
	require.NoError(t, err)
	return pgxDatabase{pool, pool.Exec, pool.Close}
}

func openRetrypgPoolConn(t *testing.T, dsn string, size int, opts []retrypg.Option) database {
	t.Helper()
	pool, err := retrypg.NewPool(t.Context(), withSize(dsn, size), opts...)
	require.NoError(t, err)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	return pgxDatabase{conn, conn.Exec, func() { conn.Release(); pool.Close() }}
}

func openConfiguredPool(t *testing.T, dsn string, size int, opts []retrypg.Option) database {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(withSize(dsn, size))
	require.NoError(t, err)
	require.NoError(t, retrypg.ConfigurePool(cfg, opts...))
	return newPgxPool(t, cfg)
}

func openPgxPool(t *testing.T, dsn string, size int, _ []retrypg.Option) database {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(withSize(dsn, size))
	require.NoError(t, err)
	return newPgxPool(t, cfg)
}

func newPgxPool(t *testing.T, cfg *pgxpool.Config) database {
	t.Helper()
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	return pgxDatabase{pool, pool.Exec, pool.Close}
}

func openPgxConn(t *testing.T, dsn string, _ int, _ []retrypg.Option) database {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	return pgxDatabase{conn, conn.Exec, func() {
		_ = conn.Close(context.Background()) // the test's context has ended by then
	}}
}

func (d pgxDatabase) withTx(ctx context.Context, opts retrypg.TxOptions, fn closure) error {
	return retrypg.WithPgxTx(ctx, d.PgxTxBeginner, opts, func(ctx context.Context, tx pgx.Tx) error {
		return fn(ctx, pgxWork{tx})
	})
}

func (d pgxDatabase) withTxResult(ctx context.Context, opts retrypg.TxOptions, fn func(context.Context, work) (string, error)) (string, error) {
	return retrypg.WithPgxTxResult(ctx, d.PgxTxBeginner, opts, func(ctx context.Context, tx pgx.Tx) (string, error) {
		return fn(ctx, pgxWork{tx})
	})
}

func (d pgxDatabase) exec(ctx context.Context, query string) error {
	_, err := d.run(ctx, query)
	return err
}

// close may be called twice, as all handles of pgx allow.
func (d pgxDatabase) close() { d.end() }

type pgxWork struct{ tx pgx.Tx }

func (w pgxWork) exec(ctx context.Context, query string, args ...any) error {
	_, err := w.tx.Exec(ctx, query, args...)
	return err
}

func (w pgxWork) value(ctx context.Context, query string, args ...any) (v string, err error) {
	err = w.tx.QueryRow(ctx, query, args...).Scan(&v)
	return v, err
}

func (w pgxWork) commit(ctx context.Context) error   { return w.tx.Commit(ctx) }
func (w pgxWork) rollback(ctx context.Context) error { return w.tx.Rollback(ctx) }
