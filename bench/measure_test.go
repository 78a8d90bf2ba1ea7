package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRatiosAndDifferencesAreTakenWithinEachRound(t *testing.T) {
	g := group{title: "work", contenders: []contender{{name: "a", side: peer}, {name: "b", side: ours}}}
	// Both are slow in different rounds.
	results, err := compare(g, []samples{
		{times: []float64{10, 40, 20}, allocs: []float64{1, 1, 9}},
		{times: []float64{9, 10, 18}, allocs: []float64{0, 0.2, 0.2}},
	})
	require.NoError(t, err)
	require.Equal(t, 20.0, results[0].median)
	require.Equal(t, 1.0, results[0].ratio)
	require.Equal(t, 1.0, results[0].allocs)
	require.Equal(t, 10.0, results[1].median)
	require.Equal(t, 0.9, results[1].ratio, "and not that of the medians, 0.5")
	require.Equal(t, -2.0, results[1].more)
	require.Zero(t, results[1].allocs)
}

func TestThePeerThatIsFastestIsTheBaseUnlessTheGroupNamesOne(t *testing.T) {
	all := []samples{{times: []float64{1}, allocs: []float64{0}}, {times: []float64{2}, allocs: []float64{0}}, {times: []float64{3}, allocs: []float64{0}}, {times: []float64{4}, allocs: []float64{0}}}
	g := group{contenders: []contender{{name: "floor", side: floor}, {name: "own", side: ours}, {name: "fast", side: peer}, {name: "slow", side: peer}}}
	base := func() string {
		results, err := compare(g, all)
		require.NoError(t, err)
		for _, r := range results {
			if r.base {
				return r.name
			}
		}
		return ""
	}
	require.Equal(t, "fast", base())
	g.base = "slow"
	require.Equal(t, "slow", base())
	g.base = "nobody"
	_, err := compare(g, all)
	require.Error(t, err)
}

func TestEachContenderHasOneTurnInEveryRound(t *testing.T) {
	var turns [2]int
	renewed := 0
	contenderOf := func(i int) contender {
		return contender{name: "c", side: peer, run: func(int) error {
			turns[i]++
			for start := time.Now(); time.Since(start) == 0; { // until the clock has seen it
			}
			return nil
		}}
	}
	g := group{contenders: []contender{contenderOf(0), contenderOf(1)}}
	g.contenders[1].renew = func() { renewed++ }
	const rounds = 2*renewEvery + 1
	results, err := measure(t.Context(), g, rounds, time.Nanosecond)
	require.NoError(t, err)
	require.Len(t, results, 2)
	const calibration = 3
	require.Equal(t, calibration+rounds, turns[0])
	require.Equal(t, 3, renewed)
	require.Equal(t, calibration+rounds+renewed, turns[1], "each is warm after it was made anew")
}

func TestRoundTripsAreCountedForEachPieceOfWork(t *testing.T) {
	trips := 0
	contenderOf := func(each int) contender {
		return contender{name: "c", side: peer, run: func(n int) error {
			trips += n * each
			return nil
		}}
	}
	g := group{trips: func() int { return trips }, contenders: []contender{contenderOf(3), contenderOf(5)}}
	results, err := measure(t.Context(), g, 5, 0)
	require.NoError(t, err)
	require.Equal(t, 3.0, results[0].trips)
	require.Equal(t, 5.0, results[1].trips)
}

func TestWorkThatFailsEndsTheMeasurement(t *testing.T) {
	boom := errors.New("boom")
	g := group{title: "work", contenders: []contender{{name: "broken", side: peer, run: func(int) error { return boom }}}}
	_, err := measure(t.Context(), g, 1, time.Nanosecond)
	require.ErrorIs(t, err, boom)
	require.ErrorContains(t, err, "work: broken: ")
}

func TestAMeasurementObeysItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g := group{contenders: []contender{{name: "a", side: peer, run: func(int) error { return nil }}}}
	_, err := measure(ctx, g, 1, 0)
	require.ErrorIs(t, err, context.Canceled)
}
