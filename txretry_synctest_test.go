package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
	"github.com/retrypg/retrypg/policy"
)

// update is a closure of one statement.
func update(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, "update t set v = v")
	return err
}

// lostAt ends the connection at statements that begin with prefix, the first n times, in place of an answer.
func lostAt(prefix string, n int) func(*script.Session, string) script.Result {
	var mu sync.Mutex
	return func(_ *script.Session, sql string) script.Result {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(sql, prefix) && n > 0 {
			n--
			return script.Result{Close: true}
		}
		return script.Result{}
	}
}

func TestWithTxRunsATransactionThatConflictedAgainFromItsBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var db *sql.DB
		var hook waits
		db, s := scriptedFor(t, failing("update", 4, conflictError()), WithHooks(Hooks{Backoff: func(ctx context.Context, i BackoffInfo) {
			require.Zero(t, db.Stats().InUse, "the connection is given back before the wait")
			hook.hook(ctx, i)
		}}))
		var attempts []int
		start := time.Now()
		err := WithTx(t.Context(), db, TxOptions{Name: "transfer", Isolation: sql.LevelSerializable}, func(ctx context.Context, tx *sql.Tx) error {
			attempts = append(attempts, AttemptFromContext(ctx))
			return update(ctx, tx)
		})
		require.NoError(t, err)
		require.Equal(t, []int{1, 2, 3, 4, 5}, attempts)
		one := []string{"begin isolation level serializable", "update t set v = v", "rollback"}
		want := slices.Concat(one, one, one, one, one[:2], []string{"commit"})
		require.Equal(t, want, s.Queries())

		var total time.Duration
		ceiling := DefaultInitialDelay
		for i, w := range hook.all() {
			require.Equal(t, "transaction", w.Operation)
			require.Equal(t, "transfer", w.Name)
			require.Equal(t, i+1, w.Attempt)
			require.Equal(t, RetryTransaction, w.Class.Retry)
			require.LessOrEqual(t, w.Wait, ceiling)
			ceiling *= 2
			total += w.Wait
		}
		require.Len(t, hook.all(), 4)
		require.Equal(t, total, time.Since(start))
		require.Zero(t, AttemptFromContext(t.Context()))
	})
}

func TestWithTxEndsAfterItsAttempts(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []Option
		tx   TxOptions
		want int
	}{
		{"default", nil, TxOptions{}, DefaultMaxAttempts},
		{"of the connector", []Option{WithMaxAttempts(3)}, TxOptions{}, 3},
		{"of the transaction", []Option{WithMaxAttempts(3)}, TxOptions{MaxAttempts: 5}, 5},
		{"one", nil, TxOptions{MaxAttempts: 1}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, failing("update", 1000, conflictError()), tt.opts...)
				err := WithTx(t.Context(), db, tt.tx, update)
				e := requireExhausted(t, err)
				require.Equal(t, policy.StopMaxAttempts, e.Reason)
				require.Equal(t, tt.want, e.Attempts)
				require.Equal(t, "transaction", e.Op)
				require.Len(t, e.History, min(tt.want, policy.MaxHistory))
				require.Equal(t, "40001", SQLState(err))
				require.Equal(t, tt.want, ran(s, "begin"))
				require.Equal(t, tt.want, ran(s, "rollback"))
				require.Zero(t, ran(s, "commit"))
			})
		})
	}
}

func TestWithTxBeginsNoAttemptAfterMaxElapsed(t *testing.T) {
	for name, set := range map[string]struct {
		opts []Option
		tx   TxOptions
	}{
		"of the connector":   {[]Option{WithMaxElapsed(3500 * time.Millisecond)}, TxOptions{}},
		"of the transaction": {nil, TxOptions{MaxElapsed: 3500 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := append(set.opts, WithBackoff(policy.Must(policy.Fixed(time.Second, policy.NoJitter))))
				db, s := scriptedFor(t, failing("update", 1000, conflictError()), opts...)
				start := time.Now()
				e := requireExhausted(t, WithTx(t.Context(), db, set.tx, update))
				require.Equal(t, policy.StopMaxElapsed, e.Reason)
				require.Equal(t, 3*time.Second, time.Since(start))
				require.Equal(t, 4, ran(s, "begin"))
			})
		})
	}
}

