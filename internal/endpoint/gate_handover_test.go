package endpoint

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

// handover starts a call that becomes the prober and leaves as leave makes it, with a second call waiting behind it, and
// checks that the second one is served as soon as the server is back.
func handover(t *testing.T, leave func(t *testing.T, s *server)) {
	t.Helper()
	s := newServer(setup{}, time.Millisecond, [2]time.Duration{0, time.Second})
	var calls sync.WaitGroup
	calls.Go(func() { leave(t, s) })
	time.Sleep(5 * time.Millisecond) // its first attempt has failed
	calls.Go(func() {
		require.NoError(t, s.do(named(within(t, time.Minute), "second")))
		require.LessOrEqual(t, s.now(), time.Second+2*101*time.Millisecond)
	})
	calls.Wait()
	require.False(t, s.overlap, "two attempts at once while the gate was down")
	requireIdle(t, s.gate.Gate)
}

func TestProbingPassesOnWhenTheProbersDeadlineEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handover(t, func(t *testing.T, s *server) {
			require.ErrorIs(t, s.do(within(t, 450*time.Millisecond)), errAway)
		})
	})
}

func TestProbingPassesOnWhenTheProberIsCancelledBetweenAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handover(t, func(t *testing.T, s *server) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(450*time.Millisecond, cancel)
			require.ErrorIs(t, s.do(ctx), context.Canceled)
		})
	})
}

func TestProbingPassesOnWhenTheProberIsCancelledInItsAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handover(t, func(t *testing.T, s *server) {
			ctx, cancel := context.WithCancel(t.Context())
			n := 0
			err := s.gate.Do(ctx, 0, func(ctx context.Context) error {
				if n++; n == 3 {
					time.AfterFunc(10*time.Millisecond, cancel)
					<-ctx.Done()
					return ctx.Err()
				}
				return s.attempt(ctx)
			})
			require.ErrorIs(t, err, context.Canceled)
		})
	})
}

func TestProbingPassesOnWhenTheProbersAttemptPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handover(t, func(t *testing.T, s *server) {
			n := 0
			require.PanicsWithValue(t, "attempt", func() {
				_ = s.gate.Do(t.Context(), 0, func(ctx context.Context) error {
					if n++; n == 3 {
						panic("attempt")
					}
					return s.attempt(ctx)
				})
			})
		})
	})
}

func TestProbingPassesOnWhenTheProbersAttemptEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handover(t, func(t *testing.T, s *server) {
			n := 0
			_ = s.gate.Do(t.Context(), 0, func(ctx context.Context) error {
				if n++; n == 3 {
					runtime.Goexit()
				}
				return s.attempt(ctx)
			})
		})
	})
}

func TestProbingPassesOnWhenTheProberGetsAFinalAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handover(t, func(t *testing.T, s *server) {
			n := 0
			err := s.gate.Do(t.Context(), 0, func(ctx context.Context) error {
				if n++; n == 3 {
					return errPassword
				}
				return s.attempt(ctx)
			})
			require.ErrorIs(t, err, errPassword)
		})
	})
}

// hookPanics starts ten calls, one of which meets the panic of a hook, and checks that all others are served.
func hookPanics(t *testing.T, o setup, outages ...[2]time.Duration) {
	t.Helper()
	s := newServer(o, time.Millisecond, outages...)
	var calls sync.WaitGroup
	var panics atomic.Int32
	for range 10 {
		calls.Go(func() {
			defer func() {
				if recover() != nil {
					panics.Add(1)
				}
			}()
			require.NoError(t, s.do(within(t, time.Minute)))
			require.Less(t, s.now(), 2*time.Second)
		})
		time.Sleep(2 * time.Millisecond)
	}
	calls.Wait()
	require.EqualValues(t, 1, panics.Load())
	requireIdle(t, s.gate.Gate)
}

// onCall returns a function that panics when it is called for the n-th time.
func onCall(n int32) func() {
	var calls atomic.Int32
	return func() {
		if calls.Add(1) == n {
			panic("hook")
		}
	}
}

