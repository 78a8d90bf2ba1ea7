package policy_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

func TestAContextThatHasEndedIsNotTried(t *testing.T) {
	cause := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	fn, calls := failing(0)
	for name, o := range map[string]policy.RetrierOptions{"plain": {}, "gate": {Gate: &gate{}}, "count": {CountFirstAttempt: true}} {
		err := retrier(o).Do(ctx, "op", fn)
		requireExhausted(t, err, policy.StopCanceled, 0)
		require.ErrorIs(t, err, context.Canceled, name)
		require.ErrorIs(t, err, cause, name)
		require.EqualError(t, err, "op: not attempted (canceled): context canceled: shutting down", name)
		_, err = policy.DoValue(ctx, retrier(o), "op", func(context.Context) (int, error) { return 1, fn(ctx) })
		require.ErrorIs(t, err, cause, name)
	}
	require.Zero(t, *calls)
}

func TestAWaitThatCannotEndBeforeTheDeadlineIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		start := time.Now()
		fn, calls := failing(99)
		err := retrier(policy.RetrierOptions{Policy: everySecond(99)}).Do(ctx, "op", fn)
		requireExhausted(t, err, policy.StopDeadline, 3)
		require.Equal(t, 3, *calls)
		require.Equal(t, 2*time.Second, time.Since(start), "at once, half a second before the deadline")
		require.NoError(t, ctx.Err())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errRefused)
		require.EqualError(t, err, "op: gave up after 3 attempts in 2s (deadline): failure 3: connection refused; "+
			"the next wait of 1s would not end before the deadline in 500ms: context deadline exceeded")
	})
}

func TestAWaitThatEndsExactlyAtTheDeadlineIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		fn, calls := failing(99)
		requireExhausted(t, retrier(policy.RetrierOptions{Policy: everySecond(99)}).Do(ctx, "op", fn), policy.StopDeadline, 1)
		require.Equal(t, 1, *calls)
	})
}

func TestAContextThatEndsDuringTheWaitEndsItWithEverythingThatMatters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		start := time.Now()
		time.AfterFunc(1300*time.Millisecond, func() { cancel(cause) })
		fn, calls := failing(99)
		err := retrier(policy.RetrierOptions{Policy: everySecond(99)}).Do(ctx, "op", fn)
		requireExhausted(t, err, policy.StopCanceled, 2)
		require.Equal(t, 2, *calls)
		require.Equal(t, 1300*time.Millisecond, time.Since(start))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, cause)
		require.ErrorIs(t, err, errRefused)
	})
}

// silentContext ends at a time without closing Done, as if select had taken the timer of two ready channels.
type silentContext struct {
	context.Context
	end time.Time
}

func (c silentContext) Err() error {
	if time.Now().Before(c.end) {
		return nil
	}
	return context.Canceled
}

func TestAContextThatEndsWithTheWaitAllowsNoFurtherAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn, calls := failing(99)
		err := retrier(policy.RetrierOptions{Policy: everySecond(99)}).Do(silentContext{t.Context(), time.Now().Add(time.Second)}, "op", fn)
		requireExhausted(t, err, policy.StopCanceled, 1)
		require.Equal(t, 1, *calls)
	})
}

func TestAContextThatEndsWhileItIsDecidedAllowsNoFurtherAttempt(t *testing.T) {
	for name, options := range map[string]func(cancel func()) policy.RetrierOptions{
		"Decide": func(cancel func()) policy.RetrierOptions {
			return policy.RetrierOptions{Policy: atOnce(), Decide: func(error) policy.Decision {
				cancel()
				return policy.Decision{Retry: true}
			}}
		},
		"Policy": func(cancel func()) policy.RetrierOptions {
			return policy.RetrierOptions{Policy: policyFunc(func(policy.Attempt) (time.Duration, bool) {
				cancel()
				return 0, true
			})}
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		fn, calls := failing(99)
		err := retrier(options(cancel)).Do(ctx, "op", fn)
		requireExhausted(t, err, policy.StopCanceled, 1)
		require.Equal(t, 1, *calls, name)
	}
}

func TestAContextThatEndsInTheHookAllowsNoFurtherAttempt(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Hour} {
		ctx, cancel := context.WithCancel(t.Context())
		fn, calls := failing(99)
		err := retrier(policy.RetrierOptions{
			Policy:  policy.Must(policy.Fixed(wait, policy.NoJitter)),
			OnRetry: func(context.Context, policy.Attempt, time.Duration) { cancel() },
		}).Do(ctx, "op", fn)
		requireExhausted(t, err, policy.StopCanceled, 1)
		require.Equal(t, 1, *calls)
	}
}

func TestAnAttemptThatTheContextInterruptedTellsSoAndWhatCameBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		n := 0
		err := retrier(policy.RetrierOptions{Policy: everySecond(99)}).Do(ctx, "connect", func(ctx context.Context) error {
			if n++; n == 1 {
				return errRefused
			}
			<-ctx.Done()
			return fmt.Errorf("dial: %w", ctx.Err())
		})
		e := requireExhausted(t, err, policy.StopDeadline, 2)
		require.EqualError(t, e.Last, "dial: context deadline exceeded")
		require.EqualError(t, err, "connect: gave up after 2 attempts in 3s (deadline): dial: context deadline exceeded; "+
			"the attempt before: connection refused; context deadline exceeded")
	})
}
