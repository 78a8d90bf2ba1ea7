package tx_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/policy"
)

// escapes are the ways in which a conflict in the inner of three nested closures is swallowed.
var escapes = map[string]struct{ innerHides, middleHides, outerHides bool }{
	"by none":          {},
	"by the inner":     {innerHides: true},
	"by the middle":    {middleHides: true},
	"by the outer":     {outerHides: true},
	"by all":           {innerHides: true, middleHides: true, outerHides: true},
	"by inner, middle": {innerHides: true, middleHides: true},
}

func hide(err error, hidden bool) error {
	if hidden {
		return nil
	}
	return err
}

func TestConflictInANestedCallEscapesToTheOutermostHoweverItIsSwallowed(t *testing.T) {
	for name, how := range escapes {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *stage) {
				db := s.open()
				var outer, middle, inner int
				require.NoError(t, db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
					outer++
					require.Equal(t, outer, retrypg.AttemptFromContext(ctx))
					if err := insert(ctx, w, "outer"); err != nil {
						return err
					}
					err := db.withTx(ctx, zero, func(ctx context.Context, _ work) error {
						middle++
						err := db.withTx(ctx, zero, func(ctx context.Context, w work) error {
							inner++
							require.Equal(t, outer, retrypg.AttemptFromContext(ctx))
							if retrypg.AttemptFromContext(ctx) < 3 {
								return hide(w.exec(ctx, conflict), how.innerHides)
							}
							return insert(ctx, w, "inner")
						})
						return hide(err, how.middleHides)
					})
					return hide(err, how.outerHides)
				}))
				require.Equal(t, []int{3, 3, 3}, []int{outer, middle, inner}, "only the outermost runs again")
				require.Equal(t, 1, s.notes("outer"))
				require.Equal(t, 1, s.notes("inner"))
			})
		})
	}
}

func TestConflictOfANestedCallIsInTheErrorOfTheOutermost(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		runs := 0
		err := db.withTx(s.context(), retrypg.TxOptions{MaxAttempts: 3}, func(ctx context.Context, _ work) error {
			_ = db.withTx(ctx, zero, numbered(&runs))
			return nil
		})
		exhausted(t, err, policy.StopMaxAttempts, 3)
		require.Equal(t, 3, runs)
	})
}

// TestNothingRunsInATransactionThatIsLost: after a conflict has escaped, further nested calls return it.
func TestNothingRunsInATransactionThatIsLost(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		require.NoError(t, db.withTx(s.context(), zero, func(ctx context.Context, _ work) error {
			if retrypg.AttemptFromContext(ctx) > 1 {
				return nil
			}
			first := db.withTx(ctx, zero, func(ctx context.Context, w work) error { return w.exec(ctx, conflict) })
			require.Equal(t, "40001", retrypg.SQLState(first))
			again := db.withTx(ctx, zero, func(context.Context, work) error { panic("the closure ran") })
			require.Equal(t, "40001", retrypg.SQLState(again))
			return errors.New("in place of the conflict")
		}))
	})
}

// TestConflictBeforeANestedCallIsRunAgain: the outer closure ignores a conflict of its own and calls WithTx.
func TestConflictBeforeANestedCallIsRunAgain(t *testing.T) {
	some(t, func(a adapter) bool { return a.cause }, func(t *testing.T, s *stage) {
		db := s.open()
		require.NoError(t, db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			if retrypg.AttemptFromContext(ctx) == 1 {
				require.Error(t, w.exec(ctx, conflict))
			}
			return db.withTx(ctx, zero, write("a"))
		}))
		require.Equal(t, 1, s.notes("a"))
	})
}

func TestNilAfterAFailedStatementInANestedCallIsItsError(t *testing.T) {
	some(t, func(a adapter) bool { return a.cause }, func(t *testing.T, s *stage) {
		db := s.open()
		runs := 0
		require.NoError(t, db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			runs++
			require.NoError(t, insert(ctx, w, "outer"))
			err := db.withTx(ctx, zero, func(ctx context.Context, w work) error {
				require.NoError(t, insert(ctx, w, "inner"))
				require.Error(t, insert(ctx, w, "outer"))
				return nil
			})
			require.ErrorContains(t, err, "return the statement's error")
			require.Equal(t, "23505", retrypg.SQLState(err))
			return nil
		}))
		require.Equal(t, 1, runs)
		require.Equal(t, 1, s.notes("outer"))
		require.Zero(t, s.notes("inner"))
	})
}

// TestConnectionLostInANestedCallEscapes: there is no savepoint to roll back to.
func TestConnectionLostInANestedCallEscapes(t *testing.T) {
	some(t, pooled, func(t *testing.T, s *stage) {
		db := s.open()
		attempts := 0
		require.NoError(t, db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			attempts = retrypg.AttemptFromContext(ctx)
			if err := insert(ctx, w, "outer"); err != nil {
				return err
			}
			_ = db.withTx(ctx, zero, func(ctx context.Context, w work) error {
				if attempts == 1 {
					s.terminate()
				}
				return insert(ctx, w, "inner")
			})
			return nil
		}))
		require.Equal(t, 2, attempts)
		require.Equal(t, 1, s.notes("outer"))
		require.Equal(t, 1, s.notes("inner"))
	})
}

// TestContextOfANestedCallThatEndsTakesTheTransactionWithIt: pgx closes a connection whose statement was cut short.
func TestContextOfANestedCallThatEndsTakesTheTransactionWithIt(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		err := db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			require.NoError(t, insert(ctx, w, "outer"))
			ctx, cancel := context.WithCancel(ctx)
			_ = db.withTx(ctx, zero, func(ctx context.Context, w work) error {
				cancel()
				return insert(ctx, w, "inner")
			})
			return nil
		})
		require.Zero(t, s.notes("inner"))
		if err == nil {
			require.Equal(t, 1, s.notes("outer"))
		} else {
			require.ErrorIs(t, err, context.Canceled)
			require.Zero(t, s.notes("outer"))
		}
	})
}

// TestContextThatEndsInANestedClosureIsTheError: database/sql rolls back by itself then, which nobody must take for the
// closure's doing.
func TestContextThatEndsInANestedClosureIsTheError(t *testing.T) {
	own := errors.New("own")
	for name, result := range map[string]error{"nil": nil, "own": own} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *stage) {
				db := s.open()
				cause := errors.New("the user went away")
				ctx, cancel := context.WithCancelCause(s.context())
				err := db.withTx(ctx, zero, func(ctx context.Context, w work) error {
					require.NoError(t, insert(ctx, w, "outer"))
					return db.withTx(ctx, zero, func(ctx context.Context, w work) error {
						require.NoError(t, insert(ctx, w, "inner"))
						cancel(cause)
						if _, ok := w.(sqlWork); ok {
							s.quiet()
						}
						return result
					})
				})
				if result == nil {
					require.ErrorIs(t, err, context.Canceled)
				} else {
					require.ErrorIs(t, err, result)
				}
				require.NotErrorIs(t, err, retrypg.ErrTxEnded)
				require.NotErrorIs(t, err, retrypg.ErrCommitUnknown)
				s.quiet()
				require.Zero(t, s.notes("outer")+s.notes("inner"))
			})
		})
	}
}
