package main

import (
	"context"
	"errors"
	"time"

	retrygo "github.com/avast/retry-go/v5"
	backoff5 "github.com/cenkalti/backoff/v5"
	backoff7 "github.com/cenkalti/backoff/v7"
	"github.com/eapache/go-resiliency/retrier"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	goretry "github.com/sethvargo/go-retry"

	"github.com/retrypg/retrypg/policy"
)

const (
	attempts    = 5
	initialWait = 50 * time.Millisecond
	longestWait = 5 * time.Second
)

var errRefused = errors.New("connection refused")

// retryGroups are loops around an operation. The context has a deadline, as that of a request.
func retryGroups(live context.Context) []group {
	const aim = "at most 0.65 of the best peer, and 1.00 with a context that can end, which retrypg looks at before the attempt; no allocation."
	const work = "A function that captures a variable of its caller succeeds at the first of up to 5 attempts, with " +
		"exponential backoff. What can be made once for all calls is."
	return []group{
		{
			title: "retry, success at once",
			work:  work + " The context is context.Background().",
			aim:   aim,
			note: "What retrypg needs is what a loop by hand needs: both look at the context before the call, which eapache does not. " +
				"Less than that would take a function that the compiler puts where it is called, and this one is too large for it.",
			contenders: retryContenders(context.Background(), 0, exponentially),
		},
		{
			title:      "retry, success at once, context with a deadline",
			work:       work,
			aim:        aim,
			note:       "eapache, backoff and failsafe-go call the function with a context that has ended; retrypg, retry-go and go-retry look first.",
			contenders: retryContenders(live, 0, exponentially),
		},
		{
			title: "retry, 3 failures without a wait",
			work:  "The function fails three times and then succeeds; the wait between two attempts is 0.",
			aim:   "at most 0.05 of the best peer; no timer, no allocation.",
			note: "The loop by hand keeps one error and nothing else. retrypg reads the clock at the first failure, to tell in the end for how long it was tried " +
				"(a third of its time here), keeps the errors, asks each whether it wraps a mark of Permanent or an error of a context, and looks at the " +
				"context. It keeps all of that although none of it is needed when the last attempt succeeds, which it cannot know before.",
			contenders: retryContenders(live, 3, atOnce),
		},
		{
			title: "retry, 3 failures with waits",
			work:  "The same with a wait of 1 ns, which needs a timer.",
			aim:   "at most 1.00 of the best peer, with one timer for all waits of a loop.",
			note: "A loop of retrypg makes a timer at its first wait: a pool of timers would hand those of one testing/synctest bubble to " +
				"another, which is a fatal error in a user's tests.",
			contenders: retryContenders(live, 3, shortly),
		},
	}
}

// waits are how each library is told how long to wait.
type waits struct {
	ours     policy.Backoff
	eapache  []time.Duration
	v5       func() backoff5.BackOff
	v7       func() backoff7.BackOff
	retryGo  []retrygo.Option
	goRetry  func() goretry.Backoff
	failsafe func(retrypolicy.Builder[any]) retrypolicy.Builder[any]
}

var exponentially = waits{
	ours:    policy.Must(policy.Exponential(initialWait, longestWait, 2, policy.FullJitter)),
	eapache: retrier.ExponentialBackoff(attempts-1, initialWait),
	v5:      func() backoff5.BackOff { return backoff5.NewExponentialBackOff() },
	v7:      func() backoff7.BackOff { return backoff7.NewExponentialBackOff() },
	retryGo: []retrygo.Option{retrygo.Delay(initialWait), retrygo.MaxDelay(longestWait), retrygo.DelayType(retrygo.FullJitterBackoffDelay)},
	goRetry: func() goretry.Backoff { return goretry.WithFullJitter(goretry.NewExponential(initialWait)) },
	failsafe: func(b retrypolicy.Builder[any]) retrypolicy.Builder[any] {
		return b.WithBackoff(initialWait, longestWait).WithJitterFactor(0.25)
	},
}

var (
	atOnce  = constantly(0)
	shortly = constantly(1)
)

