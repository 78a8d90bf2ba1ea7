package contention

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// locked makes an attempt with a key that is contended, and returns whether it was to have locks elsewhere. waited says that
// one had to be waited for.
func locked(t *testing.T, c *Control, o Outcome, waited bool) bool {
	t.Helper()
	call := enter(t, c, "transfer", "a")
	has := call.Elsewhere()
	if waited {
		call.WaitedElsewhere()
	}
	call.Leave(o)
	return has
}

// elsewhereControl is a control of which the keys are contended.
func elsewhereControl(t *testing.T) *Control {
	t.Helper()
	c := New(Options{Elsewhere: true})
	for range watchMax {
		attempt(t, c, "transfer", []string{"a"}, Conflict)
	}
	require.Equal(t, contended, c.keys.phase())
	require.False(t, c.elsewhere.on.Load(), "none of those that conflicted had its key")
	return c
}

func TestAConflictOfAnAttemptThatHadItsKeysMakesTheNextOnesHaveLocksElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := elsewhereControl(t)
		require.False(t, locked(t, c, Committed, false))
		require.False(t, locked(t, c, Conflict, false))
		require.True(t, locked(t, c, Committed, false))

		unkeyed := enter(t, c, "transfer")
		require.False(t, unkeyed.Elsewhere(), "without keys there is nothing to lock")
		unkeyed.Leave(Committed)
	})
}

func TestWhereThereAreNoLocksElsewhereNobodyIsToHaveThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		contend(t, c, "transfer", "a")
		for range 10 {
			require.False(t, locked(t, c, Conflict, true))
		}
	})
}

func TestWhoRunsAloneHasLocksElsewhereInAnyCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, keys := range [][]string{nil, {"a"}} {
			c := New(Options{Escalate: 1, Elsewhere: true})
			call := c.Start("transfer", keys)
			_, err := call.Enter(t.Context())
			require.NoError(t, err)
			require.False(t, call.Elsewhere())
			call.Leave(Conflict)
			_, err = call.Enter(t.Context())
			require.NoError(t, err)
			require.True(t, call.Elsewhere())
			call.Leave(Committed)
		}
	})
}

func TestLocksElsewhereEndWhenNothingSpeaksForThemForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := elsewhereControl(t)
		locked(t, c, Conflict, false)
		for range 3 { // as long as somebody waits now and then
			for range watchFor / 2 {
				require.True(t, locked(t, c, Committed, false))
				time.Sleep(10 * time.Millisecond)
			}
			require.True(t, locked(t, c, Committed, true))
			time.Sleep(calmAfter + time.Millisecond)
		}
		for range watchFor - 1 { // one more was that which waited
			require.True(t, locked(t, c, Committed, false), "a long time alone tells nothing")
		}

		require.False(t, locked(t, c, Committed, false))
		for range 1 + watchMax { // the keys are calm by now
			require.False(t, locked(t, c, Conflict, false))
		}
		require.True(t, locked(t, c, Committed, false))
	})
}

func TestLocksElsewhereThatNobodyWaitsForAreGivenUpThoughConflictsGoOnAndNotTriedAgainForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := elsewhereControl(t)
		until := func(has bool) time.Duration {
			began := time.Now()
			for time.Since(began) < 2*notAgain && locked(t, c, Conflict, false) != has {
				time.Sleep(100 * time.Millisecond)
			}
			return time.Since(began)
		}
		const slack = float64(500 * time.Millisecond) // attempts that conflict are held up a little
		until(true)
		require.InDelta(t, useless, until(false), slack)
		require.InDelta(t, notAgain, until(true), slack)
		require.InDelta(t, useless, until(false), slack)
	})
}

func TestALockThatOneWhoRunsAloneHadToWaitForIsProofThatLocksElsewhereAreOfUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := elsewhereControl(t)
		c.elsewhere.next = time.Now().Add(notAgain)
		require.False(t, locked(t, c, Conflict, false))
		require.False(t, locked(t, c, Committed, true), "as one does that has conflicted often")
		require.True(t, locked(t, c, Committed, false))
	})
}

func TestWhereTheNextAttemptHasLocksElsewhereThereIsNoNeedToSleepAfterAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, can := range []bool{true, false} {
			c := New(Options{Elsewhere: can})
			contend(t, c, "transfer", "a")
			call := enter(t, c, "transfer", "a")
			call.Leave(Conflict)
			require.Equal(t, can, call.Queued())
		}
	})
}

// TestAWaitForALockElsewhereKeepsTheKeysFromTheCalm: in the process nobody may have to wait for them any more.
func TestAWaitForALockElsewhereKeepsTheKeysFromTheCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, waited := range []bool{true, false} {
			c := elsewhereControl(t)
			locked(t, c, Conflict, false)
			for range 5 * watchFor {
				locked(t, c, Committed, waited)
				time.Sleep(50 * time.Millisecond)
			}
			require.Equal(t, waited, c.keys.phase() == contended)
			require.Equal(t, waited, locked(t, c, Committed, false))
		}
	})
}

// TestWhileNothingRunsLocksElsewhereAreNotFoundUseless: nobody could have waited for one.
func TestWhileNothingRunsLocksElsewhereAreNotFoundUseless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := elsewhereControl(t)
		locked(t, c, Conflict, false)
		for range 3 {
			time.Sleep(useless)
			require.True(t, locked(t, c, Conflict, false))
			require.True(t, locked(t, c, Committed, false))
		}
	})
}
