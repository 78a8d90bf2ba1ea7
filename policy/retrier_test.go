package policy_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

// everySecond waits a second without jitter, with at most n attempts.
func everySecond(n int) policy.Policy {
	return policy.Must(policy.MaxAttempts(policy.Must(policy.Fixed(time.Second, policy.NoJitter)), n))
}

func retrier(o policy.RetrierOptions) *policy.Retrier { return policy.Must(policy.NewRetrier(o)) }

// failing returns a function that fails n times, and the number of its calls.
func failing(n int) (fn func(context.Context) error, calls *int) {
	calls = new(int)
	return func(context.Context) error {
		if *calls++; *calls <= n {
			return fmt.Errorf("failure %d: %w", *calls, errRefused)
		}
		return nil
	}, calls
}

func requireExhausted(t *testing.T, err error, reason policy.StopReason, attempts int) policy.ExhaustedError {
	t.Helper()
	var e *policy.ExhaustedError
	require.ErrorAs(t, err, &e)
	require.Equal(t, reason, e.Reason)
	require.Equal(t, attempts, e.Attempts)
	return *e
}

func TestDoTriesUntilSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		fn, calls := failing(3)
		require.NoError(t, retrier(policy.RetrierOptions{Policy: everySecond(4)}).Do(t.Context(), "op", fn))
		require.Equal(t, 4, *calls)
		require.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestDoGivesUpAtTheLimitOfAttemptsWithoutALastWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		fn, calls := failing(99)
		err := retrier(policy.RetrierOptions{Policy: everySecond(3)}).Do(t.Context(), "connect", fn)
		e := requireExhausted(t, err, policy.StopMaxAttempts, 3)
		require.Equal(t, 3, *calls)
		require.Equal(t, 2*time.Second, time.Since(start))
		require.Equal(t, 2*time.Second, e.Elapsed)
		require.Nil(t, e.Cause)
		require.ErrorIs(t, err, errRefused)
		require.EqualError(t, err, "connect: gave up after 3 attempts in 2s (max_attempts): failure 3: connection refused")
	})
}

func TestTheFirstAttemptsErrorThatIsNotRetriedComesBackAsItIs(t *testing.T) {
	want := &codeError{"23505"}
	never := func(error) policy.Decision { return policy.Decision{} }
	for name, o := range map[string]policy.RetrierOptions{"plain": {}, "decide": {Decide: never}, "gate": {Decide: never, Gate: &gate{}}} {
		for _, marks := range []int{0, 1, 3} {
			if o.Decide == nil && marks == 0 {
				continue
			}
			var err error = want
			for range marks {
				err = policy.Permanent(err)
			}
			got := retrier(o).Do(t.Context(), "op", func(context.Context) error { return err })
			require.Same(t, want, got, name)
		}
	}
}

func TestALaterErrorThatIsNotRetriedTellsOfTheAttempts(t *testing.T) {
	last := &codeError{"23505"}
	n := 0
	err := retrier(policy.RetrierOptions{Policy: atOnce()}).Do(t.Context(), "op", func(context.Context) error {
		if n++; n == 3 {
			return policy.Permanent(last)
		}
		return errRefused
	})
	e := requireExhausted(t, err, policy.StopNotRetryable, 3)
	require.Same(t, last, e.Last, "without the mark")
	require.Equal(t, []error{errRefused, errRefused, last}, e.History)
	require.NotErrorIs(t, err, errRefused, "older errors do not speak for the operation")
}

func TestAWrappedPermanentIsNotRetriedEither(t *testing.T) {
	r := retrier(policy.RetrierOptions{Decide: func(error) policy.Decision { return policy.Decision{Retry: true} }})
	for _, err := range []error{
		fmt.Errorf("a: %w", policy.Permanent(errRefused)),
		errors.Join(errors.New("b"), fmt.Errorf("c: %w", policy.Permanent(errRefused))),
	} {
		calls := 0
		got := r.Do(t.Context(), "op", func(context.Context) error { calls++; return err })
		require.Equal(t, err, got)
		require.Equal(t, 1, calls)
	}
}

