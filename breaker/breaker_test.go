package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
)

func newBreaker(t testing.TB, o breaker.Options) *breaker.Breaker {
	t.Helper()
	b, err := breaker.New(o)
	require.NoError(t, err)
	return b
}

// allow gets a permit that must not be refused.
func allow(t testing.TB, b *breaker.Breaker) breaker.Permit {
	t.Helper()
	p, err := b.Allow()
	require.NoError(t, err)
	return p
}

// fail reports n failures.
func fail(t testing.TB, b *breaker.Breaker, n int) {
	t.Helper()
	for range n {
		p := allow(t, b)
		p.Failure()
	}
}

// refused returns the refusal that there must be.
func refused(t testing.TB, b *breaker.Breaker) *breaker.OpenError {
	t.Helper()
	_, err := b.Allow()
	var open *breaker.OpenError
	require.ErrorAs(t, err, &open)
	require.ErrorIs(t, err, breaker.ErrOpen)
	return open
}

// halfOpen returns a breaker that has just become half-open.
func halfOpen(t testing.TB, o breaker.Options) *breaker.Breaker {
	t.Helper()
	o.Failures = 1
	b := newBreaker(t, o)
	fail(t, b, 1)
	time.Sleep(max(o.OpenFor, breaker.DefaultOpenFor))
	require.Equal(t, breaker.HalfOpen, b.State())
	return b
}

func TestFailuresInARowOpenIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{})
		fail(t, b, breaker.DefaultFailures-1)
		require.Equal(t, breaker.Closed, b.State())
		fail(t, b, 1)
		require.Equal(t, breaker.Open, b.State())
		requireRefusal(t, refused(t, b), breaker.Open, breaker.DefaultOpenFor)
	})
}

func TestASuccessForgetsTheFailuresBeforeIt(t *testing.T) {
	b := newBreaker(t, breaker.Options{Failures: 3})
	for range 100 {
		fail(t, b, 2)
		p := allow(t, b)
		p.Success()
	}
	require.Equal(t, breaker.Closed, b.State())
	fail(t, b, 3)
	require.Equal(t, breaker.Open, b.State())
}

func TestIgnoredResultsNeitherCountNorForget(t *testing.T) {
	b := newBreaker(t, breaker.Options{Failures: 3})
	fail(t, b, 2)
	for range 100 {
		p := allow(t, b)
		p.Ignore()
	}
	require.Equal(t, breaker.Closed, b.State())
	fail(t, b, 1)
	require.Equal(t, breaker.Open, b.State())
}

func TestFailuresThatDoNotFitTheWindowDoNotAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 3, Window: 10 * time.Second})
		for range 50 { // any three of these span 12 s
			fail(t, b, 1)
			time.Sleep(6 * time.Second)
		}
		require.Equal(t, breaker.Closed, b.State())
		fail(t, b, 1) // 6 s after the last
		time.Sleep(4 * time.Second)
		fail(t, b, 1) // three within exactly 10 s
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestItIsHalfOpenWhenItsTimeIsOverThoughNobodyAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: time.Minute})
		fail(t, b, 1)
		time.Sleep(time.Minute - 1)
		require.Equal(t, breaker.Open, b.State())
		require.Equal(t, time.Duration(1), refused(t, b).RetryAfter())
		time.Sleep(time.Nanosecond)
		require.Equal(t, breaker.HalfOpen, b.State())
	})
}

func TestARefusalTellsWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: 5 * time.Second, ProbeLease: 8 * time.Second, Probes: 2})
		fail(t, b, 1)
		time.Sleep(2 * time.Second)
		open := refused(t, b)
		requireRefusal(t, open, breaker.Open, 3*time.Second)
		require.EqualError(t, open, "circuit breaker is open: try again in 3s")
		time.Sleep(open.RetryAfter())
		requireRefusal(t, open, breaker.Open, 0)
		require.EqualError(t, open, "circuit breaker is open: try again now")
		allow(t, b)
		time.Sleep(time.Second)
		allow(t, b)
		time.Sleep(time.Second)
		open = refused(t, b)
		requireRefusal(t, open, breaker.HalfOpen, 6*time.Second)
		require.EqualError(t, open, "circuit breaker is half-open and probing: try again within 6s")
		time.Sleep(open.RetryAfter())
		allow(t, b)
	})
}