func TestWithTxDoesNotStartAWaitThatWouldOutlastItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("update", 1000, conflictError()),
			WithBackoff(policy.Must(policy.Fixed(time.Second, policy.NoJitter))))
		start := time.Now()
		err := WithTx(within(t, 2500*time.Millisecond), db, TxOptions{}, update)
		require.Equal(t, 2*time.Second, time.Since(start))
		e := requireExhausted(t, err)
		require.Equal(t, policy.StopDeadline, e.Reason)
		require.Equal(t, 3, e.Attempts)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, "40001", SQLState(err))
		require.Equal(t, 3, ran(s, "begin"))
	})
}

func TestWithTxStopsWhenItsContextIsCancelledInTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("the caller hung up")
		ctx, cancel := context.WithCancelCause(t.Context())
		db, s := scriptedFor(t, failing("update", 1000, conflictError()),
			WithBackoff(policy.Must(policy.Fixed(time.Minute, policy.NoJitter))))
		time.AfterFunc(time.Second, func() { cancel(cause) })
		start := time.Now()
		err := WithTx(ctx, db, TxOptions{}, update)
		require.Equal(t, time.Second, time.Since(start))
		e := requireExhausted(t, err)
		require.Equal(t, policy.StopCanceled, e.Reason)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, cause)
		require.Equal(t, "40001", SQLState(err))
		require.Equal(t, 1, ran(s, "begin"))
	})
}

func TestWithTxDoesNotBeginWhereItsContextHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("the caller hung up")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		db, s := scriptedFor(t, nil)
		err := WithTx(ctx, db, TxOptions{}, update)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, cause)
		require.Empty(t, s.Attempts())
	})
}

func TestWithTxDoesNotCommitWhereItsContextEndedInTheClosure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		err := WithTx(ctx, db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			require.NoError(t, update(ctx, tx))
			cancel()
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, ErrCommitUnknown)
		synctest.Wait()
		require.Zero(t, ran(s, "commit"))
		require.Equal(t, 1, ran(s, "begin"))
	})
}

func TestOutagesAreChargedToTheBudgetAndConflictsAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget, err := policy.NewBudget(policy.BudgetOptions{Ratio: 0.1, MinPerSecond: 0.001})
		require.NoError(t, err)
		full := budget.Tokens()
		db, s := scriptedFor(t, failing("update", 5, conflictError()), WithBudget(budget))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Equal(t, 6, ran(s, "begin"))
		require.GreaterOrEqual(t, budget.Tokens(), full)

		for budget.Tokens() >= 2 {
			require.True(t, budget.Withdraw())
		}
		db, s = scriptedFor(t, lostAt("update", 1000), WithBudget(budget))
		err = WithTx(t.Context(), db, TxOptions{}, update)
		e := requireExhausted(t, err)
		require.Equal(t, policy.StopBudget, e.Reason)
		require.Equal(t, 2, e.Attempts, "one retry was left")
		require.ErrorIs(t, err, policy.ErrBudgetExhausted)
		require.Equal(t, 2, ran(s, "begin"))
	})
}

func TestAClosuresOwnErrorComesBackAsTheSameValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, nil)
		own := errors.New("insufficient funds")
		wrapped := fmt.Errorf("transfer: %w", own)
		for _, want := range []error{own, wrapped, context.Canceled, context.DeadlineExceeded, sql.ErrNoRows} {
			err := WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				require.NoError(t, update(ctx, tx))
				return want
			})
			require.Equal(t, want, err)
		}
		require.Equal(t, 5, ran(s, "begin"))
		require.Equal(t, 5, ran(s, "rollback"))
		require.Zero(t, db.Stats().InUse)
	})
}

func TestAPermanentErrorOfTheServerComesBackAsTheSameValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("update", 1000, serverError("23505", "duplicate key")))
		var own error
		err := WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			own = update(ctx, tx)
			return own
		})
		require.Same(t, own, err)
		require.Equal(t, 1, ran(s, "begin"))
	})
}

