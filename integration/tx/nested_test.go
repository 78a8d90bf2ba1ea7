package tx_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// zero are the options of a nested call.
var zero = retrypg.TxOptions{}

func TestNestedCallCommitsWithTheOuterOne(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1) // a second connection would not be there
		require.NoError(t, db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			if err := insert(ctx, w, "outer"); err != nil {
				return err
			}
			err := db.withTx(ctx, zero, func(ctx context.Context, w work) error {
				require.Equal(t, 1, retrypg.AttemptFromContext(ctx))
				n, err := w.value(ctx, "select count(*)::text from note")
				require.NoError(t, err)
				require.Equal(t, "1", n, "it sees what the outer one wrote")
				return insert(ctx, w, "inner")
			})
			require.Zero(t, s.notes("inner"), "it must not have committed")
			return err
		}))
		require.Equal(t, 1, s.notes("outer"))
		require.Equal(t, 1, s.notes("inner"))
	})
}

func TestErrorOfTheOuterCallTakesTheNestedOneWithIt(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db, own := s.open(), errors.New("own")
		err := db.withTx(s.context(), zero, func(ctx context.Context, _ work) error {
			require.NoError(t, db.withTx(ctx, zero, write("inner")))
			return own
		})
		require.Same(t, own, err)
		require.Zero(t, s.notes("inner"))
	})
}

// TestErrorOfANestedCallRollsBackItsPartOnly covers an error of its own, one of the server that aborts the transaction,
// and one after which the outer closure goes on in various depths.
func TestErrorOfANestedCallRollsBackItsPartOnly(t *testing.T) {
	own := errors.New("own")
	for name, fail := range map[string]closure{
		"own":        func(context.Context, work) error { return own },
		"constraint": func(ctx context.Context, w work) error { return insert(ctx, w, "outer") },
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *stage) {
				db := s.open()
				runs := 0
				require.NoError(t, db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
					runs++
					require.NoError(t, insert(ctx, w, "outer"))
					require.NoError(t, db.withTx(ctx, zero, write("brother")))
					var seen error
					err := db.withTx(ctx, zero, func(ctx context.Context, w work) error {
						require.NoError(t, insert(ctx, w, "inner"))
						require.NoError(t, db.withTx(ctx, zero, write("nephew")))
						seen = fail(ctx, w)
						return seen
					})
					require.Same(t, seen, err)
					require.NoError(t, db.withTx(ctx, zero, write("sister")))
					return insert(ctx, w, "last")
				}))
				require.Equal(t, 1, runs)
				require.Equal(t, "brother last outer sister", s.ask("select string_agg(id, ' ' order by id) from note"))
			})
		})
	}
}

func TestThreeLevelsRollBackOneByOne(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db, own := s.open(), errors.New("own")
		require.NoError(t, db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			require.NoError(t, insert(ctx, w, "1"))
			require.NoError(t, db.withTx(ctx, zero, func(ctx context.Context, w work) error {
				require.NoError(t, insert(ctx, w, "2"))
				require.Same(t, own, db.withTx(ctx, zero, func(ctx context.Context, w work) error {
					require.NoError(t, insert(ctx, w, "3"))
					return own
				}))
				return insert(ctx, w, "2 again")
			}))
			require.Same(t, own, db.withTx(ctx, zero, func(ctx context.Context, w work) error {
				require.NoError(t, db.withTx(ctx, zero, write("4")))
				return own
			}))
			return nil
		}))
		require.Equal(t, "1,2,2 again", s.ask("select string_agg(id, ',' order by id) from note"))
	})
}

func TestNestedResultIsThatOfTheClosure(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db, own := s.open(), errors.New("own")
		v, err := db.withTxResult(s.context(), zero, func(ctx context.Context, _ work) (string, error) {
			none, err := db.withTxResult(ctx, zero, func(context.Context, work) (string, error) { return "x", own })
			require.Same(t, own, err)
			require.Empty(t, none)
			return db.withTxResult(ctx, zero, func(ctx context.Context, w work) (string, error) {
				return w.value(ctx, "select 'inner'")
			})
		})
		require.NoError(t, err)
		require.Equal(t, "inner", v)
	})
}

