package main

import (
	"errors"
	"math/rand/v2"
	"time"

	retrygo "github.com/avast/retry-go/v5"
	backoff5 "github.com/cenkalti/backoff/v5"
	backoff7 "github.com/cenkalti/backoff/v7"
	goretry "github.com/sethvargo/go-retry"

	"github.com/retrypg/retrypg/policy"
)

// errNegative says that waits add up to less than nothing.
var errNegative = errors.New("negative waits")

// used takes the sum of all waits, so that none is optimized away.
func used(sum time.Duration) error {
	if sum < 0 {
		return errNegative
	}
	return nil
}

// delayGroup is the computation of one wait.
func delayGroup() group {
	const number = 4 // of the failed attempt
	exponential := policy.Must(policy.Exponential(initialWait, longestWait, 2, policy.FullJitter))
	proportional := policy.Must(policy.Exponential(initialWait, longestWait, 2, policy.Must(policy.ProportionalJitter(0.5))))
	limited := policy.Must(policy.MaxAttempts(exponential, 1000))
	v5, v7 := backoff5.NewExponentialBackOff(), backoff7.NewExponentialBackOff()
	full := goretry.WithCappedDuration(longestWait, goretry.WithFullJitter(goretry.NewExponential(initialWait)))
	config := retrygo.New(retrygo.Delay(initialWait), retrygo.MaxDelay(longestWait))
	ceiling := int64(initialWait << (number - 1))

	return group{
		title: "next delay with jitter",
		work:  "One wait of an exponential backoff with jitter. Those of eapache and failsafe-go cannot be called by themselves.",
		aim:   "at most 1.00 of the best peer, without state and without an allocation.",
		note: "\"has state\": it counts its own calls, so each loop needs one of its own, and it must not be shared. A Backoff of retrypg is a " +
			"value that any number of loops share. With MaxAttempts it is a Policy, which is called through an interface and calls the backoff, and " +
			"then compares with the limits of attempts and of time. No other row has such limits.",
		contenders: []contender{
			{name: "by hand: a random number below a constant", side: floor, run: func(n int) error {
				sum := time.Duration(0)
				for range n {
					sum += time.Duration(rand.Int64N(ceiling))
				}
				return used(sum)
			}},
			{name: "retrypg Exponential, full jitter", side: ours, run: func(n int) error {
				sum := time.Duration(0)
				for range n {
					wait, _ := exponential.Next(policy.Attempt{Number: number})
					sum += wait
				}
				return used(sum)
			}},
			{name: "retrypg Exponential, proportional jitter", side: ours, run: func(n int) error {
				sum := time.Duration(0)
				for range n {
					wait, _ := proportional.Next(policy.Attempt{Number: number})
					sum += wait
				}
				return used(sum)
			}},
			{name: "retrypg Exponential with MaxAttempts", side: ours, run: func(n int) error {
				sum := time.Duration(0)
				for range n {
					wait, _ := limited.Next(policy.Attempt{Number: number})
					sum += wait
				}
				return used(sum)
			}},
			{name: "cenkalti/backoff v5 (has state)", side: peer, run: func(n int) error {
				sum := time.Duration(0)
				for range n {
					sum += v5.NextBackOff()
				}
				return used(sum)
			}},
			{name: "cenkalti/backoff v7 (has state)", side: peer, run: func(n int) error {
				sum := time.Duration(0)
				for range n {
					sum += v7.NextBackOff()
				}
				return used(sum)
			}},
			{name: "sethvargo/go-retry, full jitter (has state)", side: peer, run: func(n int) error {
				sum := time.Duration(0)
				for range n {
					wait, _ := full.Next()
					sum += wait
				}
				return used(sum)
			}},
			{name: "retry-go FullJitterBackoffDelay", side: peer, run: func(n int) error {
				sum := time.Duration(0)
				for range n {
					sum += retrygo.FullJitterBackoffDelay(number, nil, config)
				}
				return used(sum)
			}},
		},
	}
}
