package policy_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

func TestWaitAsGoesByTheDecisionOfItsCallerAndTheLimitsOfThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy.Must(policy.MaxAttempts(policy.Must(policy.Fixed(time.Hour, policy.NoJitter)), 4))
		r := policy.Must(policy.NewRetrier(policy.RetrierOptions{
			Policy: p, Decide: func(error) policy.Decision { t.Error("asked"); return policy.Decision{} },
		}))
		failed := errors.New("failed")
		loop := r.Start(t.Context(), "x")
		start := time.Now()
		require.NoError(t, loop.WaitAs(t.Context(), failed, policy.Decision{Retry: true, NoWait: true}))
		require.Zero(t, time.Since(start))
		require.NoError(t, loop.WaitAs(t.Context(), failed, policy.Decision{Retry: true, NoWait: true, MinWait: time.Minute}))
		require.Equal(t, time.Minute, time.Since(start))
		require.NoError(t, loop.WaitAs(t.Context(), failed, policy.Decision{Retry: true}))
		require.Equal(t, time.Hour+time.Minute, time.Since(start))
		var e *policy.ExhaustedError
		require.ErrorAs(t, loop.WaitAs(t.Context(), failed, policy.Decision{Retry: true, NoWait: true}), &e)
		require.Equal(t, policy.StopMaxAttempts, e.Reason)
		require.Equal(t, 4, e.Attempts)

		loop = r.Start(t.Context(), "x")
		require.Equal(t, failed, loop.WaitAs(t.Context(), policy.Permanent(failed), policy.Decision{Retry: true}))
		require.Panics(t, func() { _ = loop.WaitAs(t.Context(), nil, policy.Decision{}) })
	})
}

func TestStopEndsALoopBetweenItsAttempts(t *testing.T) {
	r := policy.Must(policy.NewRetrier(policy.RetrierOptions{Policy: policy.Must(policy.Fixed(0, policy.NoJitter))}))
	failed := errors.New("failed")
	loop := r.Start(t.Context(), "x")
	var e *policy.ExhaustedError
	require.ErrorAs(t, loop.Stop(t.Context(), policy.StopMaxElapsed), &e)
	require.Equal(t, policy.StopMaxElapsed, e.Reason)
	require.Zero(t, e.Attempts)

	require.NoError(t, loop.Wait(t.Context(), failed))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := loop.Stop(ctx, policy.StopMaxElapsed)
	require.ErrorAs(t, err, &e)
	require.Equal(t, policy.StopCanceled, e.Reason)
	require.Equal(t, 1, e.Attempts)
	require.ErrorIs(t, err, failed)
	require.ErrorIs(t, err, context.Canceled)
}