func TestWithoutDecideOnlyContextErrorsAreNotRetried(t *testing.T) {
	r := retrier(policy.RetrierOptions{Policy: policy.Must(policy.MaxAttempts(atOnce(), 2))})
	for _, c := range []struct {
		err  error
		want int
	}{
		{errRefused, 2},
		{manyErrors{errRefused}, 2},
		{fmt.Errorf("query: %w", errRefused), 2},
		{errors.Join(errRefused, errors.New("and another")), 2},
		{likeError{errRefused}, 2},
		{context.Canceled, 1},
		{context.DeadlineExceeded, 1},
		{fmt.Errorf("query: %w", context.Canceled), 1},
		{fmt.Errorf("query: %w", context.DeadlineExceeded), 1},
		{errors.Join(errRefused, fmt.Errorf("query: %w", context.Canceled)), 1},
		{likeError{context.DeadlineExceeded}, 1},
	} {
		calls := 0
		require.ErrorContains(t, r.Do(t.Context(), "op", func(context.Context) error { calls++; return c.err }), c.err.Error())
		require.Equal(t, c.want, calls, c.err)
	}
}

// likeError says by its method alone what it matches, as the timeouts of package net do.
type likeError struct{ target error }

func (e likeError) Error() string        { return "like " + e.target.Error() }
func (e likeError) Is(target error) bool { return target == e.target }

// manyErrors cannot be compared, and wraps nothing.
type manyErrors []error

func (e manyErrors) Error() string { return fmt.Sprintf("%d errors", len(e)) }

func TestElapsedTimeBeginsWithTheFirstFailureUnlessAskedOtherwise(t *testing.T) {
	for _, count := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := retrier(policy.RetrierOptions{
				Policy:            policy.Must(policy.MaxElapsed(everySecond(99), 5*time.Second)),
				CountFirstAttempt: count,
			})
			calls := 0
			err := r.Do(t.Context(), "op", func(context.Context) error {
				if calls++; calls == 1 {
					time.Sleep(time.Minute)
				}
				return errRefused
			})
			if count {
				e := requireExhausted(t, err, policy.StopMaxElapsed, 1)
				require.Equal(t, time.Minute, e.Elapsed, "the long attempt used up the time, and the error says so")
			} else {
				e := requireExhausted(t, err, policy.StopMaxElapsed, 6)
				require.Equal(t, 5*time.Second, e.Elapsed, "the long attempt keeps its retries")
			}
		})
	}
}

func TestTheBudgetIsAskedOnlyIfARetryWouldFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := policy.Must(policy.NewBudget(policy.BudgetOptions{NoMinimum: true, Burst: 2}))
		fn, _ := failing(99)
		deadline, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		for _, c := range []struct {
			ctx    context.Context
			policy policy.Policy
			gate   policy.Gate
			reason policy.StopReason
		}{
			{t.Context(), everySecond(1), nil, policy.StopMaxAttempts},
			{deadline, everySecond(9), nil, policy.StopDeadline},
			{t.Context(), policyFunc(func(policy.Attempt) (time.Duration, bool) { return 0, false }), nil, policy.StopPolicy},
			{t.Context(), everySecond(9), &gate{refuseWait: errShut}, policy.StopBreaker},
		} {
			err := retrier(policy.RetrierOptions{Policy: c.policy, Budget: budget, Gate: c.gate}).Do(c.ctx, "op", fn)
			requireExhausted(t, err, c.reason, 1)
		}
		require.Equal(t, 2.0, budget.Tokens())
	})
}

func TestTheBudgetEndsTheLoopWithTheLastErrorFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := policy.Must(policy.NewBudget(policy.BudgetOptions{NoMinimum: true, Burst: 2}))
		waits := 0
		r := retrier(policy.RetrierOptions{
			Policy: everySecond(99), Budget: budget,
			OnRetry: func(context.Context, policy.Attempt, time.Duration) { waits++ },
		})
		start := time.Now()
		fn, _ := failing(99)
		err := r.Do(t.Context(), "op", fn)
		requireExhausted(t, err, policy.StopBudget, 3)
		require.Equal(t, 2, waits)
		require.Equal(t, 2*time.Second, time.Since(start), "no wait before the refusal")
		require.ErrorIs(t, err, errRefused)
		require.ErrorIs(t, err, policy.ErrBudgetExhausted)
		require.EqualError(t, err, "op: gave up after 3 attempts in 2s (budget_exhausted): failure 3: connection refused; "+
			"retry budget exhausted (0 of 2 left)")
	})
}

func TestAFreeRetryIsNotCharged(t *testing.T) {
	budget := policy.Must(policy.NewBudget(policy.BudgetOptions{NoMinimum: true, Burst: 1}))
	r := retrier(policy.RetrierOptions{
		Policy: atOnce(), Budget: budget,
		Decide: func(error) policy.Decision { return policy.Decision{Retry: true, Free: true} },
	})
	fn, calls := failing(50)
	require.NoError(t, r.Do(t.Context(), "op", fn))
	require.Equal(t, 51, *calls)
	require.Equal(t, 1.0, budget.Tokens())
}