func constantly(wait time.Duration) waits {
	return waits{
		ours:    policy.Must(policy.Fixed(wait, policy.NoJitter)),
		eapache: retrier.ConstantBackoff(attempts-1, wait),
		v5:      func() backoff5.BackOff { return backoff5.NewConstantBackOff(wait) },
		v7:      func() backoff7.BackOff { return backoff7.NewConstantBackOff(wait) },
		retryGo: []retrygo.Option{retrygo.Delay(wait), retrygo.DelayType(retrygo.FixedDelay)},
		goRetry: func() goretry.Backoff {
			return goretry.BackoffFunc(func() (time.Duration, bool) { return wait, false })
		},
		failsafe: func(b retrypolicy.Builder[any]) retrypolicy.Builder[any] { return b.WithDelay(wait) },
	}
}

// operation fails the given number of times before each success. It keeps its count outside of the function that is
// tried, which captures it, as real ones do with what they work on.
type operation struct{ failures, failed int }

func (o *operation) call() error {
	if o.failed < o.failures {
		o.failed++
		return errRefused
	}
	o.failed = 0
	return nil
}

// retryContenders are loops around an operation. Each has the measured loop in its own text, so that nothing but the call
// of the library is in it.
func retryContenders(ctx context.Context, failures int, w waits) []contender {
	o := &operation{failures: failures}
	own := policy.Must(policy.NewRetrier(policy.RetrierOptions{Policy: policy.Must(policy.MaxAttempts(w.ours, attempts))}))
	eapache := retrier.New(w.eapache, nil)
	options := append([]retrygo.Option{retrygo.Attempts(attempts), retrygo.LastErrorOnly(true)}, w.retryGo...)
	reused := retrygo.New(options...)
	executor := failsafe.With[any](w.failsafe(retrypolicy.NewBuilder[any]().WithMaxAttempts(attempts)).Build())
	return []contender{
		{name: "by hand", side: floor, run: func(n int) error {
			for range n {
				if err := byHand(ctx, w.eapache[0], func(context.Context) error { return o.call() }); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "retrypg Retrier.Do", side: ours, run: func(n int) error {
			for range n {
				if err := own.Do(ctx, "op", func(context.Context) error { return o.call() }); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "retrypg DoValue", side: ours, run: func(n int) error {
			for range n {
				if _, err := policy.DoValue(ctx, own, "op", func(context.Context) (int, error) { return o.failed, o.call() }); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "eapache retrier", side: peer, run: func(n int) error {
			for range n {
				if err := eapache.RunCtx(ctx, func(context.Context) error { return o.call() }); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "cenkalti/backoff v5", side: peer, run: func(n int) error {
			for range n {
				if _, err := backoff5.Retry(ctx, func() (int, error) { return o.failed, o.call() }, backoff5.WithBackOff(w.v5()), backoff5.WithMaxTries(attempts)); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "cenkalti/backoff v7", side: peer, run: func(n int) error {
			for range n {
				if _, err := backoff7.Retry(ctx, func() (int, error) { return o.failed, o.call() }, backoff7.WithBackOff(w.v7()), backoff7.WithMaxTries(attempts)); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "retry-go, context of the call", side: peer, run: func(n int) error {
			for range n {
				// The context of a call is an option of the constructor.
				r := retrygo.New(append(options[:len(options):len(options)], retrygo.Context(ctx))...)
				if err := r.Do(func() error { return o.call() }); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "retry-go, reused, no context", side: peer, run: func(n int) error {
			for range n {
				if err := reused.Do(func() error { return o.call() }); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "sethvargo/go-retry", side: peer, run: func(n int) error {
			for range n {
				backoff := goretry.WithMaxRetries(attempts-1, w.goRetry())
				if err := goretry.Do(ctx, backoff, func(context.Context) error { return goretry.RetryableError(o.call()) }); err != nil {
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
	}
}

// byHand is the loop that one writes without a library.
func byHand(ctx context.Context, wait time.Duration, fn func(context.Context) error) (err error) {
	for attempt := range attempts {
		if attempt > 0 && wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
			case <-timer.C:
			}
		}
		if ctxErr := ctx.Err(); ctxErr != nil {
			return errors.Join(ctxErr, err)
		}
		if err = fn(ctx); err == nil {
			return nil
		}
	}
	return err
}
