package contention

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPlaceIsTellingWhereTheSameArgumentMakesTheConflicts(t *testing.T) {
	type counts struct{ all, bad int }
	for _, tt := range []struct {
		name            string
		together, apart counts
		o               Outcome // of the bad ones
		want            bool
	}{
		{"half of those with the same conflict, and none of the others", counts{40, 20}, counts{40, 0}, Conflict, true},
		{"no more of those with the same than of the others", counts{40, 20}, counts{40, 20}, Conflict, false},
		{"not twice as many", counts{60, 30}, counts{60, 17}, Conflict, false},
		{"all have the same", counts{100, 45}, counts{0, 0}, Conflict, false},
		{"conflicts are rare", counts{100, 10}, counts{100, 0}, Conflict, false},
		{"deadlocks are rare, and cost much", counts{100, 4}, counts{100, 0}, Deadlock, true},
		{"two deadlocks may be chance", counts{100, 2}, counts{100, 0}, Deadlock, false},
		{"few attempts", counts{15, 8}, counts{40, 0}, Conflict, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p place
			feed := func(together bool, c counts) {
				for i := range c.all {
					o := Committed
					if i*c.bad%c.all < c.bad { // evenly
						o = tt.o
					}
					p.saw(together, o)
				}
			}
			feed(false, tt.apart)
			feed(true, tt.together)
			require.Equal(t, tt.want, p.telling)
		})
	}
}

func TestAPlaceForgets(t *testing.T) {
	var p place
	for range 60 {
		p.saw(false, Committed)
		p.saw(true, Conflict)
	}
	require.True(t, p.telling)
	n := 0
	for ; p.telling; n++ {
		p.saw(true, Committed)
	}
	require.Less(t, n, 5*memory)
}

// learner returns a control whose transactions of the name "transfer" are contended, and which knows nothing of them.
func learner(t *testing.T) (*Control, *limiter) {
	t.Helper()
	c := New(Options{})
	contend(t, c, "transfer")
	l := c.named("transfer", false)
	l.climb.start(8)
	l.prints.taught.Store(learnFor + 1) // the limit stays
	return c, l
}

func TestAConflictTellsOfThePlaceWhereTheSameArgumentIsRarest(t *testing.T) {
	c, l := learner(t)
	for i := range uint64(40) { // others, of the same tenant
		one, other := enter(t, c, "transfer"), enter(t, c, "transfer")
		require.True(t, one.Footprint().Touch([]Mark{at(tenant, 1), at(account, 2*i)}))
		require.True(t, other.Footprint().Touch([]Mark{at(tenant, 1), at(account, 2*i+1)}))
		one.Leave(Committed)
		other.Leave(Committed)
	}
	require.Equal(t, 80, l.prints.places[tenant].together.all)
	require.Equal(t, 80, l.prints.places[account].apart.all)
	one, other := enter(t, c, "transfer"), enter(t, c, "transfer")
	require.True(t, one.Footprint().Touch([]Mark{at(tenant, 1), at(account, 1)}))
	require.True(t, other.Footprint().Touch([]Mark{at(tenant, 1), at(account, 1)}))
	other.Leave(Conflict)
	one.Leave(Committed)
	require.Equal(t, share{all: 80}, l.prints.places[tenant].together)
	require.Equal(t, share{all: 2, conflicts: 1, times: 1}, l.prints.places[account].together)
	require.Equal(t, 80, l.prints.places[account].apart.all, "who met the same is not one of those who did not")
}

func TestADeadlockTellsOfTheStatementThatWasSentLast(t *testing.T) {
	c, l := learner(t)
	one, other := enter(t, c, "transfer"), enter(t, c, "transfer")
	for _, call := range []*Call{one, other} {
		require.True(t, call.Footprint().Touch([]Mark{at(tenant, 1)}))
		require.True(t, call.Footprint().Touch([]Mark{at(account, 1)}))
	}
	other.Leave(Deadlock)
	one.Leave(Other)
	require.Zero(t, l.prints.places[tenant].together)
	require.Equal(t, share{all: 1, conflicts: deadlockWeight, times: 1}, l.prints.places[account].together)
}

func TestWhoMeetsNobodyTeachesNothing(t *testing.T) {
	c, l := learner(t)
	for range 10 {
		call := enter(t, c, "transfer")
		require.True(t, call.Footprint().Touch([]Mark{at(account, 1)}))
		call.Leave(Committed)
	}
	require.Zero(t, l.prints.places[account].apart)
	require.Zero(t, l.prints.places[account].together)
}

func TestWhatIsKnownOfOtherPlacesIsForgottenWhenOneBecomesTelling(t *testing.T) {
	c, l := learner(t)
	l.prints.places[tenant] = &place{together: share{all: 50, conflicts: 20, times: 20}, apart: share{all: 50, conflicts: 20, times: 20}}
	l.prints.places[account] = &place{together: share{all: 30, conflicts: 7, times: 7}, apart: share{all: 60}}
	one, other := enter(t, c, "transfer"), enter(t, c, "transfer")
	require.True(t, one.Footprint().Touch([]Mark{at(account, 1)}))
	require.True(t, other.Footprint().Touch([]Mark{at(account, 1)}))
	other.Leave(Conflict)
	require.True(t, l.prints.places[account].telling)
	require.Zero(t, l.prints.places[tenant].together, "from now on there are fewer conflicts for another reason")
	require.Zero(t, l.prints.places[tenant].apart)
	one.Leave(Committed)
}

func TestToLearnSomeAttemptsRunTogether(t *testing.T) {
	c, l := learner(t)
	l.climb.start(1)
	l.prints.taught.Store(0)
	before := l.climb
	calls := []*Call{enter(t, c, "transfer")}
	require.True(t, calls[0].Footprint().Touch([]Mark{at(account, 1)}))
	for len(calls) < learnAt {
		calls = append(calls, enter(t, c, "transfer")) // does not wait
	}
	require.False(t, l.admits(false))
	for _, call := range calls {
		call.Leave(Committed)
	}
	require.Equal(t, before, l.climb, "it is no try")
	for range learnFor {
		call := enter(t, c, "transfer")
		call.Footprint().Touch([]Mark{at(account, 1)})
		call.Leave(Committed)
	}
	require.False(t, l.prints.learning())
	require.Equal(t, 1, l.limit(), "nothing was found out")
}

func TestWhoHoldsSomethingTriesNothingOut(t *testing.T) {
	c := taught(t)
	l := c.named("transfer", false)
	l.prints.met = explore
	one, other := enter(t, c, "transfer"), enter(t, c, "transfer")
	require.True(t, one.Footprint().Touch([]Mark{at(account, 1)}))
	require.True(t, other.Footprint().Touch([]Mark{at(account, 2)}))
	require.False(t, other.Footprint().Touch([]Mark{at(account, 1)}), "others may wait for it here while it would wait at the server")
	other.Leave(Other)
	one.Leave(Other)
}

func TestAPlaceWhereSomebodyIsStaysKnown(t *testing.T) {
	c, l := learner(t)
	call := enter(t, c, "transfer")
	require.True(t, call.Footprint().Touch([]Mark{at(account, 1)}))
	here := l.prints.places[account]
	for i := range uint64(2 * maxPlaces) {
		other := enter(t, c, "transfer")
		other.Footprint().Touch([]Mark{{Place: 100 + i, Value: i}})
		other.Leave(Committed)
	}
	require.Same(t, here, l.prints.places[account])
	call.Leave(Committed)
}
