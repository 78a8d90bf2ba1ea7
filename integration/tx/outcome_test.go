package tx_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/policy"
)

func TestNilMeansCommittedOnce(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		runs := 0
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			require.Equal(t, 1, retrypg.AttemptFromContext(ctx))
			return insert(ctx, w, "a")
		}))
		require.Equal(t, 1, runs)
		require.Equal(t, 1, s.notes("a"))
		s.quiet()
	})
}

func TestResultIsThatOfTheAttemptThatCommitted(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		v, err := db.withTxResult(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) (string, error) {
			if retrypg.AttemptFromContext(ctx) == 1 {
				return "first", w.exec(ctx, conflict)
			}
			return w.value(ctx, "select 'second'")
		})
		require.NoError(t, err)
		require.Equal(t, "second", v)
	})
}

func TestResultWithAnErrorIsZero(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		own := errors.New("own")
		v, err := db.withTxResult(s.context(), retrypg.TxOptions{}, func(context.Context, work) (string, error) {
			return "something", own
		})
		require.Same(t, own, err)
		require.Empty(t, v)

		v, err = db.withTxResult(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) (string, error) {
			return "something", w.exec(ctx, "insert into note values ('x', 99)") // refused at COMMIT
		})
		require.Equal(t, "23503", retrypg.SQLState(err))
		require.Empty(t, v)
	})
}

func TestClosuresOwnErrorRollsBackAndComesBackAsTheSameValue(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		own, runs := &ownError{}, 0
		err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			require.NoError(t, insert(ctx, w, "a"))
			return own
		})
		require.Same(t, own, err)
		require.Equal(t, 1, runs)
		require.Zero(t, s.notes("a"))
		s.quiet()
		s.usable(db, "b")
	})
}

type ownError struct{}

func (*ownError) Error() string { return "own" }

func TestErrorOfAStatementThatCannotHealComesBackUnwrappedAfterOneRun(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		runs := 0
		var seen error
		err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			require.NoError(t, insert(ctx, w, "a"))
			seen = insert(ctx, w, "a")
			return seen
		})
		require.Same(t, seen, err)
		require.IsType(t, (*pgconn.PgError)(nil), err)
		require.Equal(t, "23505", retrypg.SQLState(err))
		require.Equal(t, 1, runs)
		require.Zero(t, s.notes("a"))
		s.usable(db, "a")
	})
}

func TestDeferredConstraintAtCommitIsReturnedOnce(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		runs := 0
		err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			return w.exec(ctx, "insert into note values ('orphan', 99)")
		})
		require.IsType(t, (*pgconn.PgError)(nil), err, "the error of COMMIT itself")
		require.Equal(t, "23503", retrypg.SQLState(err))
		require.Equal(t, 1, runs)
		require.Zero(t, s.notes("orphan"))
		s.usable(db, "b")
	})
}

func TestNilAfterAFailedStatementIsAnErrorThatSaysSo(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		runs := 0
		err := db.withTx(s.context(), retrypg.TxOptions{MaxAttempts: 2}, func(ctx context.Context, w work) error {
			runs++
			require.NoError(t, insert(ctx, w, "a"))
			require.Error(t, insert(ctx, w, "a"))
			return nil
		})
		require.ErrorContains(t, err, "return the statement's error")
		require.ErrorIs(t, err, pgx.ErrTxCommitRollback)
		require.NotErrorIs(t, err, retrypg.ErrCommitUnknown)
		require.Zero(t, s.notes("a"))
		if s.cause {
			require.Equal(t, "23505", retrypg.SQLState(err))
			require.Equal(t, 1, runs)
		} else {
			require.Equal(t, 2, runs, "the failed statement may have been a conflict")
		}
	})
}

func TestSwallowedConflictIsRunAgain(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		attempts := 0
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			attempts = retrypg.AttemptFromContext(ctx)
			if attempts == 1 {
				require.Error(t, w.exec(ctx, conflict))
				return nil
			}
			return insert(ctx, w, "a")
		}))
		require.Equal(t, 2, attempts)
		require.Equal(t, 1, s.notes("a"))
	})
}

func TestConflictHiddenByALaterStatementsErrorIsRunAgain(t *testing.T) {
	some(t, func(a adapter) bool { return a.cause }, func(t *testing.T, s *stage) {
		db := s.open()
		attempts := 0
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			attempts = retrypg.AttemptFromContext(ctx)
			if attempts == 1 {
				require.Error(t, w.exec(ctx, conflict))
			}
			return insert(ctx, w, "a") // 25P02 in the first attempt
		}))
		require.Equal(t, 2, attempts)
	})
}

func TestErrorOfAnotherServiceIsNotRunAgain(t *testing.T) {
	some(t, func(a adapter) bool { return a.status }, func(t *testing.T, s *stage) {
		db := s.open()
		own := errors.Join(errors.New("ask another service"), context.DeadlineExceeded, pgconn.ErrConnClosed)
		var runs atomic.Int32
		err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs.Add(1)
			if err := insert(ctx, w, "a"); err != nil {
				return err
			}
			return own
		})
		require.Equal(t, own, err)
		require.EqualValues(t, 1, runs.Load())
	})
}

// TestConflictReplacedByTheClosuresOwnErrorIsNotRunAgain: a closure must return the errors of its statements.
func TestConflictReplacedByTheClosuresOwnErrorIsNotRunAgain(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db, own := s.open(), errors.New("own")
		require.Same(t, own, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			require.NoError(t, insert(ctx, w, "a"))
			require.Error(t, w.exec(ctx, conflict))
			return own
		}))
		require.Zero(t, s.notes("a"))
		s.usable(db, "b")
	})
}

func TestWrappedConflictIsRunAgain(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			if retrypg.AttemptFromContext(ctx) == 1 {
				return fmt.Errorf("write: %w", errors.Join(errors.New("own"), w.exec(ctx, conflict)))
			}
			return insert(ctx, w, "a")
		}))
		require.Equal(t, 1, s.notes("a"))
	})
}

// TestLaterAttemptThatCannotHealTellsOfAllAttempts: the first fails by a conflict, the second by its own error.
func TestLaterAttemptThatCannotHealTellsOfAllAttempts(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db, own := s.open(), &ownError{}
		err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			if retrypg.AttemptFromContext(ctx) == 1 {
				return w.exec(ctx, conflict)
			}
			return own
		})
		var e *retrypg.ExhaustedError
		require.ErrorAs(t, err, &e)
		require.Equal(t, policy.StopNotRetryable, e.Reason)
		require.Equal(t, 2, e.Attempts)
		require.Same(t, own, e.Last)
		require.ErrorIs(t, err, own)
		require.Equal(t, "40001", retrypg.SQLState(e.History[0]))
		require.Empty(t, retrypg.SQLState(err), "the first attempt must not speak for the last")
	})
}

func TestEachAttemptHasAFreshTransaction(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		xids := map[string]bool{}
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			if err := insert(ctx, w, "a"); err != nil {
				return err // what an earlier attempt wrote would be in the way
			}
			xid, err := w.value(ctx, "select pg_current_xact_id()::text")
			require.NoError(t, err)
			xids[xid] = true
			if retrypg.AttemptFromContext(ctx) < 3 {
				return w.exec(ctx, conflict)
			}
			return nil
		}))
		require.Len(t, xids, 3)
		require.Equal(t, 1, s.notes("a"))
	})
}
