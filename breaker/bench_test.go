package breaker_test

import (
	"context"
	"testing"
	"time"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/policy"
)

func BenchmarkClosed(b *testing.B) {
	cb := policy.Must(breaker.New(breaker.Options{}))
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, err := cb.Allow()
			if err != nil {
				b.Fatal(err)
			}
			p.Success()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				p, _ := cb.Allow()
				p.Success()
			}
		})
	})
}

func BenchmarkOpen(b *testing.B) {
	cb := policy.Must(breaker.New(breaker.Options{Failures: 1, OpenFor: time.Hour}))
	p, _ := cb.Allow()
	p.Failure()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = cb.Allow()
	}
}

func BenchmarkRetryBreakerBudget(b *testing.B) {
	r := policy.Must(policy.NewRetrier(policy.RetrierOptions{
		Budget: policy.Must(policy.NewBudget(policy.BudgetOptions{})),
		Gate:   policy.Must(breaker.New(breaker.Options{})),
	}))
	ctx := context.Background()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		_ = r.Do(ctx, "op", func(context.Context) error { n++; return nil })
	}
}
