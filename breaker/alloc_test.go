package breaker_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/policy"
)

func TestAClosedBreakerAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates: nothing to measure")
		return
	}
	b := newBreaker(t, breaker.Options{})
	n := 0
	r := policy.Must(policy.NewRetrier(policy.RetrierOptions{Gate: b, Budget: policy.Must(policy.NewBudget(policy.BudgetOptions{}))}))
	for name, f := range map[string]func(){
		"success": func() {
			p, _ := b.Allow()
			defer p.Ignore()
			p.Success()
		},
		"ignore": func() {
			p, _ := b.Allow()
			p.Ignore()
		},
		"failure, success": func() {
			p, _ := b.Allow()
			p.Failure()
			p, _ = b.Allow()
			p.Success()
		},
		"do": func() {
			if err := b.Do(t.Context(), func(context.Context) error { n++; return nil }, nil); err != nil {
				t.Error(err)
			}
		},
		"retrier with a budget": func() {
			if err := r.Do(t.Context(), "op", func(context.Context) error { n++; return nil }); err != nil {
				t.Error(err)
			}
		},
		"state": func() {
			b.State()
			_ = b.Refusal(time.Second)
		},
	} {
		require.Zero(t, testing.AllocsPerRun(100, f), name)
	}
}

func TestARefusalOfAnOpenBreakerAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates: nothing to measure")
		return
	}
	b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: time.Hour})
	fail(t, b, 1)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, _ = b.Allow()
		_ = b.Refusal(0)
		_ = b.Do(t.Context(), nil, nil)
	}))
	r := policy.Must(policy.NewRetrier(policy.RetrierOptions{Gate: b}))
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = r.Do(t.Context(), "op", func(context.Context) error { return nil }) }), 1.0,
		"the ExhaustedError")
}
