package endpoint

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

func TestTheErrorOfAFirstAttemptThatWaitingCannotHealComesBackAsItIs(t *testing.T) {
	g := newGate(setup{Healable: away, Backoff: every(time.Second)})
	err := g.Do(t.Context(), time.Minute, func(context.Context) error { return errPassword })
	require.Same(t, errPassword, err)
	_, down := g.Down()
	require.False(t, down)
}

func TestAFinalAnswerAfterWaitingCarriesTheAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, 0, [2]time.Duration{0, time.Minute})
		n := 0
		err := s.gate.Do(t.Context(), 0, func(context.Context) error {
			if n++; n == 4 {
				return errPassword
			}
			return errAway
		})
		e := exhausted(t, err)
		require.Equal(t, policy.StopNotRetryable, e.Reason)
		require.Equal(t, 4, e.Attempts)
		require.Equal(t, 300*time.Millisecond, e.Elapsed)
		require.Same(t, errPassword, e.Last)
		require.NoError(t, e.Cause)
		require.NotErrorIs(t, err, errAway)
	})
}

func TestACallWhoseContextHasEndedMakesNoAttempt(t *testing.T) {
	cause := errors.New("the caller hung up")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	g := newGate(setup{Healable: away, Backoff: every(time.Second)})
	err := g.Do(ctx, time.Minute, func(context.Context) error { panic("attempt") })
	e := exhausted(t, err)
	require.Equal(t, policy.StopCanceled, e.Reason)
	require.Zero(t, e.Attempts)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, cause)
	requireIdle(t, g.Gate)
}

func TestTheProberEndsAtOnceWhereItsWaitWouldOutlastItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{Backoff: every(time.Second)}, time.Millisecond, [2]time.Duration{0, time.Minute})
		err := s.do(within(t, 900*time.Millisecond))
		require.Equal(t, time.Millisecond, s.now())
		e := exhausted(t, err)
		require.Equal(t, policy.StopDeadline, e.Reason)
		require.Equal(t, 1, e.Attempts)
		require.Same(t, errAway, e.Last)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireIdle(t, s.gate.Gate)
	})
}

func TestAWaiterWaitsUntilItsDeadlineAndLearnsWhatTheProberSaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, 0, [2]time.Duration{0, time.Minute})
		var calls sync.WaitGroup
		calls.Go(func() { require.Error(t, s.do(within(t, time.Minute))) })
		time.Sleep(950 * time.Millisecond)
		err := s.do(within(t, time.Second))
		require.Equal(t, 1950*time.Millisecond, s.now())
		e := exhausted(t, err)
		require.Equal(t, policy.StopDeadline, e.Reason)
		require.Equal(t, 10, e.Attempts, "the prober's, while the call waited")
		require.Equal(t, time.Second, e.Elapsed)
		require.Same(t, errAway, e.Last)
		require.Equal(t, []error{errAway}, e.History)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		calls.Wait()
		requireIdle(t, s.gate.Gate)
	})
}

func TestACancelledWaiterLearnsTheCauseAndTheLastFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, 0, [2]time.Duration{0, time.Second})
		var calls sync.WaitGroup
		calls.Go(func() { require.NoError(t, s.do(t.Context())) })
		time.Sleep(50 * time.Millisecond)
		cause := errors.New("the caller hung up")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(25*time.Millisecond, func() { cancel(cause) })
		err := s.do(ctx)
		require.Equal(t, 75*time.Millisecond, s.now())
		e := exhausted(t, err)
		require.Equal(t, policy.StopCanceled, e.Reason)
		require.Zero(t, e.Attempts, "nobody tried while it waited")
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, cause)
		require.ErrorIs(t, err, errAway)
		calls.Wait()
	})
}

func TestAnAttemptThatTheDeadlineCutShortDoesNotHideTheRealFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, 0)
		n := 0
		err := s.gate.Do(within(t, time.Second), 0, func(ctx context.Context) error {
			if n++; n == 1 {
				return errAway
			}
			<-ctx.Done()
			return ctx.Err()
		})
		require.Equal(t, time.Second, s.now())
		e := exhausted(t, err)
		require.Equal(t, policy.StopDeadline, e.Reason)
		require.Equal(t, 2, e.Attempts)
		require.Same(t, errAway, e.Last)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestWhatTheCallersEndCutShortDoesNotShutTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{Healable: func(error) bool { return true }, OnDown: func(error) { panic("down") }}, time.Second)
		err := s.do(within(t, 100*time.Millisecond))
		e := exhausted(t, err)
		require.Equal(t, policy.StopDeadline, e.Reason)
		require.Equal(t, 1, e.Attempts)
		_, down := s.gate.Down()
		require.False(t, down)
	})
}

func TestTheLimitBoundsTheWaitOfACallWithoutADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, 0, [2]time.Duration{0, time.Hour})
		var calls sync.WaitGroup
		for _, limit := range []time.Duration{5 * time.Second, 3 * time.Second} { // as the prober, and behind it
			calls.Go(func() {
				err := s.gate.Do(t.Context(), limit, s.attempt)
				e := exhausted(t, err)
				require.Equal(t, policy.StopMaxElapsed, e.Reason)
				require.LessOrEqual(t, s.now(), limit)
				require.Greater(t, s.now(), limit-200*time.Millisecond)
				require.Same(t, errAway, e.Last)
				require.NoError(t, e.Cause)
			})
			synctest.Wait()
		}
		calls.Wait()
		requireIdle(t, s.gate.Gate)
	})
}

func TestTheLimitBoundsTheFirstAttemptToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, time.Hour)
		e := exhausted(t, s.gate.Do(t.Context(), time.Second, s.attempt))
		require.Equal(t, time.Second, s.now())
		require.Equal(t, policy.StopMaxElapsed, e.Reason)
		require.Equal(t, 1, e.Attempts)
	})
}

func TestADeadlineBeforeTheLimitIsTheCallersOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, time.Millisecond, [2]time.Duration{0, time.Hour})
		err := s.gate.Do(within(t, time.Second), time.Minute, s.attempt)
		e := exhausted(t, err)
		require.Equal(t, policy.StopDeadline, e.Reason)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, s.now(), time.Second)
	})
}
