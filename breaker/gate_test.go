package breaker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/policy"
)

// A Breaker is a Gate, though neither package imports the other.
var _ policy.Gate = (*breaker.Breaker)(nil)

func TestARetrierStopsWhenItsBreakerOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 3, OpenFor: time.Minute})
		r := policy.Must(policy.NewRetrier(policy.RetrierOptions{
			Policy: policy.Must(policy.Fixed(time.Second, policy.NoJitter)), Gate: b,
		}))
		start := time.Now()
		err := r.Do(t.Context(), "connect", func(context.Context) error { return errBoom })
		var e *policy.ExhaustedError
		require.ErrorAs(t, err, &e)
		require.Equal(t, policy.StopBreaker, e.Reason)
		require.Equal(t, 3, e.Attempts)
		require.Equal(t, 2*time.Second, time.Since(start), "no wait for what is refused anyway")
		require.ErrorIs(t, err, errBoom)
		require.ErrorIs(t, err, breaker.ErrOpen)
		require.EqualError(t, err, "connect: gave up after 3 attempts in 2s (breaker_open): boom; circuit breaker is open: try again in 1m0s")

		err = r.Do(t.Context(), "connect", func(context.Context) error { panic("must not run") })
		require.EqualError(t, err, "connect: not attempted (breaker_open): circuit breaker is open: try again in 1m0s")

		time.Sleep(time.Minute)
		require.NoError(t, r.Do(t.Context(), "connect", func(context.Context) error { return nil }))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestARetrierWaitsForItsBreakerIfTheWaitIsLongEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: 5 * time.Second})
		r := policy.Must(policy.NewRetrier(policy.RetrierOptions{
			Policy: policy.Must(policy.Fixed(5*time.Second, policy.NoJitter)), Gate: b,
		}))
		n := 0
		require.NoError(t, r.Do(t.Context(), "connect", func(context.Context) error {
			if n++; n < 3 {
				return errBoom
			}
			return nil
		}))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestACancelledRetrierGivesBackItsProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Options{})
		r := policy.Must(policy.NewRetrier(policy.RetrierOptions{Gate: b}))
		ctx, cancel := context.WithCancel(t.Context())
		err := r.Do(ctx, "connect", func(context.Context) error { cancel(); return errors.New("interrupted") })
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, breaker.HalfOpen, b.State())
		p := allow(t, b)
		p.Success()
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestARetrierWhoseProbePanicsGivesItBack(t *testing.T) {
	for _, attempt := range []int{1, 2} { // the breaker is half-open at the first attempt, or after a wait
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(t, breaker.Options{Failures: 1, OpenFor: time.Second})
			r := policy.Must(policy.NewRetrier(policy.RetrierOptions{
				Policy: policy.Must(policy.Fixed(time.Second, policy.NoJitter)), Gate: b,
			}))
			if attempt == 1 {
				fail(t, b, 1)
				time.Sleep(time.Second)
			}
			n := 0
			require.PanicsWithValue(t, "boom", func() {
				_ = r.Do(t.Context(), "connect", func(context.Context) error {
					if n++; n < attempt {
						return errBoom
					}
					panic("boom")
				})
			})
			require.Equal(t, breaker.HalfOpen, b.State())
			p := allow(t, b)
			p.Success()
			require.Equal(t, breaker.Closed, b.State())
		})
	}
}

func TestARetrierWithANilBreakerIsOneWithout(t *testing.T) {
	var b *breaker.Breaker
	r := policy.Must(policy.NewRetrier(policy.RetrierOptions{
		Policy: policy.Must(policy.MaxAttempts(policy.Must(policy.Fixed(0, policy.NoJitter)), 20)), Gate: b,
	}))
	var e *policy.ExhaustedError
	require.ErrorAs(t, r.Do(t.Context(), "op", func(context.Context) error { return errBoom }), &e)
	require.Equal(t, policy.StopMaxAttempts, e.Reason)
}
