package tx_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// backend returns the process id of the backend that w works on.
func backend(t *testing.T, ctx context.Context, w work) string {
	t.Helper()
	pid, err := w.value(ctx, "select pg_backend_pid()::text")
	require.NoError(t, err)
	return pid
}

func TestContextThatEndsInTheClosureRollsBack(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1)
		cause := errors.New("the user went away")
		for name, result := range map[string]error{"nil": nil, "cause": cause} {
			ctx, cancel := context.WithCancelCause(s.context())
			var pid string
			err := db.withTx(ctx, retrypg.TxOptions{}, func(ctx context.Context, w work) error {
				pid = backend(t, ctx, w)
				require.NoError(t, insert(ctx, w, name))
				cancel(cause)
				return result
			})
			require.ErrorIs(t, err, cause)
			if result == nil {
				require.ErrorIs(t, err, context.Canceled)
			}
			require.NotErrorIs(t, err, retrypg.ErrCommitUnknown)
			s.quiet()
			require.Zero(t, s.notes(name))
			if !s.status {
				// database/sql over another driver rolls back with the context that has ended, which closes the connection.
				if s.pinned {
					return
				}
				continue
			}
			require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
				require.Equal(t, pid, backend(t, ctx, w), "the connection can be used again")
				return nil
			}))
		}
		s.usable(db, "b")
	})
}

func TestDeadlineInAStatementRollsBack(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1)
		ctx, cancel := context.WithTimeout(s.context(), 100*time.Millisecond)
		defer cancel()
		runs := 0
		err := db.withTx(ctx, retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			if err := insert(ctx, w, "a"); err != nil {
				return err
			}
			return w.exec(ctx, "select pg_sleep(600)")
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, retrypg.ErrCommitUnknown)
		require.LessOrEqual(t, runs, 1)
		s.quiet() // pgx has the statement cancelled
		require.Zero(t, s.notes("a"))
		if !s.pinned {
			s.usable(db, "b")
		}
	})
}

// TestContextThatTheClosureNarrowsEndsTheTransactionWithItsError: the closure's own deadline passes, that of WithTx does not.
func TestContextThatTheClosureNarrowsEndsTheTransactionWithItsError(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1)
		runs := 0
		err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			require.NoError(t, insert(ctx, w, "a"))
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			return w.exec(ctx, "select pg_sleep(600)")
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, runs)
		s.quiet()
		require.Zero(t, s.notes("a"))
		if !s.pinned {
			s.usable(db, "b")
		}
	})
}

// TestWaitForAConnectionEndsWithTheContext: the only connection is busy, with the very transaction that waits.
func TestWaitForAConnectionEndsWithTheContext(t *testing.T) {
	some(t, pooled, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1)
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(context.Context, work) error {
			// Not the closure's context: this is a transaction of its own.
			ctx, cancel := context.WithTimeout(s.context(), 50*time.Millisecond)
			defer cancel()
			err := db.withTx(ctx, retrypg.TxOptions{}, func(context.Context, work) error { panic("the closure ran") })
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, retrypg.ErrCommitUnknown)
			return nil
		}))
		s.usable(db, "b")
	})
}
