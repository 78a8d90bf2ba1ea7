package contention

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The place at which transactions conflict in these tests, and one that says nothing.
const (
	account = 1
	tenant  = 2
)

func at(place, argument uint64) Mark { return Mark{Place: place, Value: 1000*place + argument} }

// taught returns a control whose transactions of the name "transfer" are contended, and known to conflict where they have the same account.
func taught(t *testing.T) *Control {
	t.Helper()
	c := New(Options{})
	contend(t, c, "transfer")
	l := c.named("transfer", false)
	l.prints.places[account] = &place{telling: true, together: share{all: 60, conflicts: 30, times: 30}, apart: share{all: 60}}
	l.prints.taught.Store(learnFor + 1)
	l.climb.start(toldAtOnce)
	return c
}

func TestAStatementWithTheArgumentOfAnotherAttemptWaitsForItsEnd(t *testing.T) {
	for _, end := range []Outcome{Committed, Conflict, Deadlock, Other} {
		synctest.Test(t, func(t *testing.T) {
			c := taught(t)
			one, other := enter(t, c, "transfer"), enter(t, c, "transfer")
			require.True(t, one.Footprint().Touch([]Mark{at(account, 3), at(tenant, 1)}))
			require.True(t, other.Footprint().Touch([]Mark{at(account, 4), at(tenant, 1)}), "the same tenant means nothing")
			require.False(t, other.Footprint().Touch([]Mark{at(account, 3)}))
			var waited time.Duration
			done := make(chan struct{})
			go func() {
				waited, _ = other.Footprint().Await(t.Context())
				close(done)
			}()
			time.Sleep(7 * time.Millisecond)
			require.Equal(t, 1, c.State().Waiting)
			one.Leave(end)
			<-done
			require.Equal(t, 7*time.Millisecond, waited)
			require.Zero(t, c.State().Waiting)
			require.True(t, other.Footprint().Touch([]Mark{at(account, 3)}), "its own")
			other.Leave(Committed)
		})
	}
}

func TestOfThoseWhoWouldWaitInACircleTheLastOneDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := taught(t)
		calls := make([]*Call, 3)
		for i := range calls {
			calls[i] = enter(t, c, "transfer")
			require.True(t, calls[i].Footprint().Touch([]Mark{at(account, uint64(i))}))
		}
		var order []int
		var wg sync.WaitGroup
		for i := range 2 {
			f := calls[i].Footprint()
			require.False(t, f.Touch([]Mark{at(account, uint64(i+1))}))
			wg.Go(func() {
				_, err := f.Await(t.Context())
				require.NoError(t, err)
				order = append(order, i)
				calls[i].Leave(Committed)
			})
			synctest.Wait()
		}
		f := calls[2].Footprint()
		require.False(t, f.Touch([]Mark{at(account, 0)}))
		waited, err := f.Await(t.Context())
		require.ErrorIs(t, err, ErrCircle)
		require.Zero(t, waited)
		calls[2].Leave(Conflict)
		wg.Wait()
		require.Equal(t, []int{1, 0}, order)
	})
}

func TestATransactionThatHasConflictedHasAllItsMarksBeforeItRunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := taught(t)
		unlucky, other := enter(t, c, "transfer"), enter(t, c, "transfer")
		require.True(t, other.Footprint().Touch([]Mark{at(account, 2)}))
		require.True(t, unlucky.Footprint().Touch([]Mark{at(account, 1), at(tenant, 1)}))
		require.False(t, unlucky.Footprint().Touch([]Mark{at(account, 2)}), "it does not wait for that")
		unlucky.Leave(Conflict)
		_, err := unlucky.Enter(t.Context())
		require.NoError(t, err)
		had := make(chan struct{})
		require.False(t, unlucky.Footprint().Touch([]Mark{at(tenant, 1)}), "whatever is its first statement")
		go func() {
			_, _ = unlucky.Footprint().Await(t.Context())
			close(had)
		}()
		synctest.Wait()
		third := enter(t, c, "transfer")
		require.True(t, third.Footprint().Touch([]Mark{at(account, 1)}), "who waits for all holds nothing")
		third.Leave(Committed)
		other.Leave(Committed)
		<-had
		require.True(t, unlucky.Footprint().Touch([]Mark{at(account, 2)}))
		fourth := enter(t, c, "transfer")
		require.False(t, fourth.Footprint().Touch([]Mark{at(account, 1)}), "it has touched neither yet, and has both")
		fourth.Leave(Other)
		unlucky.Leave(Committed)
	})
}

