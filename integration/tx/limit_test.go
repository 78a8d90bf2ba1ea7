package tx_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/policy"
)

// numbered returns a closure whose statement fails with a conflict that names the attempt.
func numbered(runs *int) closure {
	return func(ctx context.Context, w work) error {
		*runs++
		return w.exec(ctx, fmt.Sprintf("do $$ begin raise exception 'attempt %d' using errcode = '40001'; end $$",
			retrypg.AttemptFromContext(ctx)))
	}
}

// exhausted requires that err is an ExhaustedError about conflicts of numbered, found by errors.As with the last first.
func exhausted(t *testing.T, err error, reason policy.StopReason, attempts int) {
	t.Helper()
	var e *retrypg.ExhaustedError
	require.ErrorAs(t, err, &e)
	require.Equal(t, reason, e.Reason)
	require.Equal(t, "transaction", e.Op)
	require.Equal(t, attempts, e.Attempts)
	require.Len(t, e.History, min(attempts, policy.MaxHistory))
	for i, past := range e.History {
		require.ErrorContains(t, past, fmt.Sprintf("attempt %d", attempts-len(e.History)+1+i))
	}
	require.Equal(t, e.History[len(e.History)-1], e.Last)
	var last *pgconn.PgError
	require.ErrorAs(t, err, &last)
	require.Equal(t, fmt.Sprintf("attempt %d", attempts), last.Message)
	require.Equal(t, "40001", retrypg.SQLState(err))
	require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
	require.NotErrorIs(t, err, retrypg.ErrCommitUnknown)
}

func TestMaxAttemptsIsTheNumberOfRuns(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db, most := s.open(fixed(t, time.Millisecond)), 3
		if s.ours {
			most = policy.MaxHistory + 1 // the waits of others would add up to a second
		}
		for _, n := range []int{1, 2, most} {
			runs := 0
			err := db.withTx(s.context(), retrypg.TxOptions{MaxAttempts: n}, numbered(&runs))
			exhausted(t, err, policy.StopMaxAttempts, n)
			require.Equal(t, n, runs)
		}
		s.usable(db, "b")
	})
}

func TestZeroMaxAttemptsMeansTheConnectorsSetting(t *testing.T) {
	fit := func(a adapter) bool { return a.ours || a.name == "pgx_sql.DB" } // what is not ours shares one setting
	some(t, fit, func(t *testing.T, s *stage) {
		db, want := s.open(retrypg.WithMaxAttempts(4)), retrypg.DefaultMaxAttempts
		if s.ours {
			want = 4
		}
		runs := 0
		exhausted(t, db.withTx(s.context(), retrypg.TxOptions{}, numbered(&runs)), policy.StopMaxAttempts, want)
		require.Equal(t, want, runs)
	})
}

func TestMaxElapsedEndsAtOnceWhereTheWaitWouldBeTooLong(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		runs := 0
		err := db.withTx(s.context(), retrypg.TxOptions{MaxElapsed: time.Nanosecond}, numbered(&runs))
		exhausted(t, err, policy.StopMaxElapsed, 1)
		require.Equal(t, 1, runs)
	})
}

// fixed returns the option that waits d between attempts.
func fixed(t *testing.T, d time.Duration) retrypg.Option {
	t.Helper()
	p, err := policy.Fixed(d, policy.NoJitter)
	require.NoError(t, err)
	return retrypg.WithBackoff(p)
}

// TestNoWaitThatCannotEndBeforeTheDeadline: the context is alive when the call returns, so nobody has waited for it.
func TestNoWaitThatCannotEndBeforeTheDeadline(t *testing.T) {
	some(t, ours, func(t *testing.T, s *stage) {
		db := s.open(fixed(t, time.Hour))
		runs := 0
		ctx := s.context()
		err := db.withTx(ctx, retrypg.TxOptions{}, numbered(&runs))
		require.NoError(t, ctx.Err())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		exhausted(t, err, policy.StopDeadline, 1)
		require.Equal(t, 1, runs)
	})
}

func TestCancelEndsTheWait(t *testing.T) {
	some(t, ours, func(t *testing.T, s *stage) {
		cause := errors.New("the user went away")
		ctx, cancel := context.WithCancelCause(t.Context()) // without a deadline: nothing else could end the wait
		defer cancel(nil)
		hooks := retrypg.Hooks{Backoff: func(context.Context, retrypg.BackoffInfo) { cancel(cause) }}
		db := s.open(fixed(t, time.Hour), retrypg.WithHooks(hooks))
		runs := 0
		err := db.withTx(ctx, retrypg.TxOptions{}, numbered(&runs))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, cause)
		exhausted(t, err, policy.StopCanceled, 1)
	})
}

// TestBudgetThatIsUsedUpEndsWithTheLastError: lost connections are charged, a budget of two allows three attempts.
func TestBudgetThatIsUsedUpEndsWithTheLastError(t *testing.T) {
	some(t, func(a adapter) bool { return a.ours && !a.pinned }, func(t *testing.T, s *stage) {
		budget, err := policy.NewBudget(policy.BudgetOptions{NoMinimum: true, Burst: 2})
		require.NoError(t, err)
		db := s.open(retrypg.WithBudget(budget))
		runs := 0
		err = db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			return w.exec(ctx, "select pg_terminate_backend(pg_backend_pid()), pg_sleep(600)")
		})
		var e *retrypg.ExhaustedError
		require.ErrorAs(t, err, &e)
		require.Equal(t, policy.StopBudget, e.Reason)
		require.Equal(t, 3, e.Attempts)
		require.Equal(t, 3, runs)
		require.Len(t, e.History, 3)
		require.ErrorIs(t, err, policy.ErrBudgetExhausted)
		require.Equal(t, "57P01", retrypg.SQLState(err), "the last error comes before the cause")
		s.usable(db, "b")
	})
}

// TestConflictsAreNotChargedToTheBudget: they say nothing about the health of the server.
func TestConflictsAreNotChargedToTheBudget(t *testing.T) {
	some(t, ours, func(t *testing.T, s *stage) {
		budget, err := policy.NewBudget(policy.BudgetOptions{NoMinimum: true, Burst: 1})
		require.NoError(t, err)
		db := s.open(retrypg.WithBudget(budget))
		runs := 0
		err = db.withTx(s.context(), retrypg.TxOptions{MaxAttempts: 5}, numbered(&runs))
		exhausted(t, err, policy.StopMaxAttempts, 5)
		require.Equal(t, 1.0, budget.Tokens())
	})
}
