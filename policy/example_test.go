package policy_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/retrypg/retrypg/policy"
)

// printWaits prints the waits after the first attempts.
func printWaits(p policy.Policy, attempts int) {
	for n := 1; n <= attempts; n++ {
		wait, ok := p.Next(policy.Attempt{Number: n})
		if !ok {
			fmt.Println("no more")
			return
		}
		fmt.Print(wait, " ")
	}
	fmt.Println()
}

func ExampleFixed() {
	p, err := policy.Fixed(200*time.Millisecond, policy.NoJitter)
	if err != nil {
		fmt.Println(err)
		return
	}
	printWaits(p, 4)
	// Output: 200ms 200ms 200ms 200ms
}

func ExampleLinear() {
	p, err := policy.Linear(100*time.Millisecond, 150*time.Millisecond, 500*time.Millisecond, policy.NoJitter)
	if err != nil {
		fmt.Println(err)
		return
	}
	printWaits(p, 5)
	// Output: 100ms 250ms 400ms 500ms 500ms
}

func ExampleExponential() {
	p, err := policy.Exponential(50*time.Millisecond, time.Second, 2, policy.NoJitter)
	if err != nil {
		fmt.Println(err)
		return
	}
	printWaits(p, 7)
	// Output: 50ms 100ms 200ms 400ms 800ms 1s 1s
}

func ExampleExponential_invalid() {
	_, err := policy.Exponential(time.Second, time.Minute, 0.5, policy.FullJitter)
	fmt.Println(err)
	// Output: policy: exponential backoff: the multiplier 0.5 must be a finite number of at least 1
}

func ExampleBackoff_Bounds() {
	quarter := policy.Must(policy.ProportionalJitter(0.25))
	for _, j := range []policy.Jitter{policy.NoJitter, policy.FullJitter, policy.EqualJitter, quarter, policy.DecorrelatedJitter} {
		b := policy.Must(policy.Exponential(100*time.Millisecond, time.Minute, 2, j))
		low, high := b.Bounds(policy.Attempt{Number: 3, Wait: 200 * time.Millisecond})
		fmt.Printf("%-18v %v to %v\n", j, low, high)
	}
	// Output:
	// none               400ms to 400ms
	// full               0s to 400ms
	// equal              200ms to 400ms
	// proportional:0.25  300ms to 500ms
	// decorrelated       100ms to 600ms
}

func ExampleProportionalJitter() {
	j, err := policy.ProportionalJitter(0.1)
	fmt.Println(j, err)
	_, err = policy.ProportionalJitter(1.5)
	fmt.Println(err)
	// Output:
	// proportional:0.1 <nil>
	// policy: proportional jitter 1.5: give a factor from 0 to 1
}

func ExampleParseJitter() {
	for _, s := range []string{"full", "proportional:0.25", "half"} {
		j, err := policy.ParseJitter(s)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(j)
	}
	// Output:
	// full
	// proportional:0.25
	// policy: jitter "half": give none, full, equal, decorrelated, proportional or proportional:0.25
}

func ExampleDefault() {
	fmt.Println(policy.Default())
	// Output: exponential(50ms to 5s, x2, jitter full), at most 5 attempts
}

func ExampleMust() {
	everySecond := policy.Must(policy.Fixed(time.Second, policy.FullJitter))
	fmt.Println(everySecond)
	// Output: fixed(1s, jitter full)
}

func ExampleMaxAttempts() {
	p, err := policy.MaxAttempts(policy.Must(policy.Fixed(time.Second, policy.NoJitter)), 3)
	if err != nil {
		fmt.Println(err)
		return
	}
	printWaits(p, 10)
	// Output: 1s 1s no more
}