func TestAMarkIsTakenFromWhoHasItForMuchLongerThanAttemptsTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := taught(t)
		hangs := enter(t, c, "transfer")
		require.True(t, hangs.Footprint().Touch([]Mark{at(account, 1)}))
		for range 100 { // by then it is known how long attempts take
			short := enter(t, c, "transfer")
			time.Sleep(2 * time.Millisecond)
			short.Leave(Committed)
			hangs.Leave(Other)
			_, err := hangs.Enter(t.Context())
			require.NoError(t, err)
			require.True(t, hangs.Footprint().Touch([]Mark{at(account, 1)}))
		}
		call := enter(t, c, "transfer")
		require.False(t, call.Footprint().Touch([]Mark{at(account, 1)}))
		waited, err := call.Footprint().Await(t.Context())
		require.NoError(t, err)
		require.Equal(t, enoughTimes*2*time.Millisecond, waited)
		call.Leave(Committed)
		hangs.Leave(Committed)
	})
}

func TestAWaitForAMarkEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := taught(t)
		one, other := enter(t, c, "transfer"), enter(t, c, "transfer")
		require.True(t, one.Footprint().Touch([]Mark{at(account, 1)}))
		require.False(t, other.Footprint().Touch([]Mark{at(account, 1)}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		waited, err := other.Footprint().Await(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Millisecond, waited)
		other.Leave(Other)
		one.Leave(Committed)
		enter(t, c, "transfer").Leave(Committed)
	})
}

func TestWithoutContentionThereIsNoFootprint(t *testing.T) {
	c := New(Options{})
	call := enter(t, c, "transfer")
	require.Nil(t, call.Footprint())
	require.True(t, call.Footprint().Touch([]Mark{at(account, 1)}))
	call.Leave(Committed)
	call = enter(t, taught(t), "transfer", "a key")
	require.Nil(t, call.Footprint(), "keys say what there is to know")
}

func TestAnAttemptThatTouchedSomethingBeforeThatWasTellingWaitsForNothing(t *testing.T) {
	c := taught(t)
	l := c.named("transfer", false)
	l.prints.places[account].telling = false
	early, late := enter(t, c, "transfer"), enter(t, c, "transfer")
	require.True(t, early.Footprint().Touch([]Mark{at(account, 1)}))
	l.prints.places[account].telling = true
	require.True(t, late.Footprint().Touch([]Mark{at(account, 2)}))
	require.True(t, early.Footprint().Touch([]Mark{at(account, 2)}), "others may wait for it at the server")
	require.Empty(t, early.Footprint().holds.held)
	early.Leave(Committed)
	late.Leave(Committed)
}

func TestWhoDoesNotWaitHoldsNothingThatOthersWouldWaitFor(t *testing.T) {
	c := taught(t)
	one, other := enter(t, c, "transfer"), enter(t, c, "transfer")
	require.True(t, one.Footprint().Touch([]Mark{at(account, 1)}))
	require.True(t, other.Footprint().Touch([]Mark{at(account, 2)}))
	require.False(t, other.Footprint().Touch([]Mark{at(account, 1)}))
	other.Footprint().Pass()
	require.True(t, one.Footprint().Touch([]Mark{at(account, 2)}))
	other.Leave(Committed)
	one.Leave(Committed)
}

// conflicting runs pairs of attempts with the same account, of which the second one ends as it is said.
func conflicting(t *testing.T, c *Control, pairs int, o Outcome) {
	t.Helper()
	for range pairs {
		one, other := enter(t, c, "transfer"), enter(t, c, "transfer")
		one.Footprint().Touch([]Mark{at(account, 1)})
		if f := other.Footprint(); f.Touch([]Mark{at(account, 1)}) {
			one.Leave(Committed)
			other.Leave(o)
		} else {
			one.Leave(Committed)
			f.waited = true // or it would have
			other.Leave(Committed)
		}
	}
}

