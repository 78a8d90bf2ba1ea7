package reach_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx" to compare with
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
)

// client is one way to write to a database.
type client struct {
	// write adds an entry to the table, in a transaction.
	write func(ctx context.Context, id string) error
	// hold takes a connection out of the pool. release gives it back, as one that is of no use where broken is true.
	hold func(ctx context.Context) (release func(broken bool), err error)
}

// kind is a kind of client.
type kind struct {
	name string
	ours bool
	open func(t *testing.T, dsn string, connections int) *client // closed when the test ends
}

var (
	// ours ask for the outcome of a lost COMMIT by transaction id, which is the default.
	ours = []kind{
		{"retrypg database/sql", true, openRetrypgDB},
		{"retrypg pool", true, openRetrypgPool},
	}
	// withLedger ask by a row that the transaction has written: after a crash or a failover the only way that always tells.
	withLedger = []kind{
		{"retrypg database/sql, ledger", true, byLedger(openRetrypgDB)},
		{"retrypg pool, ledger", true, byLedger(openRetrypgPool)},
	}
	// plain are what is compared with: their callers try again after pause.
	plain = []kind{
		{"pgx database/sql", false, openPgxDB},
		{"pgxpool", false, openPgxPool},
	}
)

func byLedger(open func(*testing.T, string, int) *client) func(*testing.T, string, int) *client {
	return func(t *testing.T, dsn string, connections int) *client {
		t.Helper()
		return open(t, dsn+"&retry_commit_check=ledger", connections)
	}
}

func openRetrypgDB(t *testing.T, dsn string, connections int) *client {
	t.Helper()
	db, err := retrypg.OpenDB(dsn)
	require.NoError(t, err)
	return newDBClient(t, db, connections, func(ctx context.Context, id string) error {
		return audit.ExecTx(ctx, db, retrypg.TxOptions{}, audit.Insert, id)
	})
}

func openPgxDB(t *testing.T, dsn string, connections int) *client {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	return newDBClient(t, db, connections, func(ctx context.Context, id string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, audit.Insert, id); err != nil {
			_ = tx.Rollback() // the error of the statement says why
			return err
		}
		return tx.Commit()
	})
}

func newDBClient(t *testing.T, db *sql.DB, connections int, write func(context.Context, string) error) *client {
	t.Helper()
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return &client{write: write, hold: func(ctx context.Context) (func(bool), error) {
		conn, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		return func(broken bool) {
			if broken {
				_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // what it returns says that it was told so
			}
			if err := conn.Close(); !errors.Is(err, sql.ErrConnDone) {
				require.NoError(t, err)
			}
		}, nil
	}}
}

func openRetrypgPool(t *testing.T, dsn string, connections int) *client {
	t.Helper()
	pool, err := retrypg.NewPool(t.Context(), fmt.Sprintf("%s&pool_max_conns=%d", dsn, connections))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return &client{hold: holder(pool), write: func(ctx context.Context, id string) error {
		return audit.ExecPgxTx(ctx, pool, retrypg.TxOptions{}, audit.Insert, id)
	}}
}

func openPgxPool(t *testing.T, dsn string, connections int) *client {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), fmt.Sprintf("%s&pool_max_conns=%d", dsn, connections))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return &client{hold: holder(pool), write: func(ctx context.Context, id string) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, audit.Insert, id)
			return err
		})
	}}
}

func holder(pool interface {
	Acquire(ctx context.Context) (*pgxpool.Conn, error)
},
) func(ctx context.Context) (func(bool), error) {
	return func(ctx context.Context) (func(bool), error) {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		return func(broken bool) {
			if broken {
				_ = conn.Conn().Close(ctx) // its server is gone
			}
			conn.Release()
		}, nil
	}
}

// fill opens n connections, and leaves them in the pool.
func (c *client) fill(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	for _, release := range c.holdAll(ctx, t, n) {
		release(false)
	}
}

func (c *client) holdAll(ctx context.Context, t *testing.T, n int) []func(broken bool) {
	t.Helper()
	var held []func(bool)
	for range n {
		release, err := c.hold(ctx)
		require.NoError(t, err)
		held = append(held, release)
	}
	return held
}