func TestAPermanentErrorAfterRetriesCarriesTheAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := errors.New("insufficient funds")
		db, _ := scriptedFor(t, failing("update", 2, conflictError()))
		err := WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			if err := update(ctx, tx); err != nil {
				return err
			}
			return own
		})
		e := requireExhausted(t, err)
		require.Equal(t, policy.StopNotRetryable, e.Reason)
		require.Equal(t, 3, e.Attempts)
		require.ErrorIs(t, err, own)
		require.Empty(t, SQLState(err), "an older error must not speak for the last")
	})
}

func TestAPanicRollsBackAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, nil)
		db.SetMaxOpenConns(1)
		type value struct{ n int }
		require.PanicsWithValue(t, value{7}, func() {
			_ = WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				require.NoError(t, update(ctx, tx))
				panic(value{7})
			})
		})
		require.Equal(t, []string{"begin", "update t set v = v", "rollback"}, s.Queries())
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update), "the connection is free again")
		require.Len(t, s.Attempts(), 1)
	})
}

func TestAClosureThatEndsItsGoroutineRollsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, nil)
		db.SetMaxOpenConns(1)
		var call sync.WaitGroup
		call.Go(func() {
			_ = WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				require.NoError(t, update(ctx, tx))
				runtime.Goexit()
				return nil
			})
			t.Error("WithTx returned")
		})
		call.Wait()
		require.Equal(t, 1, ran(s, "rollback"))
		require.Zero(t, ran(s, "commit"))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
	})
}

func TestAConnectionLostInTheClosureRunsTheTransactionAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, lostAt("update", 3))
		n, err := WithTxResult(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
			return AttemptFromContext(ctx), update(ctx, tx)
		})
		require.NoError(t, err)
		require.Equal(t, 4, n)
		require.Equal(t, 4, ran(s, "begin"))
		require.Equal(t, 1, ran(s, "commit"))
		require.Len(t, s.Attempts(), 4)
	})
}

func TestTheOptionsOfATransactionReachEveryAttempt(t *testing.T) {
	for _, tt := range []struct {
		opts TxOptions
		want string
	}{
		{TxOptions{}, "begin"},
		{TxOptions{ReadOnly: true}, "begin read only"},
		{TxOptions{Isolation: sql.LevelRepeatableRead}, "begin isolation level repeatable read"},
		{TxOptions{Isolation: sql.LevelSnapshot}, "begin isolation level repeatable read"},
		{TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true, Deferrable: true}, "begin isolation level serializable read only deferrable"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, failing("update", 2, conflictError()))
				require.NoError(t, WithTx(t.Context(), db, tt.opts, update))
				var begins []string
				for _, q := range s.Queries() {
					if strings.HasPrefix(q, "begin") {
						begins = append(begins, q)
					}
				}
				require.Equal(t, []string{tt.want, tt.want, tt.want}, begins)
				require.NotContains(t, s.Queries(), "set transaction deferrable")
			})
		})
	}
}

func TestAnIsolationLevelThatPostgreSQLLacksIsAnErrorBeforeBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, nil)
		err := WithTx(t.Context(), db, TxOptions{Isolation: sql.LevelLinearizable}, update)
		require.ErrorContains(t, err, "isolation")
		require.Empty(t, s.Queries())
	})
}

func TestNegativeLimitsOfATransactionAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, nil)
		for _, opts := range []TxOptions{{MaxAttempts: -1}, {MaxElapsed: -time.Second}} {
			require.ErrorContains(t, WithTx(t.Context(), db, opts, update), "must not be negative")
		}
		require.Empty(t, s.Attempts())
	})
}

func TestWithTxThatCannotConnectEndsWithTheErrorOfConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(startingUp)
		db := scripted(t, s)
		err := WithTx(within(t, 3*time.Second), db, TxOptions{}, update)
		e := requireExhausted(t, err)
		require.Equal(t, "connect", e.Op)
		require.Equal(t, "57P03", SQLState(err))
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestAPinnedConnectionUsesTheSettingsOfItsConnector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("update", 1000, conflictError()), WithMaxAttempts(3))
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		e := requireExhausted(t, WithTx(t.Context(), conn, TxOptions{}, update))
		require.Equal(t, 3, e.Attempts)
		require.Len(t, s.Attempts(), 1)
	})
}
