package demo

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// at is a moment of a series that began at the epoch.
func at(ms int) time.Time { return time.UnixMilli(int64(ms)) }

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func TestAnAnswerIsCountedInTheIntervalInWhichItCame(t *testing.T) {
	tl := newTally()
	tl.begin(at(0))
	tell := func(err error, now, took int) { tl.tell(tl.ask(transfer{to: 1}).id, err, at(now), ms(took)) }
	tell(nil, 0, 7)
	tell(nil, 199, 5)
	tell(errors.New("no"), 200, 30)
	tell(&retrypg.CommitUnknownError{Err: errors.New("lost")}, 250, 20)
	tell(nil, 650, 1)
	require.Equal(t, []Bucket{
		{OK: 2, Slowest: ms(7), Gap: ms(199)},
		{Errors: 1, Unknown: 1, Slowest: ms(30), Gap: ms(400 - 199)},
		{Gap: ms(600 - 199)},
		{OK: 1, Slowest: ms(1), Gap: ms(650 - 199)},
	}, tl.series.buckets)
}

func TestALongerLoadHasCoarserIntervalsOfTheSameSum(t *testing.T) {
	s := newSeries(at(0))
	rng := rand.New(rand.NewPCG(1, 2))
	var want Bucket
	last := 0
	const end = 10 * 60 * 1000
	for now := range end / 100 {
		now *= 100
		if rng.IntN(10) > 0 {
			s.answer(toldError, at(now), ms(now%977))
			want.Errors++
		} else {
			s.gap(at(last), at(now))
			s.answer(toldOK, at(now), ms(now%977))
			want.OK++
			want.Gap = max(want.Gap, ms(now-last))
			last = now
		}
		want.Slowest = max(want.Slowest, ms(now%977))
		require.LessOrEqual(t, len(s.buckets), maxBuckets)
	}
	var got Bucket
	for _, b := range s.buckets {
		got = got.merge(b)
	}
	require.Equal(t, want, got)
	require.Equal(t, 16*finestWidth, s.width, "320 intervals of 200 ms are 64 s; of 3.2 s they are 17 minutes")
	require.Len(t, s.buckets, 188)
}

func TestAGapGrowsUntilItsEndOverAllIntervals(t *testing.T) {
	s := newSeries(at(0))
	s.gap(at(100), at(900))
	var gaps []time.Duration
	for _, b := range s.buckets {
		gaps = append(gaps, b.Gap)
	}
	require.Equal(t, []time.Duration{ms(100), ms(300), ms(500), ms(700), ms(800)}, gaps)
}

func TestAllProgramsGetTheSameIntervals(t *testing.T) {
	short, long := newSeries(at(0)), newSeries(at(0))
	for _, now := range []int{0, 100, 300, 500} {
		short.answer(toldOK, at(now), 0)
	}
	long.answer(toldOK, at(100_000), 0)
	width := align([]*series{short, long})
	require.Equal(t, 2*finestWidth, width)
	require.Len(t, long.buckets, 251)
	require.Len(t, short.buckets, 251)
	require.Equal(t, 3, short.buckets[0].OK)
	require.Equal(t, 1, short.buckets[1].OK)
	require.Equal(t, 1, long.buckets[250].OK)
}

func TestAClockThatStandsBeforeTheBeginCountsAsTheBegin(t *testing.T) {
	s := newSeries(at(1000))
	s.answer(toldOK, at(0), 0)
	s.gap(at(0), at(500))
	require.Equal(t, []Bucket{{OK: 1, Gap: ms(500)}}, s.buckets)
}
