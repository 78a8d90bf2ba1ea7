package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	eapache "github.com/eapache/go-resiliency/breaker"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/policy"
)

// threshold is how many failures in a row open a breaker.
const threshold = 5

func breakerGroups() []group {
	return []group{
		{
			title:      "breaker, closed",
			work:       fmt.Sprintf("A function that captures a variable of its caller succeeds under a breaker that %d failures in a row open.", threshold),
			aim:        "at most 0.40 of the best peer; no allocation, no lock, no clock.",
			note:       "Allow and Success are two calls that the compiler does not put into their caller, Do is one and the call of the function.",
			contenders: closedContenders(),
		},
		{
			title:      "breaker, closed, on all cores",
			work:       "The same from one goroutine for each core, which share the breaker. The time is that of the whole, divided by the work of all.",
			aim:        "at most 0.40 of the best peer.",
			contenders: onAllCores(closedContenders),
		},
		{
			title: "breaker, open",
			work:  "The breaker refuses.",
			aim:   "at most 0.60 of the best peer.",
			note: "retrypg returns one error for all refusals of an open time, which tells when asked after what time to come back. What is left is the " +
				"call: eapache's Run, which returns a constant, is small enough for the compiler to put it into its caller, where it is one load. Allow with " +
				"its two results and Do with its three arguments are not. gobreaker returns a constant too; failsafe-go without its executor returns false.",
			contenders: openContenders(),
		},
	}
}

// onAllCores makes run of each contender run on as many goroutines as there are cores, each with an operation of its own.
func onAllCores(contenders func() []contender) []contender {
	cores := runtime.GOMAXPROCS(0)
	list := contenders()
	for i, c := range list {
		list[i].run = func(n int) error { return inParallel(cores, n, c.run) }
	}
	return list
}

// inParallel does the work n times in all on several goroutines.
func inParallel(goroutines, n int, run func(n int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	for i := range goroutines {
		wg.Go(func() { errs[i] = run((n + goroutines - 1) / goroutines) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func closedContenders() []contender {
	ctx := context.Background()
	open := new(atomic.Bool)
	own := policy.Must(breaker.New(breaker.Options{Failures: threshold}))
	other := eapache.New(threshold, 1, time.Minute)
	settings := gobreaker.Settings{ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= threshold }}
	sony, twoStep := gobreaker.NewCircuitBreaker[int](settings), gobreaker.NewTwoStepCircuitBreaker[int](settings)
	fs := circuitbreaker.NewBuilder[any]().WithFailureThreshold(threshold).Build()
	executor := failsafe.With[any](fs)
	return []contender{
		{name: "by hand: one atomic load", side: floor, run: func(n int) error {
			o := &operation{}
			for range n {
				if open.Load() {
					return errAllowed
				}
				if err := o.call(); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "retrypg Allow, Success", side: ours, run: func(n int) error {
			o := &operation{}
			for range n {
				permit, err := own.Allow()
				if err != nil {
					return err
				}
				if err := o.call(); err != nil {
					permit.Failure()
					return err
				}
				permit.Success()
			}
			return nil
		}},
		{name: "retrypg Do", side: ours, run: func(n int) error {
			o := &operation{}
			for range n {
				if err := own.Do(ctx, func(context.Context) error { return o.call() }, nil); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "eapache Run", side: peer, run: func(n int) error {
			o := &operation{}
			for range n {
				if err := other.Run(func() error { return o.call() }); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "gobreaker Execute", side: peer, run: func(n int) error {
			o := &operation{}
			for range n {
				if _, err := sony.Execute(func() (int, error) { return 0, o.call() }); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "gobreaker two-step", side: peer, run: func(n int) error {
			o := &operation{}
			for range n {
				done, err := twoStep.Allow()
				if err != nil {
					return err
				}
				err = o.call()
				done(err)
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "failsafe-go, permits", side: peer, run: func(n int) error {
			o := &operation{}
			for range n {
				if !fs.TryAcquirePermit() {
					return circuitbreaker.ErrOpen
				}
				err := o.call()
				fs.RecordError(err)
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "failsafe-go executor", side: peer, run: func(n int) error {
			o := &operation{}
			for range n {
				if err := executor.Run(func() error { return o.call() }); err != nil {
					return err
				}
			}
			return nil
		}},
	}
}

// errAllowed says that a breaker that should be open allowed something.
var errAllowed = errors.New("an open breaker allowed it")

func openContenders() []contender {
	ctx := context.Background()
	const openFor = 24 * time.Hour
	own := policy.Must(breaker.New(breaker.Options{Failures: 1, OpenFor: openFor}))
	_ = own.Do(ctx, func(context.Context) error { return errRefused }, nil)
	other := eapache.New(1, 1, openFor)
	_ = other.Run(func() error { return errRefused })
	settings := gobreaker.Settings{ReadyToTrip: func(gobreaker.Counts) bool { return true }, Timeout: openFor}
	sony := gobreaker.NewCircuitBreaker[int](settings)
	_, _ = sony.Execute(func() (int, error) { return 0, errRefused })
	fs := circuitbreaker.NewBuilder[any]().WithDelay(openFor).Build()
	fs.Open()
	executor := failsafe.With[any](fs)
	open := new(atomic.Bool)
	open.Store(true)
	return []contender{
		{name: "by hand: one atomic load", side: floor, run: func(n int) error {
			for range n {
				if !open.Load() {
					return errAllowed
				}
			}
			return nil
		}},
		{name: "retrypg Allow", side: ours, run: func(n int) error {
			for range n {
				if _, err := own.Allow(); err == nil {
					return errAllowed
				}
			}
			return nil
		}},
		{name: "retrypg Do", side: ours, run: func(n int) error {
			for range n {
				if err := own.Do(ctx, func(context.Context) error { return nil }, nil); err == nil {
					return errAllowed
				}
			}
			return nil
		}},
		{name: "eapache Run", side: peer, run: func(n int) error {
			for range n {
				if err := other.Run(func() error { return nil }); err == nil {
					return errAllowed
				}
			}
			return nil
		}},
		{name: "gobreaker Execute", side: peer, run: func(n int) error {
			for range n {
				if _, err := sony.Execute(func() (int, error) { return 0, nil }); err == nil {
					return errAllowed
				}
			}
			return nil
		}},
		{name: "failsafe-go, permits", side: peer, run: func(n int) error {
			for range n {
				if fs.TryAcquirePermit() {
					return errAllowed
				}
			}
			return nil
		}},
		{name: "failsafe-go executor", side: peer, run: func(n int) error {
			for range n {
				if err := executor.Run(func() error { return nil }); err == nil {
					return errAllowed
				}
			}
			return nil
		}},
	}
}
