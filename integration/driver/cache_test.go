package driver_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"
)

// behinds change what a cached statement rests on, behind its back. Each is run on the connection that has it cached.
var behinds = map[string]string{
	"ALTER TABLE":    "alter table t alter n type bigint",
	"DEALLOCATE ALL": "deallocate all",
	"DISCARD ALL":    "discard all",
}

// reads are ways to run a statement with an argument whose description or plan pgx keeps.
var reads = map[string]func(ctx context.Context, db *sql.DB) (func() error, error){
	"Query": func(ctx context.Context, db *sql.DB) (func() error, error) {
		return func() error { return readAll(db.QueryContext(ctx, "select * from t where n >= $1", 1)) }, nil
	},
	"QueryRow": func(ctx context.Context, db *sql.DB) (func() error, error) {
		return func() error {
			var n int
			return db.QueryRowContext(ctx, "select * from t where n >= $1", 1).Scan(&n)
		}, nil
	},
	"Exec": func(ctx context.Context, db *sql.DB) (func() error, error) {
		return func() error {
			_, err := db.ExecContext(ctx, "select * from t where n >= $1", 1)
			return err
		}, nil
	},
	"prepared Query": func(ctx context.Context, db *sql.DB) (func() error, error) {
		stmt, err := db.PrepareContext(ctx, "select * from t where n >= $1")
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = stmt.Close() })
		return func() error { return readAll(stmt.QueryContext(ctx, 1)) }, nil
	},
	"prepared Exec": func(ctx context.Context, db *sql.DB) (func() error, error) {
		stmt, err := db.PrepareContext(ctx, "select * from t where n >= $1")
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = stmt.Close() })
		return func() error {
			_, err := stmt.ExecContext(ctx, 1)
			return err
		}, nil
	},
}

func TestStaleCachedStatementIsHealedInTheSameCall(t *testing.T) {
	server := newServer(t)
	for _, mode := range execModes {
		for behind, change := range behinds {
			for name, prepare := range reads {
				t.Run(mode+"/"+behind+"/"+name, func(t *testing.T) {
					t.Parallel()
					s := newScene(t, server)
					s.run("insert into t values (1)")
					db := s.open(ours, "default_query_exec_mode="+mode)
					db.SetMaxOpenConns(1) // the connection that has it cached
					read, err := prepare(s.context(), db)
					require.NoError(t, err)
					require.NoError(t, read())
					for range 2 {
						_, err := db.ExecContext(s.context(), change)
						require.NoError(t, err)
						require.NoError(t, read())
					}
				})
			}
		}
	}
}

func TestStaleCachedStatementInATransactionIsTheCallersError(t *testing.T) {
	server := newServer(t)
	for change, code := range map[string]string{"alter table t alter n type bigint": "0A000", "deallocate all": "26000"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			var b backoffs
			db := s.openWith(s.dsn(), b.option())
			db.SetMaxOpenConns(1)
			const query = "select * from t where n >= $1"
			require.NoError(t, readAll(db.QueryContext(s.context(), query, 1)))
			tx, err := db.BeginTx(s.context(), nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(s.context(), change)
			require.NoError(t, err)
			requireBare(t, code, readAll(tx.QueryContext(s.context(), query, 1)))
			require.NoError(t, tx.Rollback())
			require.Empty(t, b.all())
			require.NoError(t, readAll(db.QueryContext(s.context(), query, 1)))
		})
	}
}

// The statement is sent again at once: there is nothing to wait for.
func TestStaleCachedStatementIsSentAgainOnce(t *testing.T) {
	s := newScene(t, newServer(t))
	var b backoffs
	db := s.openWith(s.dsn(), b.option())
	db.SetMaxOpenConns(1)
	const query = "select * from t where n >= $1"
	require.NoError(t, readAll(db.QueryContext(s.context(), query, 1)))
	_, err := db.ExecContext(s.context(), "alter table t alter n type bigint")
	require.NoError(t, err)
	require.NoError(t, readAll(db.QueryContext(s.context(), query, 1)))
	require.Equal(t, 3, s.proxy.Stats().Seen(query))
	for _, info := range b.all() {
		require.Zero(t, info.Wait)
	}
}
