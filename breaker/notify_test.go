package breaker_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
)

func TestEveryChangeOfStateIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		b := newBreaker(t, breaker.Options{
			Failures:      1,
			OnStateChange: func(from, to breaker.State) { told = append(told, fmt.Sprintf("%v>%v", from, to)) },
		})
		fail(t, b, 1)
		time.Sleep(breaker.DefaultOpenFor)
		fail(t, b, 1)
		time.Sleep(breaker.DefaultOpenFor)
		b.State()
		p := allow(t, b)
		p.Success()
		require.Equal(t, []string{"closed>open", "open>half-open", "half-open>open", "open>half-open", "half-open>closed"}, told)
	})
}

func TestTheCallbackMayUseTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *breaker.Breaker
		var told []breaker.State
		b = newBreaker(t, breaker.Options{Failures: 1, OnStateChange: func(_, to breaker.State) {
			told = append(told, to)
			if got := b.State(); got != to {
				t.Errorf("State is %v in the call that tells of %v", got, to)
			}
			if to == breaker.HalfOpen {
				p := allow(t, b)
				p.Failure()
				if b.State() != breaker.Open {
					t.Error("the callback's own probe was not counted")
				}
			}
		}})
		fail(t, b, 1)
		time.Sleep(breaker.DefaultOpenFor)
		b.State()
		require.Equal(t, []breaker.State{breaker.Open, breaker.HalfOpen, breaker.Open}, told,
			"a change made in the callback is told after it, by the same goroutine")
	})
}

func TestChangesAreToldInOrderAndOneAtATime(t *testing.T) {
	var told []breaker.State
	var inside atomic.Int32
	last := breaker.Closed
	b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: 1, OnStateChange: func(from, to breaker.State) {
		if inside.Add(1) != 1 {
			t.Error("two calls at a time")
		}
		if from != last {
			t.Errorf("told of %v to %v after %v", from, to, last)
		}
		last = to
		told = append(told, to)
		inside.Add(-1)
	}})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				p, err := b.Allow()
				switch {
				case err != nil:
					b.State()
				case (i+n)%3 == 0:
					p.Failure()
				default:
					p.Success()
				}
			}
		})
	}
	wg.Wait()
	require.NotEmpty(t, told)
}

func TestAPanicOfTheCallbackDoesNotSilenceIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []breaker.State
		b := newBreaker(t, breaker.Options{Failures: 1, OnStateChange: func(_, to breaker.State) {
			told = append(told, to)
			if to == breaker.Open {
				panic("boom")
			}
		}})
		require.PanicsWithValue(t, "boom", func() { fail(t, b, 1) })
		require.Equal(t, breaker.Open, b.State())
		time.Sleep(breaker.DefaultOpenFor)
		require.Equal(t, breaker.HalfOpen, b.State())
		require.Equal(t, []breaker.State{breaker.Open, breaker.HalfOpen}, told)
	})
}
