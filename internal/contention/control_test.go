package contention

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// attempt makes one attempt of a transaction of its own.
func attempt(t *testing.T, c *Control, name string, keys []string, o Outcome) {
	t.Helper()
	call := c.Start(name, keys)
	waited, err := call.Enter(t.Context())
	require.NoError(t, err)
	require.Zero(t, waited)
	call.Leave(o)
}

// contend makes a name, or the keys, contended.
func contend(t *testing.T, c *Control, name string, keys ...string) {
	t.Helper()
	for range 1 + watchMax {
		attempt(t, c, name, keys, Conflict)
	}
	require.Equal(t, 1, c.State().Contended)
}

func enter(t *testing.T, c *Control, name string, keys ...string) *Call {
	t.Helper()
	call := c.Start(name, keys)
	_, err := call.Enter(t.Context())
	require.NoError(t, err)
	return &call
}

func TestWhileThereAreNoConflictsNothingIsCountedAndNothingAllocated(t *testing.T) {
	c := New(Options{})
	keys := []string{"a", "b"}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		call := c.Start("transfer", keys)
		if _, err := call.Enter(t.Context()); err != nil {
			t.Error(err)
		}
		call.Leave(Committed)
	}))
	require.Zero(t, c.seq.Load())
	require.Nil(t, c.names.Load())
	require.Zero(t, c.State())
}

func TestWithoutAControlNothingHappens(t *testing.T) {
	var none *Control
	call := none.Start("transfer", nil)
	_, err := call.Enter(t.Context())
	require.NoError(t, err)
	call.Leave(Conflict)
	require.False(t, call.Queued())
	require.Zero(t, call.Duration())
	require.Negative(t, call.Escalated())
	require.Zero(t, none.State())
}

func TestRareConflictsAreWatchedAndForgotten(t *testing.T) {
	for name, keys := range map[string][]string{"name": nil, "keys": {"a"}} {
		t.Run(name, func(t *testing.T) {
			c := New(Options{})
			for range 20 {
				attempt(t, c, "transfer", keys, Conflict)
				require.EqualValues(t, 1, c.active.Load())
				for i := range watchFor {
					attempt(t, c, "transfer", keys, map[bool]Outcome{true: Conflict, false: Committed}[i == 7])
				}
				require.Zero(t, c.active.Load())
			}
		})
	}
}

func TestTwoDeadlocksAreContention(t *testing.T) {
	for name, keys := range map[string][]string{"name": nil, "keys": {"a"}} {
		t.Run(name, func(t *testing.T) {
			c := New(Options{})
			calls := []*Call{enter(t, c, "", keys...), enter(t, c, "", keys...)} // before anything is known
			calls[0].Leave(Deadlock)
			require.Zero(t, c.State())
			calls[1].Leave(Deadlock)
			require.Equal(t, 1, c.State().Contended)
		})
	}
}

func TestOtherErrorsAreNotConflicts(t *testing.T) {
	c := New(Options{})
	for range 100 {
		attempt(t, c, "transfer", nil, Other)
	}
	require.Zero(t, c.active.Load())
	attempt(t, c, "transfer", nil, Conflict)
	for range 100 {
		attempt(t, c, "transfer", nil, Other)
	}
	require.EqualValues(t, 1, c.active.Load(), "they say nothing of contention, and nothing against it")
}

func TestOnlyTheNameThatConflictsIsAdmittedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		contend(t, c, "transfer")
		one := enter(t, c, "transfer")
		other := enter(t, c, "report") // does not wait
		entered := make(chan struct{})
		var two *Call
		go func() {
			two = enter(t, c, "transfer")
			close(entered)
		}()
		synctest.Wait()
		require.Equal(t, State{Contended: 1, Waiting: 1, Limit: 1}, c.State())
		other.Leave(Committed)
		one.Leave(Committed)
		<-entered
		two.Leave(Committed)
		require.Equal(t, State{Contended: 1, Limit: 1}, c.State())
	})
}

