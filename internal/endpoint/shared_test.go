package endpoint

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHandlesOfOneServerShareAGate(t *testing.T) {
	o := Options{Backoff: every(time.Second)}
	g := Shared("one", o)
	require.Same(t, g, Shared("one", o))
	require.NotSame(t, g, Shared("two", o))
	runtime.KeepAlive(g)
}

func TestAGateIsForgottenWithTheLastHandle(t *testing.T) {
	Shared("forgotten", Options{Backoff: every(time.Second)})
	known := func() bool {
		gates.mu.Lock()
		defer gates.mu.Unlock()
		_, ok := gates.open["forgotten"]
		return ok
	}
	for known() {
		runtime.GC()
		runtime.Gosched()
	}
}

func TestAllObserversAreToldUntilTheyStop(t *testing.T) {
	g := New(Options{Backoff: every(time.Millisecond)})
	var told [2]int
	stop := g.Observe(Observer{Down: func(error) { told[0]++ }, Up: func(time.Duration, int) { told[0]++ }})
	defer g.Observe(Observer{Down: func(error) { told[1]++ }, Up: func(time.Duration, int) { told[1]++ }})()
	outage := func() {
		first := true
		require.NoError(t, g.Do(t.Context(), Call{Healable: away}, func(context.Context) error {
			if first {
				first = false
				return errAway
			}
			return nil
		}))
	}
	outage()
	stop()
	outage()
	require.Equal(t, [2]int{2, 4}, told)
}

func TestACallThatIsToTryOnceTriesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Backoff: every(time.Second)})
		once := Call{Healable: away, Once: true}
		attempts := 0
		fail := func(context.Context) error { attempts++; return errAway }
		start := time.Now()
		require.Equal(t, errAway, g.Do(t.Context(), once, fail), "its own error, as it is")
		require.Equal(t, errAway, g.Do(t.Context(), once, fail), "nobody else looks for the server")
		require.Equal(t, 2, attempts)

		ctx, cancel := context.WithCancel(t.Context())
		prober := make(chan error, 1)
		go func() { prober <- g.Do(ctx, Call{Healable: away}, fail) }()
		synctest.Wait()
		before := attempts
		err := g.Do(t.Context(), once, fail)
		require.ErrorIs(t, err, errAway, "what was last seen")
		require.Equal(t, before, attempts, "somebody else looks for the server")
		require.Equal(t, start, time.Now(), "without a wait")
		cancel()
		require.Error(t, <-prober)

		require.NoError(t, g.Do(t.Context(), once, func(context.Context) error { return nil }))
		_, down := g.Down()
		require.False(t, down, "its success is everybody's")
		errPassword := errors.New("password")
		require.Equal(t, errPassword, g.Do(t.Context(), once, func(context.Context) error { return errPassword }))
	})
}