func TestProbingPassesOnWhenAHookPanics(t *testing.T) {
	outage := [2]time.Duration{0, time.Second}
	t.Run("OnWait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hook := onCall(3)
			hookPanics(t, setup{OnWait: func(context.Context, policy.Attempt, time.Duration) { hook() }}, outage)
		})
	})
	t.Run("OnDown of a caller without a turn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hook := onCall(1)
			hookPanics(t, setup{OnDown: func(error) { hook() }}, outage)
		})
	})
	t.Run("OnDown of one who was let in, with others waiting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hook := onCall(2)
			// The prober succeeds at 507 ms and lets others in, who find the second outage at 508 ms.
			hookPanics(t, setup{OnDown: func(error) { hook() }},
				[2]time.Duration{0, 500 * time.Millisecond}, [2]time.Duration{507*time.Millisecond + 1, time.Second})
		})
	})
	t.Run("OnDown of one who was let in, while the others hang", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hook := onCall(2)
			s := newServer(setup{OnDown: func(error) { hook() }}, time.Millisecond, [2]time.Duration{0, 100 * time.Millisecond})
			var calls sync.WaitGroup
			call := func(attempts ...func(context.Context) error) {
				calls.Go(func() {
					defer func() { _ = recover() }()
					_ = s.gate.Do(within(t, 10*time.Second), 0, func(ctx context.Context) error {
						if len(attempts) == 0 {
							return s.attempt(ctx)
						}
						this := attempts[0]
						attempts = attempts[1:]
						return this(ctx)
					})
				})
				time.Sleep(2 * time.Millisecond)
			}
			call()                                               // probes, and lets the next ones in
			call(func(context.Context) error { return errAway }) // shuts the gate; the hook panics
			for range rampUp - 1 {
				call(func(ctx context.Context) error { return pass(ctx, time.Hour) }) // have nothing to tell for long
			}
			var served sync.WaitGroup
			for range 5 {
				served.Go(func() { require.NoError(t, s.do(within(t, 10*time.Second))) })
			}
			served.Wait()
			require.Less(t, s.now(), time.Second)
			calls.Wait()
			requireIdle(t, s.gate.Gate)
		})
	})
	t.Run("OnUp", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hook := onCall(1)
			hookPanics(t, setup{OnUp: func(time.Duration, int) { hook() }}, outage)
		})
	})
}

func TestAWaiterWhoseTimeIsOverWhenItIsWokenPassesItsTurnOn(t *testing.T) {
	for _, tt := range []struct {
		name        string
		turn        turn
		down        bool // whether the server is away again when the waiter finds out
		cancelFirst bool // whether it sees the end of its context, or its turn
	}{
		{"probe, cancelled first", turnProbe, true, true},
		{"probe, woken first", turnProbe, true, false},
		{"probe of an outage that is over, cancelled first", turnProbe, false, true},
		{"probe of an outage that is over, woken first", turnProbe, false, false},
		{"enter, cancelled first", turnEnter, false, true},
		{"enter, woken first", turnEnter, false, false},
		{"enter a server that is away again, cancelled first", turnEnter, true, true},
		{"enter a server that is away again, woken first", turnEnter, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(setup{}, time.Millisecond)
				g := s.gate
				g.failed(errAway, time.Now())
				g.probing = true
				ctx, cancel := context.WithCancel(t.Context())
				var calls sync.WaitGroup
				calls.Go(func() { require.ErrorIs(t, s.do(ctx), context.Canceled) })
				synctest.Wait()
				for range 3 {
					calls.Go(func() { require.NoError(t, s.do(within(t, time.Minute))) })
				}
				synctest.Wait()

				g.mu.Lock()
				g.probing = tt.turn == turnProbe
				if tt.cancelFirst {
					cancel()
				}
				g.wakeLocked(tt.turn)
				cancel()
				g.down.Store(tt.down)
				g.mu.Unlock()
				calls.Wait()
				require.Less(t, s.now(), time.Second)
				requireIdle(t, g.Gate)
			})
		})
	}
}