func TestThoseWhoWaitAreAdmittedInTheOrderOfTheirArrivalAndAConflictDoesNotLoseItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		contend(t, c, "transfer")
		first := enter(t, c, "transfer")
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				call := enter(t, c, "transfer")
				order = append(order, i)
				call.Leave(Committed)
			})
			synctest.Wait()
		}
		first.Leave(Conflict)
		_, err := first.Enter(t.Context())
		require.NoError(t, err)
		require.Less(t, len(order), 2, "it is older than all of them")
		first.Leave(Committed)
		wg.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4}, order)
	})
}

func TestAfterSomeConflictsAnAttemptHasAllToItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{Escalate: 2})
		contend(t, c, "transfer")
		l := c.named("transfer", false)
		l.climb.limit = 4
		unlucky := enter(t, c, "transfer")
		unlucky.Leave(Conflict)
		require.True(t, unlucky.Queued())
		_, err := unlucky.Enter(t.Context())
		require.NoError(t, err)
		unlucky.Leave(Conflict)
		require.False(t, unlucky.Queued(), "who conflicts so often has to do with others, too")
		require.Zero(t, unlucky.Escalated())
		l.climb.limit = 4

		running := []*Call{enter(t, c, "transfer"), enter(t, c, "transfer")}
		admitted, after := make(chan struct{}), make(chan struct{})
		go func() {
			_, _ = unlucky.Enter(t.Context())
			close(admitted)
		}()
		synctest.Wait()
		go func() {
			enter(t, c, "transfer").Leave(Committed)
			close(after)
		}()
		synctest.Wait()
		require.Equal(t, 2, c.State().Waiting, "nobody passes by, although there is room")
		running[0].Leave(Committed)
		synctest.Wait()
		require.Equal(t, 2, c.State().Waiting)
		running[1].Leave(Committed)
		<-admitted
		synctest.Wait()
		require.Equal(t, 1, c.State().Waiting)
		unlucky.Leave(Committed)
		<-after
	})
}

func TestWhoIsUnluckyInTheCalmMakesTheOthersWaitForIt(t *testing.T) {
	c := New(Options{Escalate: 2})
	call := enter(t, c, "transfer", "a")
	call.Leave(Conflict)
	_, _ = call.Enter(t.Context())
	call.Leave(Conflict)
	_, _ = call.Enter(t.Context())
	require.Equal(t, contended, c.keys.phase())
	require.NotNil(t, call.holds)
	call.Leave(Committed)
}

func TestAWaitEndsWithItsContextOrItsTime(t *testing.T) {
	for name, keys := range map[string][]string{"name": nil, "keys": {"a"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(Options{})
				contend(t, c, "transfer", keys...)
				one := enter(t, c, "transfer", keys...)
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				call := c.Start("transfer", keys)
				waited, err := call.Enter(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, 100*time.Millisecond, waited)

				call = c.Start("transfer", keys)
				call.Until = time.Now().Add(50 * time.Millisecond)
				waited, err = call.Enter(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded, "the context has ended before")
				require.Zero(t, waited)
				waited, err = call.Enter(t.Context())
				require.ErrorIs(t, err, ErrLate)
				require.Equal(t, 50*time.Millisecond, waited)

				one.Leave(Committed)
				enter(t, c, "transfer", keys...).Leave(Committed)
				require.Zero(t, c.State().Waiting)
			})
		})
	}
}

func TestNobodyWaitsForOneWhoHangs(t *testing.T) {
	for name, keys := range map[string][]string{"name": nil, "keys": {"a", "b"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(Options{})
				contend(t, c, "transfer", keys...)
				hangs := enter(t, c, "transfer", keys...)
				began := time.Now()
				one := enter(t, c, "transfer", keys...)
				require.Equal(t, patience, time.Since(began))
				hangs.Leave(Committed) // as late as it likes
				one.Leave(Committed)
				enter(t, c, "transfer", keys...).Leave(Committed)
				require.Equal(t, patience, time.Since(began))
			})
		})
	}
}

func TestWithoutAttemptsContentionIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		contend(t, c, "transfer")
		time.Sleep(time.Hour)
		attempt(t, c, "transfer", nil, Committed)
		require.Equal(t, 1, c.State().Contended)
		for range watchFor {
			attempt(t, c, "transfer", nil, Committed)
		}
		require.Zero(t, c.State())
	})
}