func TestAPlaceThatHasBecomeHarmlessIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := taught(t)
		p := c.named("transfer", false).prints.places[account]
		conflicting(t, c, 64*explore, Conflict)
		require.True(t, p.telling)
		require.Equal(t, 62, p.together.all, "two that meet have looked, and found that nothing has changed")
		time.Sleep(afterConflict)
		conflicting(t, c, 2000*explore, Committed)
		require.False(t, p.telling)
	})
}

func TestAfterADeadlockNobodyTriesAgainForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := taught(t)
		p := c.named("transfer", false).prints.places[account]
		conflicting(t, c, explore, Deadlock)
		before := p.together.all
		time.Sleep(afterDeadlock - time.Second)
		conflicting(t, c, 2*explore, Deadlock)
		require.Equal(t, before, p.together.all)
		time.Sleep(2 * time.Second)
		conflicting(t, c, 2*explore, Deadlock)
		require.Greater(t, p.together.all, before)
	})
}

func TestPlacesAreBounded(t *testing.T) {
	c := taught(t)
	for i := range uint64(3 * maxPlaces) {
		call := enter(t, c, "transfer")
		call.Footprint().Touch([]Mark{{Place: 100 + i, Value: i}})
		call.Leave(Committed)
	}
	prints := c.named("transfer", false).prints
	require.LessOrEqual(t, len(prints.places), maxPlaces)
	require.True(t, prints.places[account].telling, "what tells something is kept")
	call := enter(t, c, "transfer")
	for i := range uint64(3 * maxMarks) {
		call.Footprint().Touch([]Mark{at(account, i)})
	}
	require.Len(t, call.Footprint().touched, maxMarks)
	call.Leave(Committed)
	require.Empty(t, prints.queues)
}

// TestNothingIsLeftOfFootprints lets many attempts touch accounts at random, in any order, give up, and be run again.
func TestNothingIsLeftOfFootprints(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			c := taught(t)
			var wg sync.WaitGroup
			for w := range 20 {
				r := rand.New(rand.NewPCG(seed, uint64(w)))
				wg.Go(func() {
					for range 30 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(20))*time.Millisecond)
						call := c.Start("transfer", nil)
						for range 1 + r.IntN(3) {
							if _, err := call.Enter(ctx); err != nil {
								break
							}
							call.Leave(wander(ctx, r, call.Footprint()))
						}
						cancel()
					}
				})
			}
			wg.Wait()
			l := c.named("transfer", false)
			require.Empty(t, l.prints.queues)
			require.Zero(t, l.prints.waiting)
			for _, p := range l.prints.places {
				require.Empty(t, p.users)
			}
			require.Zero(t, l.running)
			require.Empty(t, l.queue)
		})
	}
}

// wander touches accounts.
func wander(ctx context.Context, r *rand.Rand, f *Footprint) Outcome {
	for range 1 + r.IntN(4) {
		var marks []Mark
		for range 1 + r.IntN(2) {
			marks = append(marks, at(account, r.Uint64N(6)))
		}
		if !f.Touch(marks) {
			switch r.IntN(4) {
			case 0:
				f.Pass()
			default:
				if _, err := f.Await(ctx); err != nil {
					return []Outcome{Other, Conflict}[r.IntN(2)]
				}
			}
		}
		time.Sleep(time.Duration(r.IntN(2)) * time.Millisecond / 2)
	}
	return []Outcome{Committed, Committed, Conflict, Deadlock, Other}[r.IntN(5)]
}

func TestADeadlockWithSomebodyElsewhereLetsOneRunAtATime(t *testing.T) {
	c := taught(t)
	l := c.named("transfer", false)
	alone, free := enter(t, c, "transfer"), enter(t, c, "transfer")
	require.True(t, free.Footprint().Touch([]Mark{at(tenant, 1)}))
	free.Leave(Deadlock)
	require.Equal(t, toldAtOnce, l.climb.limit, "it says nothing of where the other one is")
	require.True(t, alone.Footprint().Touch([]Mark{at(account, 1), at(tenant, 1)}))
	alone.Leave(Deadlock)
	require.Equal(t, 1, l.climb.limit)
}