func TestACancelledAdmittedWaiterDoesNotStallTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(setup{}, time.Millisecond, [2]time.Duration{0, time.Second})
		var calls sync.WaitGroup
		calls.Go(func() { require.NoError(t, s.do(t.Context())) })
		time.Sleep(5 * time.Millisecond)
		for range rampUp { // the first to be let in: all hang, and give up
			calls.Go(func() {
				err := s.gate.Do(within(t, 2*time.Second), 0, func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				})
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
			synctest.Wait()
		}
		for range 20 {
			calls.Go(func() {
				require.NoError(t, s.do(within(t, time.Minute)))
				require.Less(t, s.now(), 2100*time.Millisecond)
			})
		}
		calls.Wait()
		requireIdle(t, s.gate.Gate)
	})
}

// A success of one who was let in earlier opens the gate while a prober's attempt is in flight. When the gate is shut
// again, that prober's late end must not be taken for the end of another's.
func TestALateEndOfAnEarlierProberDoesNotMakeASecondOne(t *testing.T) {
	for _, tt := range []struct {
		name string
		late func(ctx context.Context) error // the prober's attempt, until 3 s
	}{
		{"failure", func(ctx context.Context) error { return errors.Join(pass(ctx, 2700*time.Millisecond), errAway) }},
		{"final answer", func(ctx context.Context) error { return errors.Join(pass(ctx, 2700*time.Millisecond), errPassword) }},
		{"success", func(ctx context.Context) error { return pass(ctx, 2700*time.Millisecond) }},
		{"cancelled", func(ctx context.Context) error { return pass(ctx, time.Hour) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(setup{}, 50*time.Millisecond, [2]time.Duration{2 * time.Second, time.Minute})
				var calls sync.WaitGroup
				// attempts are the results of a call's attempts, one after the other; from then on s answers.
				call := func(ctx context.Context, at time.Duration, attempts ...func(context.Context) error) {
					calls.Go(func() {
						time.Sleep(at)
						_ = s.gate.Do(ctx, 0, func(ctx context.Context) error {
							if len(attempts) == 0 {
								return s.attempt(ctx)
							}
							body := attempts[0]
							attempts = attempts[1:]
							return s.track(ctx, body)
						})
					})
				}
				fails := func(context.Context) error { return errAway }
				works := func(context.Context) error { return nil }
				slow := func(ctx context.Context) error { return pass(ctx, 1900*time.Millisecond) }
				call(t.Context(), 0, fails, works)                                   // opens the gate at 100 ms,
				call(t.Context(), 5*time.Millisecond, slow)                          // lets this one in, until 2 s.
				call(within(t, 3*time.Second), 200*time.Millisecond, fails, tt.late) // Meanwhile this one probes.
				for i := range 10 {                                                  // The server is away again.
					call(within(t, 13*time.Second), time.Duration(2100+10*i)*time.Millisecond)
				}
				time.Sleep(2050 * time.Millisecond)
				_, down := s.gate.Down()
				require.False(t, down, "the case is not the one that is meant")
				calls.Wait()
				require.False(t, s.overlap, "two attempts at once while the gate was down")
				requireIdle(t, s.gate.Gate)
			})
		})
	}
}

// TestAFailureOfAnAttemptThatBeganBeforeTheServerWasFoundBackSaysNothing: it would be taken to be away until somebody connects next.
func TestAFailureOfAnAttemptThatBeganBeforeTheServerWasFoundBackSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		downs := 0
		g := New(Options{Backoff: every(time.Second)})
		defer g.Observe(Observer{Down: func(error) { downs++ }})()
		late := make(chan error)
		var slow sync.WaitGroup
		slow.Go(func() {
			first := true
			require.NoError(t, g.Do(t.Context(), Call{Healable: away}, func(context.Context) error {
				if first {
					first = false
					return <-late
				}
				return nil
			}))
		})
		synctest.Wait()
		attempts := 0
		require.NoError(t, g.Do(t.Context(), Call{Healable: away}, func(context.Context) error {
			if attempts++; attempts < 3 {
				return errAway
			}
			return nil
		}))
		began := time.Now()
		late <- errAway
		slow.Wait()
		require.Zero(t, time.Since(began), "it waited")
		require.Equal(t, 1, downs)
		_, down := g.Down()
		require.False(t, down)
	})
}