func TestNamesBeyondABoundShareOneLimit(t *testing.T) {
	c := New(Options{})
	for i := range 3 * maxNames {
		attempt(t, c, strconv.Itoa(i), nil, Conflict)
	}
	require.Len(t, *c.names.Load(), maxNames+1)
	require.Same(t, c.named("", false), c.named("999", true))
	require.NotSame(t, c.named("", false), c.named("7", true))
}

// TestNoWakeUpIsLost lets many callers come, wait, give up and go at random, and asks that the rest all get on, that no key is
// held twice, and that nothing is left.
func TestNoWakeUpIsLost(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			c := New(Options{})
			contend(t, c, "", "x")
			for range 1 + watchMax {
				attempt(t, c, "limited", nil, Conflict)
			}
			c.named("limited", true).climb.limit = 3
			var holders [6]atomic.Int32
			var wg sync.WaitGroup
			for w := range 40 {
				r := rand.New(rand.NewPCG(seed, uint64(w)))
				wg.Go(func() {
					for range 30 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(20))*time.Millisecond)
						var keys []string
						held := map[int]bool{}
						if r.IntN(3) > 0 {
							for range 1 + r.IntN(4) {
								k := r.IntN(len(holders))
								held[k] = true
								keys = append(keys, strconv.Itoa(k))
							}
						}
						call := c.Start("limited", keys)
						for range 1 + r.IntN(3) {
							if _, err := call.Enter(ctx); err != nil {
								break
							}
							for k := range held {
								if holders[k].Add(1) != 1 && c.keys.phase() == contended {
									t.Errorf("key %d is held twice", k)
								}
							}
							time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
							for k := range held {
								holders[k].Add(-1)
							}
							call.Leave([]Outcome{Committed, Committed, Committed, Conflict, Other}[r.IntN(5)])
						}
						cancel()
					}
				})
			}
			wg.Wait()
			require.Empty(t, c.keys.queues)
			require.Zero(t, c.keys.waiting)
			l := c.named("limited", false)
			require.Zero(t, l.running)
			require.Zero(t, l.alone)
			require.Empty(t, l.queue)
		})
	}
}

func TestAClaimIsOvertakenABoundedNumberOfTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		contend(t, c, "", "x")
		a := enter(t, c, "", "a")
		got := make(chan struct{})
		go func() {
			enter(t, c, "", "a", "b").Leave(Committed)
			close(got)
		}()
		synctest.Wait()
		passed := 0
		for {
			call := c.Start("", []string{"b"})
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_, err := call.Enter(ctx)
			cancel()
			if err != nil {
				break
			}
			passed++
			call.Leave(Committed)
			time.Sleep(time.Millisecond)
			require.Less(t, passed, 100)
		}
		require.Equal(t, maxOvertaken, passed, "b is free, and kept for the older claim")
		a.Leave(Committed)
		<-got
	})
}

func TestThoseBehindOneWhoWantsAllToItselfGoOnWhenItGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{Escalate: 1})
		contend(t, c, "transfer")
		running := enter(t, c, "transfer")
		c.named("transfer", false).climb.limit = 2
		unlucky := c.Start("transfer", nil)
		unlucky.seq, unlucky.conflicts = c.seq.Add(1), 1
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = unlucky.Enter(ctx) }()
		synctest.Wait()
		behind := make(chan struct{})
		go func() {
			enter(t, c, "transfer").Leave(Committed)
			close(behind)
		}()
		synctest.Wait()
		require.Equal(t, 2, c.State().Waiting)
		began := time.Now()
		cancel()
		<-behind
		require.Equal(t, began, time.Now())
		running.Leave(Committed)
	})
}

func TestAnAdmissionThatComesTooLateIsPassedOn(t *testing.T) {
	c := New(Options{})
	contend(t, c, "transfer")
	l := c.named("transfer", false)
	one := enter(t, c, "transfer")
	w := &waiter{seq: 100, turn: make(chan struct{})}
	l.queue = append(l.queue, w)
	one.Leave(Committed)
	require.True(t, w.granted)
	l.giveUp(w)
	require.Zero(t, l.running)
}