func TestASuccessCreditsTheBudgetOnce(t *testing.T) {
	for _, failures := range []int{0, 1} {
		budget := policy.Must(policy.NewBudget(policy.BudgetOptions{Ratio: 0.5, NoMinimum: true, Burst: 10}))
		for budget.Withdraw() {
		}
		r := retrier(policy.RetrierOptions{
			Policy: atOnce(), Budget: budget,
			Decide: func(error) policy.Decision { return policy.Decision{Retry: true, Free: true} },
		})
		fn, _ := failing(failures)
		require.NoError(t, r.Do(t.Context(), "op", fn))
		require.Equal(t, 0.5, budget.Tokens())
	}
}

func TestAPanicGoesThroughAndLeaksNothing(t *testing.T) {
	budget := policy.Must(policy.NewBudget(policy.BudgetOptions{NoMinimum: true, Burst: 10}))
	g := &gate{}
	r := retrier(policy.RetrierOptions{Policy: atOnce(), Budget: budget, Gate: g})
	for _, failures := range []int{0, 2} {
		fn, calls := failing(failures)
		require.PanicsWithValue(t, "boom", func() {
			_ = r.Do(t.Context(), "op", func(ctx context.Context) error {
				if err := fn(ctx); err != nil {
					return err
				}
				panic("boom")
			})
		})
		require.Equal(t, failures+1, *calls)
		require.Zero(t, g.unsettled(), "what the gate admitted is given back")
	}
	require.Equal(t, 8.0, budget.Tokens(), "charged for the two retries that were made, no more")
}

func TestAPanicOfAnAttemptThatHoldsNothingIsNotTold(t *testing.T) {
	g := &gate{holdsNothing: true, outcomes: make(map[uint64]int)}
	r := retrier(policy.RetrierOptions{Policy: atOnce(), Gate: g})
	for _, failures := range []int{0, 2} {
		fn, _ := failing(failures)
		require.PanicsWithValue(t, "boom", func() {
			_ = r.Do(t.Context(), "op", func(ctx context.Context) error {
				if err := fn(ctx); err != nil {
					return err
				}
				panic("boom")
			})
		})
		require.Equal(t, 1, g.unsettled())
		g.outcomes[g.admitted] = 0
	}
	require.NoError(t, r.Do(t.Context(), "op", func(context.Context) error { return nil }))
	require.Zero(t, g.unsettled(), "every other one is")
}

func TestAServersHintLengthensTheWaitBeyondThePolicysCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hint := 7 * time.Second
		r := retrier(policy.RetrierOptions{
			Policy: everySecond(2),
			Decide: func(error) policy.Decision { return policy.Decision{Retry: true, NoWait: true, MinWait: hint} },
		})
		start := time.Now()
		fn, _ := failing(1)
		require.NoError(t, r.Do(t.Context(), "op", fn))
		require.Equal(t, hint, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		fn, _ = failing(1)
		requireExhausted(t, r.Do(ctx, "op", fn), policy.StopDeadline, 1)
	})
}

func TestNoWaitRetriesAtOnceWithinTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retrier(policy.RetrierOptions{
			Policy: everySecond(3),
			Decide: func(error) policy.Decision { return policy.Decision{Retry: true, NoWait: true} },
		})
		start := time.Now()
		fn, calls := failing(99)
		requireExhausted(t, r.Do(t.Context(), "op", fn), policy.StopMaxAttempts, 3)
		require.Equal(t, 3, *calls)
		require.Zero(t, time.Since(start))
	})
}

func TestAUsersPolicySeesEveryAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []policy.Attempt
		r := retrier(policy.RetrierOptions{Policy: policyFunc(func(a policy.Attempt) (time.Duration, bool) {
			seen = append(seen, a)
			return []time.Duration{time.Second, -time.Second, 3 * time.Second, 0}[a.Number-1], a.Number < 4
		})})
		fn, _ := failing(99)
		requireExhausted(t, r.Do(t.Context(), "op", fn), policy.StopPolicy, 4)
		for i, want := range []policy.Attempt{
			{Number: 1},
			{Number: 2, Elapsed: time.Second, Wait: time.Second},
			{Number: 3, Elapsed: time.Second},
			{Number: 4, Elapsed: 4 * time.Second, Wait: 3 * time.Second},
		} {
			require.EqualError(t, seen[i].Err, fmt.Sprintf("failure %d: connection refused", i+1))
			seen[i].Err = nil
			require.Equal(t, want, seen[i])
		}
	})
}

