package policy_test

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

var errShut = errors.New("gate shut")

// gate is a Gate that writes down what it is told.
type gate struct {
	refuse     error // of Admit
	refuseFrom uint64
	refuseWait error // of Refusal
	// holdsNothing is said of each attempt.
	holdsNothing bool

	mu       sync.Mutex
	admitted uint64
	outcomes map[uint64]int
}

func (g *gate) Admit() (uint64, bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refuse != nil && g.admitted >= g.refuseFrom {
		return 0, false, g.refuse
	}
	g.admitted++
	return g.admitted, !g.holdsNothing, nil
}

func (g *gate) Refusal(time.Duration) error { return g.refuseWait }

func (g *gate) Settle(token uint64, outcome int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, twice := g.outcomes[token]; twice || token == 0 || token > g.admitted {
		panic("settled twice, or never admitted")
	}
	if g.outcomes == nil {
		g.outcomes = make(map[uint64]int)
	}
	g.outcomes[token] = outcome
}

func (g *gate) unsettled() int { return int(g.admitted) - len(g.outcomes) }

func TestALoopCountsItsAttemptsFromOne(t *testing.T) {
	loop := retrier(policy.RetrierOptions{Policy: atOnce()}).Start(t.Context(), "op")
	require.NoError(t, loop.Err())
	for n := 1; n <= 20; n++ {
		require.Equal(t, n, loop.Attempt())
		require.NoError(t, loop.Wait(t.Context(), errRefused))
	}
	loop.Success()
}

func TestALoopReadsNoClockUntilTheFirstFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop := retrier(policy.RetrierOptions{Policy: everySecond(2)}).Start(t.Context(), "op")
		time.Sleep(time.Hour)
		require.NoError(t, loop.Wait(t.Context(), errRefused))
		e := requireExhausted(t, loop.Wait(t.Context(), errRefused), policy.StopMaxAttempts, 2)
		require.Equal(t, time.Second, e.Elapsed)
	})
}

func TestALoopTellsBeforeTheFirstAttemptThatItMustNotBeMade(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g := &gate{refuse: errShut}
	r := retrier(policy.RetrierOptions{Gate: g})
	loop := r.Start(ctx, "op")
	requireExhausted(t, loop.Err(), policy.StopCanceled, 0)
	loop = r.Start(t.Context(), "op")
	e := requireExhausted(t, loop.Err(), policy.StopBreaker, 0)
	require.Nil(t, e.Last)
	require.ErrorIs(t, loop.Err(), errShut)
	require.EqualError(t, loop.Err(), "op: not attempted (breaker_open): gate shut")
	loop.Abandon()
	require.Zero(t, g.admitted)
}

func TestWaitWithoutAnErrorPanics(t *testing.T) {
	loop := retrier(policy.RetrierOptions{}).Start(t.Context(), "op")
	require.PanicsWithValue(t, "policy: Loop.Wait called without an error: call Success", func() { _ = loop.Wait(t.Context(), nil) })
}

func TestTheGateIsToldOfEveryAttemptOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		n := 0
		err := retrier(policy.RetrierOptions{
			Policy: everySecond(9), Gate: g,
			Decide: func(error) policy.Decision {
				return []policy.Decision{
					{Retry: true},
					{Retry: true, Health: policy.HealthUnknown},
					{Retry: true, Health: policy.HealthGood},
					{Retry: true, Health: policy.HealthBad},
					{},
				}[n-1]
			},
		}).Do(t.Context(), "op", func(context.Context) error { n++; return errRefused })
		requireExhausted(t, err, policy.StopNotRetryable, 5)
		require.Equal(t, map[uint64]int{1: -1, 2: 0, 3: 1, 4: -1, 5: 0}, g.outcomes)
	})
}

func TestTheGateIsToldOfSuccess(t *testing.T) {
	for _, failures := range []int{0, 1} {
		for _, count := range []bool{false, true} {
			g := &gate{}
			fn, _ := failing(failures)
			require.NoError(t, retrier(policy.RetrierOptions{Policy: atOnce(), Gate: g, CountFirstAttempt: count}).Do(t.Context(), "op", fn))
			require.Equal(t, 1, g.outcomes[uint64(failures)+1])
			require.Zero(t, g.unsettled())
		}
	}
}

func TestACallerThatCancelsSaysNothingToTheGate(t *testing.T) {
	g := &gate{}
	ctx, cancel := context.WithCancel(t.Context())
	err := retrier(policy.RetrierOptions{
		Gate:   g,
		Decide: func(error) policy.Decision { return policy.Decision{Retry: true} },
	}).Do(ctx, "op", func(context.Context) error { cancel(); return errRefused })
	requireExhausted(t, err, policy.StopCanceled, 1)
	require.Equal(t, map[uint64]int{1: 0}, g.outcomes)
}

func TestARefusalOfTheGateEndsTheLoop(t *testing.T) {
	for _, first := range []uint64{0, 1, 2} {
		g := &gate{refuse: errShut, refuseFrom: first}
		fn, calls := failing(99)
		err := retrier(policy.RetrierOptions{Policy: atOnce(), Gate: g}).Do(t.Context(), "op", fn)
		e := requireExhausted(t, err, policy.StopBreaker, int(first))
		require.Equal(t, int(first), *calls)
		require.ErrorIs(t, err, errShut)
		require.Equal(t, first > 0, errors.Is(err, errRefused))
		require.Equal(t, errShut, e.Cause)
		require.Zero(t, g.unsettled())
	}
}

func TestAWaitThatWouldEndInARefusalIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{refuseWait: errShut}
		start := time.Now()
		fn, calls := failing(99)
		err := retrier(policy.RetrierOptions{Policy: everySecond(9), Gate: g}).Do(t.Context(), "op", fn)
		requireExhausted(t, err, policy.StopBreaker, 1)
		require.Equal(t, 1, *calls)
		require.Zero(t, time.Since(start))
	})
}

func TestAbandonGivesBackWhatTheGateAdmittedAndOnlyOnce(t *testing.T) {
	g := &gate{}
	r := retrier(policy.RetrierOptions{Policy: atOnce(), Gate: g})
	loop := r.Start(t.Context(), "op")
	require.NoError(t, loop.Wait(t.Context(), errRefused))
	loop.Abandon()
	loop.Abandon()
	loop = r.Start(t.Context(), "op")
	loop.Success()
	loop.Abandon()
	require.Equal(t, map[uint64]int{1: -1, 2: 0, 3: 1}, g.outcomes)
}

func TestALoopWorksWithATimeFromAnotherBubble(t *testing.T) {
	// A Retrier that is made once for a program serves each synctest bubble of its tests.
	r := retrier(policy.RetrierOptions{Policy: everySecond(3), Budget: policy.Must(policy.NewBudget(policy.BudgetOptions{}))})
	for range 3 {
		synctest.Test(t, func(t *testing.T) {
			fn, _ := failing(2)
			start := time.Now()
			require.NoError(t, r.Do(t.Context(), "op", fn))
			require.Equal(t, 2*time.Second, time.Since(start))
		})
	}
}
