package main

import (
	"errors"

	retrygo "github.com/avast/retry-go/v5"
	"github.com/failsafe-go/failsafe-go/budget"
	"golang.org/x/time/rate"

	"github.com/retrypg/retrypg/policy"
)

func budgetGroups() []group {
	const work = "What a retry budget costs an operation that succeeds at once: retrypg and retry-go credit a bucket, failsafe-go counts " +
		"the operation in and out."
	const note = "A bucket of retrypg is full while nothing is wrong, and is then only looked at. \"not full\" is after a retry, until its " +
		"successes have paid for it: then a success adds to one of sixteen words, so that cores do not wait for each other, and the next retry " +
		"collects them. What is left is that atomic addition, and the choice of the word."
	return []group{
		{title: "budget, credit for a success", work: work, aim: "at most 0.40 of the best peer.", note: note, contenders: creditContenders()},
		{
			title: "budget, credit for a success, on all cores", work: "The same from one goroutine for each core, which share the budget. The time is that of the whole, divided by the work of all.",
			aim: "at most 0.15 of the best peer on two cores.", contenders: onAllCores(creditContenders),
		},
		{
			title: "budget, one retry", work: "What is asked before a retry. A rate.Limiter knows no successes; failsafe-go gives the permit back after it.",
			aim: "none was set.", contenders: withdrawContenders(),
		},
	}
}

// countedBudget is what failsafe-go's executors call of its budgets.
type countedBudget interface {
	RecordExecution()
	ReleaseExecution()
	TryAcquirePermit() bool
	ReleasePermit()
}

func creditContenders() []contender {
	full := policy.Must(policy.NewBudget(policy.BudgetOptions{}))
	// A million successes pay for the retry that is taken before each turn.
	lacking := policy.Must(policy.NewBudget(policy.BudgetOptions{Ratio: policy.MinBudgetRatio, NoMinimum: true, Burst: policy.MaxBudgetBurst}))
	throttle := retrygo.NewFixedTokenBucketThrottle(retrygo.FixedTokenBucketThrottleConfig{})
	counted := budget.New().(countedBudget)
	return []contender{
		{name: "retrypg Deposit, full", side: ours, run: func(n int) error {
			for range n {
				full.Deposit()
			}
			return nil
		}},
		{name: "retrypg Deposit, not full", side: ours, run: func(n int) error {
			lacking.Withdraw()
			for range n {
				lacking.Deposit()
			}
			return nil
		}},
		{name: "retry-go throttle", side: peer, run: func(n int) error {
			for range n {
				throttle.OnSuccess(0)
			}
			return nil
		}},
		{name: "failsafe-go budget", side: peer, run: func(n int) error {
			for range n {
				counted.RecordExecution()
				counted.ReleaseExecution()
			}
			return nil
		}},
	}
}

// errDenied says that a budget that should have plenty denied a retry.
var errDenied = errors.New("the budget denied a retry")

func withdrawContenders() []contender {
	own := policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: policy.MaxBudgetBurst, MinPerSecond: policy.MaxBudgetPerSecond}))
	limiter := rate.NewLimiter(policy.MaxBudgetPerSecond, policy.MaxBudgetBurst)
	throttle := retrygo.NewFixedTokenBucketThrottle(retrygo.FixedTokenBucketThrottleConfig{})
	counted := budget.New().(countedBudget)
	return []contender{
		{name: "retrypg Withdraw, and 10 Deposit", side: ours, run: func(n int) error {
			for range n {
				if !own.Withdraw() {
					return errDenied
				}
				for range 10 { // at the default ratio, what pays for it
					own.Deposit()
				}
			}
			return nil
		}},
		{name: "x/time/rate Allow", side: peer, run: func(n int) error {
			for range n {
				limiter.Allow() // false is as good: the limit depends on the clock
			}
			return nil
		}},
		{name: "retry-go throttle, and its return", side: peer, run: func(n int) error {
			for range n {
				if !throttle.AllowRetry(0, nil) {
					return errDenied
				}
				throttle.OnSuccess(1)
			}
			return nil
		}},
		{name: "failsafe-go budget, and its return", side: peer, run: func(n int) error {
			for range n {
				if !counted.TryAcquirePermit() {
					return errDenied
				}
				counted.ReleasePermit()
			}
			return nil
		}},
	}
}