func TestARefusalThatIsLookedAtLaterTellsTheTimeThatIsLeftThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: 5 * time.Second})
		fail(t, b, 1)
		first := refused(t, b)
		time.Sleep(2 * time.Second)
		require.Same(t, first, refused(t, b), "all callers get the same value")
		requireRefusal(t, first, breaker.Open, 3*time.Second)
		time.Sleep(time.Hour)
		requireRefusal(t, first, breaker.Open, 0)
		p := allow(t, b)
		p.Failure()
		require.NotSame(t, first, refused(t, b), "the next open time has its own")
		requireRefusal(t, first, breaker.Open, 0)
	})
}

func TestAnOpenTimeEndsWhenItShouldHoweverLongItIs(t *testing.T) {
	// Short ones have no timer, which begins to look at the clock; the others have.
	for _, openFor := range []time.Duration{1, 199 * time.Millisecond, 200 * time.Millisecond, time.Second, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: openFor})
			for range 3 { // each failed probe opens it for as long again
				fail(t, b, 1)
				time.Sleep(openFor - 1)
				requireRefusal(t, refused(t, b), breaker.Open, 1)
				time.Sleep(time.Nanosecond)
			}
			p := allow(t, b)
			p.Success()
			require.Equal(t, breaker.Closed, b.State())
		})
	}
}

func TestAnOpenBreakerNeedsNoClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: time.Hour})
		fail(t, b, 1)
		_ = refused(t, b)
	}) // and ends, though the hour has not passed
}

func TestAnOpenBreakerThatNobodyHasIsFreed(t *testing.T) {
	b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: 24 * time.Hour})
	fail(t, b, 1)
	weakly := weak.Make(b)
	b = nil //nolint:ineffassign,wastedassign // for the collector
	for range 10 {
		runtime.GC()
	}
	require.Nil(t, weakly.Value(), "its timer does not keep it")
}

func TestAnOpenTimeEndsInRealTimeToo(t *testing.T) {
	b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: 250 * time.Millisecond})
	fail(t, b, 1)
	require.Eventually(t, func() bool {
		p, err := b.Allow() // and not State, which would look at the clock
		p.Success()
		return err == nil
	}, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, breaker.Closed, b.State())
}

// requireRefusal asserts what a refusal tells now.
func requireRefusal(t testing.TB, open *breaker.OpenError, state breaker.State, after time.Duration) {
	t.Helper()
	require.Equal(t, state, open.State())
	require.Equal(t, after, open.RetryAfter())
}

func TestResultsOfAnEarlierGenerationAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 2})
		var permits []breaker.Permit
		take := func() *breaker.Permit {
			permits = append(permits, allow(t, b))
			return &permits[len(permits)-1]
		}
		oldSuccess, oldFailure1, oldFailure2 := allow(t, b), allow(t, b), allow(t, b)
		fail(t, b, 2)
		oldSuccess.Success()
		require.Equal(t, breaker.Open, b.State(), "a success from before it opened does not close it")

		time.Sleep(breaker.DefaultOpenFor)
		probe := take()
		oldFailure1.Failure()
		require.Equal(t, breaker.HalfOpen, b.State(), "a failure from before does not judge the probe")
		probe.Success()
		require.Equal(t, breaker.Closed, b.State())

		fail(t, b, 1)
		oldFailure2.Failure()
		require.Equal(t, breaker.Closed, b.State(), "nor does it count in the next closed time")
		fail(t, b, 1)
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestASuccessOfAnEarlierGenerationForgetsNoFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 2})
		old := allow(t, b)
		fail(t, b, 2)
		time.Sleep(breaker.DefaultOpenFor)
		p := allow(t, b)
		p.Success()
		fail(t, b, 1)
		old.Success()
		fail(t, b, 1)
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestOnlyTheFirstReportOfAPermitCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 2})
		p := allow(t, b)
		p.Failure()
		p.Failure()
		p.Success()
		p.Ignore()
		require.Equal(t, breaker.Closed, b.State())
		fail(t, b, 1)
		require.Equal(t, breaker.Open, b.State())

		time.Sleep(breaker.DefaultOpenFor)
		p = allow(t, b)
		p.Ignore()
		other := allow(t, b)
		p.Success()
		p.Failure()
		require.Equal(t, breaker.HalfOpen, b.State())
		other.Success()
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestANilBreakerAndAZeroPermitAllowEverything(t *testing.T) {
	var b *breaker.Breaker
	for range 100 {
		fail(t, b, 1)
		p := allow(t, b)
		p.Success()
		p.Ignore()
	}
	require.Equal(t, breaker.Closed, b.State())
	require.NoError(t, b.Refusal(0))
	require.ErrorIs(t, b.Do(t.Context(), func(context.Context) error { return errBoom }, nil), errBoom)
	var zero breaker.Permit
	zero.Success()
	zero.Failure()
	zero.Ignore()
}

