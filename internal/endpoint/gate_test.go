package endpoint

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

func TestAnOpenGateLetsEveryCallerThroughAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, 10*time.Millisecond)
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() { require.NoError(t, s.do(t.Context())) })
		}
		calls.Wait()
		require.Equal(t, 10*time.Millisecond, s.now())
		requireIdle(t, s.gate.Gate)
	})
}

func TestOneCallerAtATimeTriesWhileTheServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, 7*time.Millisecond, [2]time.Duration{0, 3 * time.Second})
		var calls sync.WaitGroup
		for i := range 50 {
			calls.Go(func() {
				time.Sleep(time.Duration(i) * 20 * time.Millisecond)
				require.NoError(t, s.do(within(t, time.Minute)))
			})
		}
		calls.Wait()
		require.False(t, s.overlap, "two attempts at once while the gate was down")
		probes := 0
		for _, e := range s.entries() {
			if e.at < 3*time.Second {
				probes++
			}
		}
		require.LessOrEqual(t, probes, 3000/107+2)
		requireIdle(t, s.gate.Gate)
	})
}

func TestTheProberWaitsAsTheBackoffSaysFromOneFailureToTheNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		var numbers []int
		s := newServer(setup{
			Backoff: policy.Must(policy.Exponential(10*time.Millisecond, 80*time.Millisecond, 2, policy.NoJitter)),
			OnWait: func(_ context.Context, a policy.Attempt, wait time.Duration) {
				require.ErrorIs(t, a.Err, errAway)
				waits, numbers = append(waits, wait), append(numbers, a.Number)
			},
		}, time.Millisecond, [2]time.Duration{0, 300 * time.Millisecond})
		require.NoError(t, s.do(t.Context()))
		want := []time.Duration{10, 20, 40, 80, 80, 80}
		for i := range want {
			want[i] *= time.Millisecond
		}
		require.Equal(t, want, waits)
		require.Equal(t, []int{1, 2, 3, 4, 5, 6}, numbers)
		at := time.Duration(0)
		for i, e := range s.entries() {
			require.Equal(t, at, e.at)
			if i < len(want) {
				at += time.Millisecond + want[i]
			}
		}
	})
}

func TestWaitersAreServedInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, 10*time.Millisecond, [2]time.Duration{0, time.Second})
		var calls sync.WaitGroup
		for i := range 20 {
			calls.Go(func() {
				time.Sleep(time.Duration(i) * 12 * time.Millisecond)
				require.NoError(t, s.do(named(t.Context(), fmt.Sprintf("%02d", i))))
			})
		}
		calls.Wait()
		served := make(map[string]time.Duration) // its last attempt is the one that worked
		for _, e := range s.entries() {
			served[e.name] = e.at
		}
		for i := range 19 {
			require.LessOrEqual(t, served[fmt.Sprintf("%02d", i)], served[fmt.Sprintf("%02d", i+1)])
		}
	})
}

func TestTheNumberLetInGrowsEightfoldWithEachRoundTripAfterRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const back = time.Second
		s := newServer(setup{}, 10*time.Millisecond, [2]time.Duration{0, back})
		var calls sync.WaitGroup
		calls.Go(func() { require.NoError(t, s.do(t.Context())) })
		time.Sleep(20 * time.Millisecond)
		for range 80 {
			calls.Go(func() { require.NoError(t, s.do(t.Context())) })
		}
		calls.Wait()
		counts := make(map[time.Duration]int)
		for _, e := range s.entries() {
			if e.at+s.latency >= back {
				counts[e.at]++
			}
		}
		var rounds []int
		for _, at := range sortedKeys(counts) {
			rounds = append(rounds, counts[at])
		}
		require.Equal(t, []int{1, 8, 64, 8}, rounds)
	})
}

func sortedKeys(m map[time.Duration]int) []time.Duration {
	var keys []time.Duration
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func TestANewcomerWaitsWhileTheServerIsAwayAndGoesStraightThroughOnceItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, time.Millisecond, [2]time.Duration{0, time.Second})
		var calls sync.WaitGroup
		calls.Go(func() { require.NoError(t, s.do(t.Context())) })
		synctest.Wait()
		time.Sleep(200 * time.Millisecond)
		err := s.do(named(within(t, 100*time.Millisecond), "early"))
		require.ErrorIs(t, err, errAway)
		require.Equal(t, 300*time.Millisecond, s.now())
		calls.Wait()
		before := s.now()
		require.NoError(t, s.do(named(t.Context(), "late")))
		require.Equal(t, before+time.Millisecond, s.now())
		for _, e := range s.entries() {
			require.NotEqual(t, "early", e.name)
		}
	})
}

func TestAfterAQuietOutageTheFirstCallerTriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, time.Millisecond, [2]time.Duration{0, time.Second})
		require.Error(t, s.do(within(t, 50*time.Millisecond)))
		time.Sleep(10 * time.Second) // nobody asks
		before := s.now()
		require.NoError(t, s.do(within(t, 5*time.Millisecond)))
		require.Equal(t, before+time.Millisecond, s.now())
		_, down := s.gate.Down()
		require.False(t, down)
	})
}

func TestHooksRunOncePerOutageAndUnderNoLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *server
		var downs int
		var afters []time.Duration
		var attempts []int
		s = newServer(setup{
			OnDown: func(err error) {
				require.ErrorIs(t, err, errAway)
				_, down := s.gate.Down()
				require.True(t, down)
				downs++
			},
			OnUp: func(after time.Duration, n int) {
				_, down := s.gate.Down()
				require.False(t, down)
				afters, attempts = append(afters, after), append(attempts, n)
			},
			OnWait: func(context.Context, policy.Attempt, time.Duration) { s.gate.Down() },
		}, 10*time.Millisecond, [2]time.Duration{0, time.Second}, [2]time.Duration{5 * time.Second, 7 * time.Second})
		for _, at := range []time.Duration{0, 5 * time.Second} {
			time.Sleep(at - s.now())
			var calls sync.WaitGroup
			for range 5 {
				calls.Go(func() { require.NoError(t, s.do(t.Context())) })
			}
			calls.Wait()
		}
		require.Equal(t, 2, downs)
		// The outage begins for the gate with the first failure, at 10 ms; probes follow every 110 ms.
		require.Equal(t, []time.Duration{990 * time.Millisecond, 2090 * time.Millisecond}, afters)
		require.Equal(t, []int{14, 24}, attempts)
	})
}

func TestDownTellsSinceWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, time.Millisecond, [2]time.Duration{0, time.Second})
		_, down := s.gate.Down()
		require.False(t, down)
		require.Error(t, s.do(within(t, 500*time.Millisecond)))
		since, down := s.gate.Down()
		require.True(t, down)
		require.Equal(t, s.start.Add(time.Millisecond), since)
	})
}

func TestTheNumberOfAttemptsOfAnOutageStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, 0, [2]time.Duration{0, 10 * time.Second}, [2]time.Duration{20 * time.Second, time.Minute})
		require.NoError(t, s.do(t.Context()))
		time.Sleep(20*time.Second - s.now())
		var calls sync.WaitGroup
		calls.Go(func() { require.Error(t, s.do(within(t, 10*time.Second))) })
		e := exhausted(t, s.do(within(t, time.Second)))
		require.GreaterOrEqual(t, e.Attempts, 9, "one attempt every 100 ms for one second")
		calls.Wait()
	})
}
