package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/retrypg/retrypg/breaker"
)

func ExampleNew() {
	b, err := breaker.New(breaker.Options{
		Failures:      2,
		OpenFor:       time.Minute,
		OnStateChange: func(from, to breaker.State) { fmt.Println(from, "to", to) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		permit, err := b.Allow()
		if err != nil {
			fmt.Println(err)
			return
		}
		permit.Failure()
	}
	_, err = b.Allow()
	fmt.Println("refused:", errors.Is(err, breaker.ErrOpen))
	// Output:
	// closed to open
	// refused: true
}

func ExampleNew_invalid() {
	_, err := breaker.New(breaker.Options{Failures: -1})
	fmt.Println(err)
	// Output: breaker: failures -1: give a number from 1 to 10000
}

func ExampleBreaker_Allow() {
	b, err := breaker.New(breaker.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	query := func(ctx context.Context) error {
		permit, err := b.Allow()
		if err != nil {
			return err
		}
		defer permit.Ignore() // for every way out that reports nothing
		if err := ctx.Err(); err != nil {
			return err
		}
		permit.Success()
		return nil
	}
	fmt.Println(query(context.Background()), b.State())
	// Output: <nil> closed
}

func ExampleBreaker_Do() {
	b, err := breaker.New(breaker.Options{Failures: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	violation := errors.New("unique violation")
	classify := func(err error) int {
		if errors.Is(err, violation) {
			return 0 // the server works
		}
		return -1
	}
	ctx := context.Background()
	fmt.Println(b.Do(ctx, func(context.Context) error { return violation }, classify), b.State())
	fmt.Println(b.Do(ctx, func(context.Context) error { return errors.New("connection reset") }, classify), b.State())
	// Output:
	// unique violation closed
	// connection reset open
}

func ExampleOpenError() {
	b, err := breaker.New(breaker.Options{Failures: 1, OpenFor: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	permit, _ := b.Allow()
	permit.Failure()
	_, err = b.Allow()
	var open *breaker.OpenError
	if errors.As(err, &open) {
		fmt.Println(open.State(), open.RetryAfter().Round(time.Hour), errors.Is(err, breaker.ErrOpen))
	}
	// Output: open 1h0m0s true
}