func TestNestedOptionsAreRefusedAndTheOuterCallGoesOn(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		require.NoError(t, db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			for _, opts := range []retrypg.TxOptions{
				{Isolation: sql.LevelSerializable}, {ReadOnly: true}, {Deferrable: true},
			} {
				err := db.withTx(ctx, opts, func(context.Context, work) error { panic("the closure ran") })
				require.ErrorIs(t, err, retrypg.ErrNestedOptions)
			}
			return insert(ctx, w, "a")
		}))
		require.Equal(t, 1, s.notes("a"))
	})
}

func TestNestedCallOnAnotherDatabaseIsATransactionOfItsOwn(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db, other, own := s.open(), s.open(), errors.New("own")
		runs := 0
		err := db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			require.NoError(t, insert(ctx, w, "outer"))
			opts := retrypg.TxOptions{Isolation: sql.LevelSerializable}
			require.NoError(t, other.withTx(ctx, opts, func(ctx context.Context, w work) error {
				runs++
				if retrypg.AttemptFromContext(ctx) == 1 {
					return w.exec(ctx, conflict)
				}
				// Back in the first database, by the context that has come through the second.
				require.NoError(t, db.withTx(ctx, zero, write("around")))
				return insert(ctx, w, "other")
			}))
			require.Equal(t, 1, s.notes("other"), "it has committed")
			require.Equal(t, 1, retrypg.AttemptFromContext(ctx))
			return own
		})
		require.Same(t, own, err)
		require.Equal(t, 2, runs, "it is run again by itself")
		require.Equal(t, "other", s.ask("select string_agg(id, ' ') from note"))
	})
}

func TestCallWithoutTheClosuresContextIsATransactionOfItsOwn(t *testing.T) {
	some(t, pooled, func(t *testing.T, s *stage) {
		db, own := s.open(), errors.New("own")
		require.Same(t, own, db.withTx(s.context(), zero, func(context.Context, work) error {
			require.NoError(t, db.withTx(s.context(), zero, write("a")))
			return own
		}))
		require.Equal(t, 1, s.notes("a"))
	})
}

func TestNestedClosureThatEndsTheTransactionIsAnError(t *testing.T) {
	ends := map[string]func(context.Context, work) error{
		"commit":   func(ctx context.Context, w work) error { return w.commit(ctx) },
		"rollback": func(ctx context.Context, w work) error { return w.rollback(ctx) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *stage) {
				db := s.open()
				runs := 0
				err := db.withTx(s.context(), zero, func(ctx context.Context, _ work) error {
					runs++
					return db.withTx(ctx, zero, func(ctx context.Context, w work) error {
						if err := insert(ctx, w, "a"); err != nil {
							return err
						}
						return end(ctx, w)
					})
				})
				require.ErrorIs(t, err, retrypg.ErrTxEnded)
				require.Equal(t, 1, runs)
				require.Equal(t, name == "commit", s.notes("a") == 1)
				s.usable(db, "b")
			})
		})
	}
}

// TestPanicOfANestedClosureThatTheOuterOneRecoversTakesItsPartWithIt: as an error would.
func TestPanicOfANestedClosureThatTheOuterOneRecoversTakesItsPartWithIt(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		err := db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			require.NoError(t, insert(ctx, w, "outer"))
			require.PanicsWithValue(t, "boom", func() {
				_ = db.withTx(ctx, zero, func(ctx context.Context, w work) error {
					require.NoError(t, insert(ctx, w, "inner"))
					panic("boom")
				})
			})
			return nil
		})
		require.Zero(t, s.notes("inner"))
		if err == nil {
			require.Equal(t, 1, s.notes("outer"))
		}
	})
}
