package endpoint

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// failing returns attempts that fail until n of them have been made.
func failing(n int) func(context.Context) error {
	return func(context.Context) error {
		if n--; n >= 0 {
			return errAway
		}
		return nil
	}
}

// TestAnOutageEndsForItsObserversWhereNobodyLookedAnyMore: the server may have been back since.
func TestAnOutageEndsForItsObserversWhereNobodyLookedAnyMore(t *testing.T) {
	for name, tt := range map[string]struct {
		pause time.Duration
		known bool
		after time.Duration // that is told
	}{
		"looked for again at once":   {pause: unattended / 2, known: true, after: 5*time.Second + unattended/2},
		"not looked for for an hour": {pause: time.Hour, known: false, after: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told time.Duration
				g := New(Options{Backoff: every(time.Second)})
				defer g.Observe(Observer{Up: func(after time.Duration, _ int) { told = after }})()
				require.Error(t, g.Do(t.Context(), Call{Healable: away, Limit: 5*time.Second + time.Millisecond}, failing(1000)))
				away0, known := g.Away()
				require.True(t, away0)
				require.True(t, known)
				time.Sleep(tt.pause)
				away0, known = g.Away()
				require.True(t, away0)
				require.Equal(t, tt.known, known)
				require.NoError(t, g.Do(t.Context(), Call{Healable: away}, failing(0)))
				require.InDelta(t, tt.after, told, float64(time.Second))
				away0, known = g.Away()
				require.False(t, away0)
				require.True(t, known)
			})
		})
	}
}

// TestAServerThatIsStillAwayWhenSomebodyLooksAgainHasBeenAway: all the time.
func TestAServerThatIsStillAwayWhenSomebodyLooksAgainHasBeenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told time.Duration
		g := New(Options{Backoff: every(time.Second)})
		defer g.Observe(Observer{Up: func(after time.Duration, _ int) { told = after }})()
		require.Error(t, g.Do(t.Context(), Call{Healable: away, Limit: time.Second}, failing(1000)))
		time.Sleep(time.Hour)
		require.NoError(t, g.Do(t.Context(), Call{Healable: away}, failing(3)))
		require.Greater(t, told, time.Hour)
	})
}

func TestWhoBeginsToObserveDuringAnOutageIsToldOfItByTheNextFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Backoff: every(time.Second)})
		require.Error(t, g.Do(t.Context(), Call{Healable: away, Limit: time.Second}, failing(1000)))
		var list []string
		observer := func(name string) Observer {
			return Observer{
				Down: func(error) { list = append(list, name+" down") },
				Up:   func(time.Duration, int) { list = append(list, name+" up") },
			}
		}
		defer g.Observe(observer("first"))()
		require.Error(t, g.Do(t.Context(), Call{Healable: away, Limit: 3 * time.Second}, failing(1000)))
		defer g.Observe(observer("second"))()
		require.NoError(t, g.Do(t.Context(), Call{Healable: away}, failing(0)))
		require.Equal(t, []string{"first down", "first up"}, list, "who was not told that it is away is not told that it is back")
		require.NoError(t, g.Do(t.Context(), Call{Healable: away}, failing(1)))
		require.Equal(t, []string{"first down", "first up", "first down", "second down", "first up", "second up"}, list)
	})
}

func TestAPanicOfOneObserverLeavesTheOthersTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Backoff: every(time.Second)})
		told := 0
		defer g.Observe(Observer{Down: func(error) { panic("boom") }, Up: func(time.Duration, int) { panic("boom") }})()
		defer g.Observe(Observer{Down: func(error) { told++ }, Up: func(time.Duration, int) { told++ }})()
		require.PanicsWithValue(t, "boom", func() { _ = g.Do(t.Context(), Call{Healable: away}, failing(1)) })
		require.Equal(t, 1, told)
		require.PanicsWithValue(t, "boom", func() { _ = g.Do(t.Context(), Call{Healable: away}, failing(0)) })
		require.Equal(t, 2, told)
	})
}
