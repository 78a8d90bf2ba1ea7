package driver_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// TestStatementThatIsTerminatedIsSentAgainOnlyWhereItCertainlyDidNothing: with arguments and for rows pgx does not tell whether
// the server had said that it was done.
func TestStatementThatIsTerminatedIsSentAgainOnlyWhereItCertainlyDidNothing(t *testing.T) {
	server := newServer(t)
	const sleep = "select pg_sleep(300)"
	for name, call := range map[string]func(context.Context, *sql.DB) error{
		"Exec with an argument": func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "select pg_sleep($1)", 300)
			return err
		},
		"Query": func(ctx context.Context, db *sql.DB) error { return readAll(db.QueryContext(ctx, sleep)) },
		"QueryRow": func(ctx context.Context, db *sql.DB) error {
			var v any
			return db.QueryRowContext(ctx, sleep).Scan(&v)
		},
		"in a transaction": func(ctx context.Context, db *sql.DB) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback() }()
			_, err = tx.ExecContext(ctx, sleep)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			db := s.open(ours)
			done := make(chan error, 1)
			go func() { done <- call(s.t.Context(), db) }()
			s.wait("exists (select from pg_stat_activity where " + s.mine() + " and wait_event = 'PgSleep')")
			s.terminate()
			err := <-done
			requireBare(t, "57P01", err)
			require.NotErrorIs(t, err, driver.ErrBadConn)
			require.Equal(t, 1, s.proxy.Stats().Seen("select pg_sleep"), "times sent")
			s.warm(db)
		})
	}
	t.Run("Exec", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		db := s.open(ours)
		_, err := db.ExecContext(s.t.Context(), "select pg_terminate_backend(pg_backend_pid())")
		requireBare(t, "57P01", err)
		require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
		require.Equal(t, retrypg.DefaultMaxAttempts, s.proxy.Stats().Seen("select pg_terminate_backend"), "times sent")
		s.warm(db)
	})
}

// On a pinned connection and in a transaction there is no other connection to turn to.
func TestLostConnectionThatIsPinnedReturnsTheReason(t *testing.T) {
	server := newServer(t)
	reasons := map[string]func(t *testing.T, err error){
		"terminated": func(t *testing.T, err error) { requireBare(t, "57P01", err) },
		"closed":     func(t *testing.T, err error) { require.ErrorContains(t, err, "EOF") },
		"reset":      func(t *testing.T, err error) { require.ErrorContains(t, err, "connection reset by peer") },
	}
	type execer interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	}
	for end, kill := range ends {
		for _, holder := range []string{"Conn", "Tx"} {
			for name, args := range map[string][]any{"simple": nil, "extended": {pgx.QueryExecModeExec, 1}} {
				t.Run(end+"/"+holder+"/"+name, func(t *testing.T) {
					t.Parallel()
					s := newScene(t, server)
					db := s.open(ours)
					var on execer = s.pinned(db)
					if holder == "Tx" {
						tx, err := db.BeginTx(s.context(), nil)
						require.NoError(t, err)
						defer func() { _ = tx.Rollback() }()
						_, err = tx.ExecContext(s.context(), "set local work_mem = '1MB'") // BEGIN may wait for the first statement
						require.NoError(t, err)
						on = tx
					}
					kill(s)
					query := insertRow
					if args != nil {
						query = insertRowArgs
					}
					_, err := on.ExecContext(s.context(), query, args...)
					require.Error(t, err)
					require.NotErrorIs(t, err, driver.ErrBadConn)
					require.NotContains(t, err.Error(), "bad connection")
					reasons[end](t, err)
					require.Zero(t, s.rows())
				})
			}
		}
	}
}
