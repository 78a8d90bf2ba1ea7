package policy_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

func TestWhatSucceedsAtOnceAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates: nothing to measure")
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	budget := policy.Must(policy.NewBudget(policy.BudgetOptions{}))
	for name, o := range map[string]policy.RetrierOptions{
		"plain":  {},
		"budget": {Budget: budget},
		"gate":   {Budget: budget, Gate: openGate{}},
		"count":  {CountFirstAttempt: true},
		"all": {
			Policy: policy.Must(policy.MaxElapsed(everySecond(3), time.Minute)), Budget: budget, Gate: openGate{}, CountFirstAttempt: true,
			Decide:  func(error) policy.Decision { return policy.Decision{Retry: true} },
			OnRetry: func(context.Context, policy.Attempt, time.Duration) {},
		},
	} {
		r := retrier(o)
		calls, sum := 0, 0
		requireNoAllocs(t, name+"/Do", func() {
			if err := r.Do(ctx, "op", func(context.Context) error { return nil }); err != nil {
				t.Error(err)
			}
		})
		requireNoAllocs(t, name+"/Do, capturing", func() {
			if err := r.Do(ctx, "op", func(context.Context) error { calls++; return nil }); err != nil {
				t.Error(err)
			}
		})
		requireNoAllocs(t, name+"/DoValue, capturing", func() {
			v, err := policy.DoValue(ctx, r, "op", func(context.Context) (int, error) { calls++; return calls, nil })
			if err != nil {
				t.Error(err)
			}
			sum += v
		})
		requireNoAllocs(t, name+"/Loop", func() {
			loop := r.Start(ctx, "op")
			defer loop.Abandon()
			if err := loop.Err(); err != nil {
				t.Error(err)
			}
			loop.Success()
		})
	}
}

func TestRetriesWithoutAWaitAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates: nothing to measure")
		return
	}
	r := retrier(policy.RetrierOptions{
		Policy: policy.Must(policy.MaxElapsed(policy.Must(policy.MaxAttempts(atOnce(), 5)), time.Hour)),
		Budget: policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: policy.MaxBudgetBurst})),
		Gate:   openGate{},
	})
	requireNoAllocs(t, "three failures", func() {
		n := 0
		if err := r.Do(t.Context(), "op", func(context.Context) error {
			if n++; n <= 3 {
				return errRefused
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}

// timerAllocations is what time.NewTimer allocates.
const timerAllocations = 3

func TestWaitsOfALoopAllocateOneTimerAndNothingElse(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates: nothing to measure")
		return
	}
	r := retrier(policy.RetrierOptions{
		Policy: policy.Must(policy.MaxAttempts(policy.Must(policy.Fixed(1, policy.NoJitter)), 5)),
		Budget: policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: policy.MaxBudgetBurst})),
		Gate:   openGate{},
	})
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		n := 0
		if err := r.Do(t.Context(), "op", func(context.Context) error {
			if n++; n <= 4 {
				return errRefused
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}), float64(timerAllocations))
}

func TestNextAndTheBudgetAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates: nothing to measure")
		return
	}
	for _, j := range allJitters() {
		b := policy.Must(policy.Exponential(1, time.Hour, 1.01, j))
		p := policy.Must(policy.MaxAttempts(b, 1000))
		for _, number := range []int{1, 999} {
			a := policy.Attempt{Number: number, Wait: time.Second}
			requireNoAllocs(t, j.String(), func() { b.Next(a) })
			requireNoAllocs(t, j.String()+", limited", func() { p.Next(a) })
		}
	}
	b := policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: policy.MaxBudgetBurst}))
	requireNoAllocs(t, "full budget", b.Deposit)
	requireNoAllocs(t, "budget", func() {
		b.Withdraw()
		b.Deposit()
		b.Tokens()
	})
}

func requireNoAllocs(t *testing.T, name string, f func()) {
	t.Helper()
	require.Zero(t, testing.AllocsPerRun(100, f), name)
}

// openGate admits everything.
type openGate struct{}

func (openGate) Admit() (uint64, bool, error) { return 1, false, nil }
func (openGate) Refusal(time.Duration) error  { return nil }
func (openGate) Settle(uint64, int)           {}