func TestTheHistoryKeepsTheLastErrorsOldestFirst(t *testing.T) {
	for _, attempts := range []int{1, 7, 8, 9, 17, 1000} {
		r := retrier(policy.RetrierOptions{Policy: policy.Must(policy.MaxAttempts(atOnce(), attempts))})
		fn, _ := failing(attempts)
		e := requireExhausted(t, r.Do(t.Context(), "op", fn), policy.StopMaxAttempts, attempts)
		require.Len(t, e.History, min(attempts, policy.MaxHistory))
		for i, err := range e.History {
			require.EqualError(t, err, fmt.Sprintf("failure %d: connection refused", attempts-len(e.History)+i+1))
		}
		require.Equal(t, e.Last, e.History[len(e.History)-1])
	}
}

func TestTheHookSeesEachWaitBeforeItBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at, waits []time.Duration
		r := retrier(policy.RetrierOptions{
			Policy: policy.Must(policy.Linear(time.Second, time.Second, time.Minute, policy.NoJitter)),
			OnRetry: func(_ context.Context, a policy.Attempt, wait time.Duration) {
				require.Len(t, waits, a.Number-1)
				at, waits = append(at, time.Since(start)), append(waits, wait)
			},
		})
		fn, _ := failing(3)
		require.NoError(t, r.Do(t.Context(), "op", fn))
		require.Equal(t, []time.Duration{0, time.Second, 3 * time.Second}, at)
		require.Equal(t, []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}, waits)
	})
}

func TestDoValueReturnsTheValueOfTheAttemptThatSucceeded(t *testing.T) {
	r := retrier(policy.RetrierOptions{Policy: policy.Must(policy.MaxAttempts(atOnce(), 3))})
	n := 0
	v, err := policy.DoValue(t.Context(), r, "op", func(context.Context) (string, error) {
		if n++; n < 3 {
			return "half done", errRefused
		}
		return "done", nil
	})
	require.NoError(t, err)
	require.Equal(t, "done", v)
}

func TestDoValueReturnsTheZeroValueWithAnError(t *testing.T) {
	v, err := policy.DoValue(t.Context(), retrier(policy.RetrierOptions{Policy: everySecond(1)}), "op",
		func(context.Context) (string, error) { return "half done", errRefused })
	requireExhausted(t, err, policy.StopMaxAttempts, 1)
	require.Empty(t, v)
}

func TestANilFunctionIsAnError(t *testing.T) {
	r := retrier(policy.RetrierOptions{})
	require.ErrorContains(t, r.Do(t.Context(), "op", nil), "no function")
	_, err := policy.DoValue[int](t.Context(), r, "op", nil)
	require.ErrorContains(t, err, "no function")
}

func TestTheFunctionGetsTheContextItself(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, 1)
	require.NoError(t, retrier(policy.RetrierOptions{}).Do(ctx, "op", func(got context.Context) error {
		require.Equal(t, ctx, got)
		return nil
	}))
}

func TestNewRetrierRefusesTheZeroBackoff(t *testing.T) {
	_, err := policy.NewRetrier(policy.RetrierOptions{Policy: policy.Backoff{}})
	require.ErrorContains(t, err, "zero Backoff")
	_, err = policy.NewRetrier(policy.RetrierOptions{Policy: policy.Must(policy.MaxAttempts(policy.Backoff{}, 3))})
	require.ErrorContains(t, err, "zero Backoff")
}

func TestTheZeroRetrierRetriesNothing(t *testing.T) {
	fn, calls := failing(1)
	requireExhausted(t, new(policy.Retrier).Do(t.Context(), "op", fn), policy.StopMaxAttempts, 1)
	require.Equal(t, 1, *calls)
}

func TestARetrierIsSharedByGoroutinesWithoutInfluencingEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retrier(policy.RetrierOptions{Policy: everySecond(5), Budget: policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: 1000}))})
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 100 {
			wg.Go(func() {
				fn, calls := failing(i % 5)
				if err := r.Do(t.Context(), "op", fn); err != nil || *calls != i%5+1 {
					t.Errorf("%d: %v after %d calls", i, err, *calls)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 4*time.Second, time.Since(start))
	})
}
