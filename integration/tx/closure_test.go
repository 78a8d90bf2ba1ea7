package tx_test

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

func TestClosureThatCommitsItselfIsAnErrorAndIsNotRunAgain(t *testing.T) {
	own := errors.New("own")
	for name, result := range map[string]error{
		"nil":              nil,
		"an error":         own,
		"a conflict":       &pgconn.PgError{Severity: "ERROR", Code: "40001", Routine: "x"},
		"a lost server":    pgconn.ErrConnClosed,
		"a context's end":  context.DeadlineExceeded,
		"an unknown state": &retrypg.CommitUnknownError{Err: own},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *stage) {
				db := s.open()
				runs := 0
				err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
					runs++
					require.NoError(t, insert(ctx, w, "a"))
					require.NoError(t, w.commit(ctx))
					return result
				})
				require.ErrorIs(t, err, retrypg.ErrTxEnded)
				if result != nil {
					require.ErrorIs(t, err, result)
				}
				require.NotErrorAs(t, err, new(*retrypg.ExhaustedError))
				require.Equal(t, 1, runs)
				require.Equal(t, 1, s.notes("a"))
				s.usable(db, "b")
			})
		})
	}
}

func TestClosureThatRollsBackAndReturnsNilIsAnError(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		runs := 0
		err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			require.NoError(t, insert(ctx, w, "a"))
			return w.rollback(ctx)
		})
		require.ErrorIs(t, err, retrypg.ErrTxEnded)
		require.Equal(t, 1, runs)
		require.Zero(t, s.notes("a"))
		s.usable(db, "b")
	})
}

// TestDeferredRollbackKeepsTheClosuresError: "defer tx.Rollback()" is a habit of many; together with an error it does
// what was meant.
func TestDeferredRollbackKeepsTheClosuresError(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		own := errors.New("own")
		err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			defer func() { require.NoError(t, w.rollback(ctx)) }()
			require.NoError(t, insert(ctx, w, "a"))
			return own
		})
		if s.status {
			require.Same(t, own, err)
		} else {
			require.ErrorIs(t, err, own)
			require.ErrorIs(t, err, retrypg.ErrTxEnded, "another driver does not tell how its transaction was ended")
		}
		require.Zero(t, s.notes("a"))
		s.usable(db, "b")
	})
}

func TestCommitOrRollbackAsTextIsAnError(t *testing.T) {
	for _, text := range []string{"commit", "rollback", "end", "commit and no chain"} {
		t.Run(text, func(t *testing.T) {
			some(t, func(a adapter) bool { return a.status }, func(t *testing.T, s *stage) {
				db := s.open()
				for name, result := range map[string]error{"nil": nil, "error": errors.New("own")} {
					runs := 0
					err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
						runs++
						require.NoError(t, insert(ctx, w, name))
						require.NoError(t, w.exec(ctx, text))
						return result
					})
					require.ErrorIs(t, err, retrypg.ErrTxEnded)
					if result != nil {
						require.ErrorIs(t, err, result)
					}
					require.Equal(t, 1, runs)
					want := 1
					if text == "rollback" {
						want = 0
					}
					require.Equal(t, want, s.notes(name))
				}
				s.usable(db, "b")
			})
		})
	}
}

func TestPanicRollsBackAndGoesOn(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1)
		value, runs := &ownError{}, 0
		require.PanicsWithValue(t, value, func() {
			_ = db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
				runs++
				require.NoError(t, insert(ctx, w, "a"))
				panic(value)
			})
		})
		require.Equal(t, 1, runs)
		s.quiet()
		require.Zero(t, s.notes("a"))
		s.usable(db, "b")
	})
}

func TestPanicInAnAbortedTransactionRollsBackAndGoesOn(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1)
		require.PanicsWithValue(t, "boom", func() {
			_ = db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
				require.Error(t, w.exec(ctx, conflict))
				panic("boom")
			})
		})
		s.quiet()
		s.usable(db, "b")
	})
}

func TestGoexitRollsBackAndGivesTheConnectionBack(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1)
		ctx, ended := s.context(), make(chan bool)
		go func() {
			returned := false
			defer func() { ended <- returned }()
			_ = db.withTx(ctx, retrypg.TxOptions{}, func(ctx context.Context, w work) error {
				if err := insert(ctx, w, "a"); err != nil {
					return err
				}
				runtime.Goexit()
				return nil
			})
			returned = true
		}()
		require.False(t, <-ended, "withTx returned")
		s.quiet()
		require.Zero(t, s.notes("a"))
		s.usable(db, "b")
	})
}

// TestAnotherDriverHidesARollbackSentAsText shows the limit that the documentation of WithTx names: the server answers
// the COMMIT that follows with a warning only, and a driver that is not ours does not show it.
func TestAnotherDriverHidesARollbackSentAsText(t *testing.T) {
	some(t, func(a adapter) bool { return !a.status }, func(t *testing.T, s *stage) {
		db := s.open()
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			require.NoError(t, insert(ctx, w, "a"))
			return w.exec(ctx, "rollback")
		}))
		require.Zero(t, s.notes("a"))
		s.usable(db, "b")
	})
}
