package policy_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/retrypg/retrypg/policy"
)

var errRefused = errors.New("connection refused")

func BenchmarkSuccessAtOnce(b *testing.B) {
	r := policy.Must(policy.NewRetrier(policy.RetrierOptions{}))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		_ = r.Do(ctx, "op", func(context.Context) error { return nil })
	}
}

func BenchmarkSuccessAtOnceCapturing(b *testing.B) {
	r := policy.Must(policy.NewRetrier(policy.RetrierOptions{Budget: policy.Must(policy.NewBudget(policy.BudgetOptions{}))}))
	ctx := context.Background()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		_ = r.Do(ctx, "op", func(context.Context) error { n++; return nil })
	}
}

func BenchmarkDoValueSuccessAtOnce(b *testing.B) {
	r := policy.Must(policy.NewRetrier(policy.RetrierOptions{}))
	ctx := context.Background()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		_, _ = policy.DoValue(ctx, r, "op", func(context.Context) (int, error) { n++; return n, nil })
	}
}

func BenchmarkLoopSuccessAtOnce(b *testing.B) {
	r := policy.Must(policy.NewRetrier(policy.RetrierOptions{}))
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		l := r.Start(ctx, "op")
		l.Success()
	}
}

func BenchmarkThreeFailuresZeroDelay(b *testing.B) {
	r := policy.Must(policy.NewRetrier(policy.RetrierOptions{
		Policy: policy.Must(policy.MaxAttempts(policy.Must(policy.Fixed(0, policy.NoJitter)), 5)),
	}))
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		_ = r.Do(ctx, "op", func(context.Context) error {
			if n++; n <= 3 {
				return errRefused
			}
			return nil
		})
	}
}

func BenchmarkNext(b *testing.B) {
	for _, j := range allJitters() {
		backoff := policy.Must(policy.Exponential(50*time.Millisecond, 5*time.Second, 2, j))
		b.Run(j.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = backoff.Next(policy.Attempt{Number: 4, Wait: time.Second})
			}
		})
	}
}

func BenchmarkDeposit(b *testing.B) {
	budget := policy.Must(policy.NewBudget(policy.BudgetOptions{}))
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			budget.Deposit()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				budget.Deposit()
			}
		})
	})
}
