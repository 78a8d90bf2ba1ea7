package main

import (
	"context"

	retrygo "github.com/avast/retry-go/v5"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/sony/gobreaker/v2"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/policy"
)

// combinedGroup is a retry loop with a breaker and a budget around an operation that succeeds at once.
func combinedGroup(ctx context.Context) group {
	own := policy.Must(policy.NewRetrier(policy.RetrierOptions{
		Budget: policy.Must(policy.NewBudget(policy.BudgetOptions{})),
		Gate:   policy.Must(breaker.New(breaker.Options{Failures: threshold})),
	}))
	sony := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= threshold },
	})
	reused := retrygo.New(append([]retrygo.Option{
		retrygo.Attempts(attempts), retrygo.LastErrorOnly(true),
		retrygo.WithFixedTokenBucketThrottle(retrygo.FixedTokenBucketThrottleConfig{}),
	}, exponentially.retryGo...)...)
	executor := failsafe.With[any](
		retrypolicy.NewBuilder[any]().WithMaxAttempts(attempts).WithBackoff(initialWait, longestWait).WithBudget(budget.New()).Build(),
		circuitbreaker.NewBuilder[any]().WithFailureThreshold(threshold).Build(),
	)
	o := &operation{}
	return group{
		title: "retry, breaker and budget together",
		work: "A function that captures a variable of its caller succeeds at once, within a retry loop with a budget, each of whose attempts goes through a " +
			"breaker. eapache has no budget.",
		aim: "at most 0.06 of the best peer, and no allocation.",
		note: "A Gate of retrypg is an interface, so that a breaker of another maker fits, and is called twice for an attempt: these two calls are the " +
			"difference to a loop alone. A deferred function gives the place back if an attempt panics that is a probe of a half-open breaker.",
		contenders: []contender{
			{name: "by hand: a loop alone", side: floor, run: func(n int) error {
				for range n {
					if err := byHand(ctx, 0, func(context.Context) error { return o.call() }); err != nil {
						return err
					}
				}
				return nil
			}},
			{name: "retrypg Retrier with Gate and Budget", side: ours, run: func(n int) error {
				for range n {
					if err := own.Do(ctx, "op", func(context.Context) error { return o.call() }); err != nil {
						return err
					}
				}
				return nil
			}},
			{name: "retry-go (no context) with throttle, gobreaker", side: peer, run: func(n int) error {
				for range n {
					if err := reused.Do(func() error {
						_, err := sony.Execute(func() (int, error) { return 0, o.call() })
						return err
					}); err != nil {
						return err
					}
				}
				return nil
			}},
			{name: "failsafe-go", side: peer, run: func(n int) error {
				for range n {
					if err := executor.WithContext(ctx).Run(func() error { return o.call() }); err != nil {
						return err
					}
				}
				return nil
			}},
		},
	}
}