func ExampleMaxElapsed() {
	p, err := policy.MaxElapsed(policy.Must(policy.Fixed(2*time.Second, policy.NoJitter)), 5*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, elapsed := range []time.Duration{0, 3 * time.Second, 4 * time.Second} {
		wait, ok := p.Next(policy.Attempt{Number: 1, Elapsed: elapsed})
		fmt.Println(elapsed, wait, ok)
	}
	// Output:
	// 0s 2s true
	// 3s 2s true
	// 4s 0s false
}

func ExampleNewBudget() {
	budget, err := policy.NewBudget(policy.BudgetOptions{Ratio: 0.5, NoMinimum: true, Burst: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(budget.Withdraw(), budget.Withdraw(), budget.Withdraw())
	budget.Deposit()
	budget.Deposit()
	fmt.Println(budget.Tokens(), "of", budget.Cap())
	fmt.Println(budget.Withdraw(), budget.Withdraw())
	// Output:
	// true true false
	// 1 of 2
	// true false
}

func ExampleNewRetrier() {
	retrier, err := policy.NewRetrier(policy.RetrierOptions{
		Policy: policy.Must(policy.MaxAttempts(policy.Must(policy.Exponential(time.Millisecond, time.Second, 2, policy.NoJitter)), 3)),
		OnRetry: func(_ context.Context, a policy.Attempt, wait time.Duration) {
			fmt.Printf("attempt %d: %v; again in %v\n", a.Number, a.Err, wait)
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	n := 0
	err = retrier.Do(context.Background(), "connect", func(context.Context) error {
		if n++; n < 3 {
			return errors.New("connection refused")
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// attempt 1: connection refused; again in 1ms
	// attempt 2: connection refused; again in 2ms
	// <nil>
}

func ExampleRetrier_Do() {
	retrier := policy.Must(policy.NewRetrier(policy.RetrierOptions{
		Policy: policy.Must(policy.Fixed(time.Hour, policy.NoJitter)),
	}))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	refused := errors.New("connection refused")
	err := retrier.Do(ctx, "connect", func(context.Context) error { return refused })
	var e *policy.ExhaustedError
	fmt.Println(errors.As(err, &e), e.Reason, e.Attempts)
	fmt.Println(errors.Is(err, context.DeadlineExceeded), errors.Is(err, refused), ctx.Err())
	// Output:
	// true deadline 1
	// true true <nil>
}

func ExampleDoValue() {
	retrier := policy.Must(policy.NewRetrier(policy.RetrierOptions{}))
	n := 0
	rows, err := policy.DoValue(context.Background(), retrier, "count", func(context.Context) (int, error) {
		if n++; n == 1 {
			return 0, errors.New("connection reset by peer")
		}
		return 42, nil
	})
	fmt.Println(rows, err)
	// Output: 42 <nil>
}

func ExamplePermanent() {
	retrier := policy.Must(policy.NewRetrier(policy.RetrierOptions{}))
	wrong := errors.New("wrong password")
	n := 0
	err := retrier.Do(context.Background(), "connect", func(context.Context) error {
		n++
		return policy.Permanent(wrong)
	})
	fmt.Println(n, err, errors.Is(err, wrong))
	// Output: 1 wrong password true
}

func ExampleLoop() {
	retrier := policy.Must(policy.NewRetrier(policy.RetrierOptions{
		Policy: policy.Must(policy.MaxAttempts(policy.Must(policy.Fixed(0, policy.NoJitter)), 3)),
	}))
	attempt := func(_ context.Context, number int) error {
		if number < 3 {
			return errors.New("deadlock detected")
		}
		return nil
	}
	transfer := func(ctx context.Context) error {
		loop := retrier.Start(ctx, "transfer")
		if err := loop.Err(); err != nil {
			return err
		}
		defer loop.Abandon()
		for {
			err := attempt(ctx, loop.Attempt())
			fmt.Printf("attempt %d: %v\n", loop.Attempt(), err)
			if err == nil {
				loop.Success()
				return nil
			}
			if err := loop.Wait(ctx, err); err != nil {
				return err
			}
		}
	}
	fmt.Println(transfer(context.Background()))
	// Output:
	// attempt 1: deadlock detected
	// attempt 2: deadlock detected
	// attempt 3: <nil>
	// <nil>
}
