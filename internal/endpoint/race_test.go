package endpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const stagger = 200 * time.Millisecond

// lane is how a host answers: after a time, with an error or not; or never.
type lane struct {
	after time.Duration
	err   error
	hangs bool
	late  bool // succeeds although it was cancelled
}

// racing runs a race and returns its winner and, for each host that had a turn, when that was.
func racing(t *testing.T, lanes []lane) (winner int, turns []string, discarded []int, err error) {
	t.Helper()
	start := time.Now()
	var mu sync.Mutex
	winner, err = Race(t.Context(), len(lanes), stagger, func(ctx context.Context, host int) (int, error) {
		mu.Lock()
		turns = append(turns, fmt.Sprint(host, " ", time.Since(start)))
		mu.Unlock()
		l := lanes[host]
		if l.hangs {
			<-ctx.Done()
			if l.late {
				return host, nil
			}
			return 0, ctx.Err()
		}
		select {
		case <-time.After(l.after):
			return host, l.err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}, func(host int) { discarded = append(discarded, host) })
	return winner, turns, discarded, err
}

func TestOnlyTheFirstHostHasATurnWhileItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		winner, turns, _, err := racing(t, []lane{{after: stagger / 2}, {}, {}})
		require.NoError(t, err)
		require.Equal(t, 0, winner)
		require.Equal(t, []string{"0 0s"}, turns)
	})
}

func TestAHostThatFailsHandsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		winner, turns, _, err := racing(t, []lane{{after: time.Millisecond, err: errAway}, {after: time.Millisecond, err: errAway}, {after: time.Millisecond}})
		require.NoError(t, err)
		require.Equal(t, 2, winner)
		require.Equal(t, []string{"0 0s", "1 1ms", "2 2ms"}, turns)
	})
}

func TestAHostThatIsSilentCostsTheStagger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		winner, turns, _, err := racing(t, []lane{{hangs: true}, {hangs: true}, {after: time.Millisecond}})
		require.NoError(t, err)
		require.Equal(t, 2, winner)
		require.Equal(t, []string{"0 0s", "1 200ms", "2 400ms"}, turns)
		require.Equal(t, 2*stagger+time.Millisecond, time.Since(start))
	})
}

// TestASlowHostIsStillGoodForASuccess: a later turn does not end an earlier one.
func TestASlowHostIsStillGoodForASuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		winner, _, _, err := racing(t, []lane{{after: stagger + 50*time.Millisecond}, {after: time.Millisecond, err: errAway}})
		require.NoError(t, err)
		require.Equal(t, 0, winner)
	})
}

func TestASecondSuccessIsDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		winner, _, discarded, err := racing(t, []lane{{hangs: true, late: true}, {after: time.Millisecond}})
		require.NoError(t, err)
		require.Equal(t, 1, winner)
		require.Equal(t, []int{0}, discarded)
	})
}

func TestWhereAllHostsFailTheErrorsAreJoinedInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := errors.New("first"), errors.New("second")
		_, turns, _, err := racing(t, []lane{{after: stagger * 2, err: first}, {after: time.Millisecond, err: second}})
		require.EqualError(t, err, "first\nsecond")
		require.ErrorIs(t, err, first)
		require.ErrorIs(t, err, second)
		require.True(t, slices.Equal(turns, []string{"0 0s", "1 200ms"}))
		_, _, _, err = racing(t, []lane{{err: first}})
		require.Equal(t, first, err, "of one host it is as it is")
	})
}

func TestARaceEndsWithItsContextAndLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), stagger/2)
		defer cancel()
		turns := 0
		_, err := Race(ctx, 3, stagger, func(ctx context.Context, _ int) (int, error) {
			turns++
			<-ctx.Done()
			return 0, ctx.Err()
		}, func(int) {})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, turns)
	})
}

func TestAPanicOfAnAttemptGoesOnInTheCallerAndLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.PanicsWithValue(t, "boom", func() {
			_, _ = Race(t.Context(), 2, stagger, func(ctx context.Context, host int) (int, error) {
				if host == 1 {
					panic("boom")
				}
				<-ctx.Done()
				return 0, ctx.Err()
			}, func(int) {})
		})
	})
}
