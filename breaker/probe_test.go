package breaker_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
)

func TestProbesCloseItAfterEnoughSuccesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Options{Probes: 2, ProbeSuccesses: 3})
		for range 2 {
			p := allow(t, b)
			p.Success()
			require.Equal(t, breaker.HalfOpen, b.State())
		}
		p := allow(t, b)
		p.Success()
		require.Equal(t, breaker.Closed, b.State())
		allow(t, b)
		allow(t, b)
		allow(t, b)
	})
}

func TestOneFailedProbeOpensItForTheWholeTimeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Options{Probes: 2, ProbeSuccesses: 2})
		good, bad := allow(t, b), allow(t, b)
		good.Success()
		bad.Failure()
		require.Equal(t, breaker.DefaultOpenFor, refused(t, b).RetryAfter())
		time.Sleep(breaker.DefaultOpenFor)
		p := allow(t, b)
		p.Success()
		require.Equal(t, breaker.HalfOpen, b.State(), "successes of the earlier half-open time do not count")
	})
}

func TestACancelledProbeGivesBackItsPlaceAndDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Options{})
		for range 10 {
			p := allow(t, b)
			_ = refused(t, b)
			p.Ignore()
			require.Equal(t, breaker.HalfOpen, b.State())
		}
		p := allow(t, b)
		p.Success()
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestALostProbeLosesItsPlaceWithItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Options{ProbeLease: 10 * time.Second})
		lost := allow(t, b)
		time.Sleep(10*time.Second - 1)
		_ = refused(t, b)
		time.Sleep(time.Nanosecond)
		second := allow(t, b)
		_ = refused(t, b)
		lost.Failure() // nobody waits for it any more
		require.Equal(t, breaker.HalfOpen, b.State())
		second.Success()
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestALateProbeCountsWhileNobodyTookItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Options{ProbeLease: time.Second})
		late := allow(t, b)
		time.Sleep(time.Minute)
		late.Success()
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestTheProbeWhoseLeaseEndedFirstLosesItsPlaceFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Options{Probes: 2, ProbeLease: 10 * time.Second})
		first := allow(t, b)
		time.Sleep(time.Second)
		second := allow(t, b)
		time.Sleep(time.Minute)
		allow(t, b)
		first.Failure()
		require.Equal(t, breaker.HalfOpen, b.State())
		second.Failure()
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestAProbeOfAnEarlierHalfOpenTimeIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Options{Probes: 3})
		oldGood, oldBad, bad := allow(t, b), allow(t, b), allow(t, b)
		bad.Failure()
		time.Sleep(breaker.DefaultOpenFor)
		allow(t, b)
		oldGood.Success()
		oldBad.Failure()
		require.Equal(t, breaker.HalfOpen, b.State())
	})
}

func TestNoMoreThanTheAllowedProbesRunAtATime(t *testing.T) {
	for _, probes := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			b := halfOpen(t, breaker.Options{Probes: probes, ProbeSuccesses: 50})
			var running, most, admitted atomic.Int64
			var wg sync.WaitGroup
			for range 32 {
				wg.Go(func() {
					for b.State() == breaker.HalfOpen {
						p, err := b.Allow()
						if err != nil {
							time.Sleep(time.Millisecond)
							continue
						}
						if b.State() != breaker.HalfOpen {
							p.Ignore() // closed in between: everything is allowed
							return
						}
						n := running.Add(1)
						for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
						}
						admitted.Add(1)
						time.Sleep(time.Millisecond)
						running.Add(-1)
						if n%7 == 0 {
							p.Ignore()
						} else {
							p.Success()
						}
					}
				})
			}
			wg.Wait()
			require.LessOrEqual(t, most.Load(), int64(probes))
			require.GreaterOrEqual(t, admitted.Load(), int64(50))
			require.Equal(t, breaker.Closed, b.State())
		})
	}
}