func TestAZeroBreakerNeverOpens(t *testing.T) {
	b := new(breaker.Breaker)
	fail(t, b, 100)
	require.Equal(t, breaker.Closed, b.State())
}

func TestRefusalIsCertainOnlyWhileItStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: 5 * time.Second})
		require.NoError(t, b.Refusal(0))
		fail(t, b, 1)
		require.ErrorIs(t, b.Refusal(0), breaker.ErrOpen)
		require.Same(t, refused(t, b), b.Refusal(5*time.Second-1))
		require.NoError(t, b.Refusal(5*time.Second))
		time.Sleep(5 * time.Second)
		require.NoError(t, b.Refusal(0))
		allow(t, b)
		require.NoError(t, b.Refusal(0), "the probe may end at any time")
	})
}

var errBoom = errors.New("boom")

func TestDoReportsWhatTheFunctionReturns(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	byText := func(err error) int {
		if errors.Is(err, errBoom) {
			return -1
		}
		return 0
	}
	for _, c := range []struct {
		ctx      context.Context
		err      error
		classify func(error) int
		want     breaker.State
	}{
		{t.Context(), nil, nil, breaker.Closed},
		{t.Context(), errBoom, nil, breaker.Open},
		{ended, errBoom, nil, breaker.Closed},
		{ended, errBoom, byText, breaker.Open},
		{t.Context(), errors.New("unique violation"), byText, breaker.Closed},
	} {
		b := newBreaker(t, breaker.Options{Failures: 1})
		got := b.Do(c.ctx, func(context.Context) error { return c.err }, c.classify)
		require.Equal(t, c.err, got)
		require.Equal(t, c.want, b.State(), fmt.Sprint(c.err))
	}
}

func TestDoDoesNotRunWhatIsRefused(t *testing.T) {
	b := newBreaker(t, breaker.Options{Failures: 1})
	fail(t, b, 1)
	err := b.Do(t.Context(), func(context.Context) error { panic("must not run") }, nil)
	require.ErrorIs(t, err, breaker.ErrOpen)
}

func TestAPanicInDoGoesThroughAndGivesBackTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Options{})
		require.PanicsWithValue(t, "boom", func() {
			_ = b.Do(t.Context(), func(context.Context) error { panic("boom") }, nil)
		})
		require.Equal(t, breaker.HalfOpen, b.State())
		p := allow(t, b)
		p.Success()
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestAPanicInDoSaysNothingOfWhatAClosedBreakerCounts(t *testing.T) {
	b := newBreaker(t, breaker.Options{Failures: 2})
	fail(t, b, 1)
	for range 3 {
		require.Panics(t, func() { _ = b.Do(t.Context(), func(context.Context) error { panic("boom") }, nil) })
	}
	require.Equal(t, breaker.Closed, b.State())
	fail(t, b, 1)
	require.Equal(t, breaker.Open, b.State(), "the panics were no successes")
}

func TestDoReportsTheResultOfItsProbe(t *testing.T) {
	for err, want := range map[error]breaker.State{nil: breaker.Closed, errBoom: breaker.Open} {
		synctest.Test(t, func(t *testing.T) {
			b := halfOpen(t, breaker.Options{})
			require.Equal(t, err, b.Do(t.Context(), func(context.Context) error { return err }, nil))
			require.Equal(t, want, b.State())
		})
	}
}

func TestLongDurationsDoNotOverflow(t *testing.T) {
	b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: math.MaxInt64, Window: math.MaxInt64, ProbeLease: math.MaxInt64})
	fail(t, b, 1)
	require.Equal(t, breaker.Open, b.State())
	require.Positive(t, refused(t, b).RetryAfter())
}

func TestStatesHaveNames(t *testing.T) {
	require.Equal(t, "closed half-open open state(7)", fmt.Sprint(breaker.Closed, breaker.HalfOpen, breaker.Open, breaker.State(7)))
}
