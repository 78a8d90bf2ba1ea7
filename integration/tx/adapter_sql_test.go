package tx_test

import (
	"context"
	"database/sql"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// sqlDatabase is an adapter over database/sql.
type sqlDatabase struct {
	retrypg.TxBeginner
	run     func(ctx context.Context, query string, args ...any) (sql.Result, error)
	closing []func() error
}

func openRetrypgDB(t *testing.T, dsn string, size int, opts []retrypg.Option) database {
	t.Helper()
	db, err := retrypg.OpenDB(dsn, opts...)
	require.NoError(t, err)
	db.SetMaxOpenConns(size)
	return &sqlDatabase{TxBeginner: db, run: db.ExecContext, closing: []func() error{db.Close}}
}

func openPgxDB(t *testing.T, dsn string, size int, _ []retrypg.Option) database {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	db.SetMaxOpenConns(size)
	return &sqlDatabase{TxBeginner: db, run: db.ExecContext, closing: []func() error{db.Close}}
}

func openRetrypgSQLConn(t *testing.T, dsn string, _ int, opts []retrypg.Option) database {
	t.Helper()
	db, err := retrypg.OpenDB(dsn, opts...)
	require.NoError(t, err)
	return pin(t, db)
}

func openPgxSQLConn(t *testing.T, dsn string, _ int, _ []retrypg.Option) database {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	return pin(t, db)
}

func pin(t *testing.T, db *sql.DB) database {
	t.Helper()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	return &sqlDatabase{TxBeginner: conn, run: conn.ExecContext, closing: []func() error{conn.Close, db.Close}}
}

func (d *sqlDatabase) withTx(ctx context.Context, opts retrypg.TxOptions, fn closure) error {
	return retrypg.WithTx(ctx, d.TxBeginner, opts, func(ctx context.Context, tx *sql.Tx) error {
		return fn(ctx, sqlWork{tx})
	})
}

func (d *sqlDatabase) withTxResult(ctx context.Context, opts retrypg.TxOptions, fn func(context.Context, work) (string, error)) (string, error) {
	return retrypg.WithTxResult(ctx, d.TxBeginner, opts, func(ctx context.Context, tx *sql.Tx) (string, error) {
		return fn(ctx, sqlWork{tx})
	})
}

func (d *sqlDatabase) exec(ctx context.Context, query string) error {
	_, err := d.run(ctx, query)
	return err
}

// close may be called twice: by a test that is about closed handles, and at its end.
func (d *sqlDatabase) close() {
	for _, f := range d.closing {
		_ = f() // a pinned connection that was lost says so here
	}
}

type sqlWork struct{ tx *sql.Tx }

func (w sqlWork) exec(ctx context.Context, query string, args ...any) error {
	_, err := w.tx.ExecContext(ctx, query, args...)
	return err
}

func (w sqlWork) value(ctx context.Context, query string, args ...any) (v string, err error) {
	err = w.tx.QueryRowContext(ctx, query, args...).Scan(&v)
	return v, err
}

func (w sqlWork) commit(context.Context) error   { return w.tx.Commit() }
func (w sqlWork) rollback(context.Context) error { return w.tx.Rollback() }
