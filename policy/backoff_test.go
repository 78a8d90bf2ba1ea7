package policy_test

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

// numbers are attempt numbers at which arithmetic may go wrong.
var numbers = []int{math.MinInt, -1, 0, 1, 2, 3, 10, 62, 63, 64, 65, 66, 100, 1023, 1024, 1025, 10_000, math.MaxInt32, math.MaxInt - 1, math.MaxInt}

// requireWithin draws from b at every number and requires that each wait is within Bounds, which are within 0 to longest.
func requireWithin(t testing.TB, b policy.Backoff, longest time.Duration) {
	t.Helper()
	for _, n := range numbers {
		for _, previous := range []time.Duration{math.MinInt64, -1, 0, 1, longest, math.MaxInt64/3 + 1, math.MaxInt64} {
			a := policy.Attempt{Number: n, Wait: previous}
			low, high := b.Bounds(a)
			if low < 0 || high < low || high > longest {
				t.Fatalf("%v: attempt %d after %v: bounds %v to %v, cap %v", b, n, previous, low, high, longest)
			}
			for range 3 {
				wait, ok := b.Next(a)
				if !ok || wait < low || wait > high {
					t.Fatalf("%v: attempt %d after %v: wait %v, ok %v, bounds %v to %v", b, n, previous, wait, ok, low, high)
				}
			}
		}
	}
}

func TestNoWaitIsNegativeOrAboveTheCapAtAnyAttempt(t *testing.T) {
	durations := []time.Duration{1, 2, 3, time.Millisecond, time.Second, 1<<53 + 1, math.MaxInt64 / 2, math.MaxInt64 - 1, math.MaxInt64}
	for _, j := range append(allJitters(), policy.Must(policy.ProportionalJitter(1))) {
		for _, initial := range durations {
			if j != policy.DecorrelatedJitter {
				longest := time.Duration(math.MaxInt64)
				if j == policy.NoJitter || j == policy.FullJitter || j == policy.EqualJitter {
					longest = initial
				}
				requireWithin(t, policy.Must(policy.Fixed(initial, j)), longest)
			}
			for _, longest := range durations {
				if longest < initial {
					continue
				}
				for _, increment := range []time.Duration{0, 1, time.Second, math.MaxInt64} {
					requireWithin(t, policy.Must(policy.Linear(initial, increment, longest, j)), longest)
				}
				for _, multiplier := range []float64{1, math.Nextafter(1, 2), 1.5, 2, 1000, math.MaxFloat64} {
					requireWithin(t, policy.Must(policy.Exponential(initial, longest, multiplier, j)), longest)
				}
			}
		}
	}
}

func TestWaitsWithoutJitterNeverFallUntilTheyReachTheCap(t *testing.T) {
	for range 100 {
		initial := 1 + time.Duration(rand.Int64N(int64(time.Second)))
		longest := initial + time.Duration(rand.Int64N(int64(time.Hour)))
		for _, b := range []policy.Backoff{
			policy.Must(policy.Exponential(initial, longest, 1+2*rand.Float64(), policy.NoJitter)),
			policy.Must(policy.Linear(initial, 1+time.Duration(rand.Int64N(int64(time.Second))), longest, policy.NoJitter)),
		} {
			previous := time.Duration(0)
			for n := 1; n <= 10_000; n++ {
				wait, _ := b.Next(policy.Attempt{Number: n})
				if wait < previous || n == 1 && wait != initial {
					t.Fatalf("%v: %v after %v at attempt %d", b, wait, previous, n)
				}
				previous = wait
			}
			last, _ := b.Next(policy.Attempt{Number: math.MaxInt})
			require.Equal(t, longest, last, "%v", b)
		}
	}
}

func TestExponentialMultipliesAndStopsAtTheCap(t *testing.T) {
	b := policy.Must(policy.Exponential(100*time.Millisecond, time.Second, 2, policy.NoJitter))
	for i, want := range []int64{100, 200, 400, 800, 1000, 1000} {
		wait, ok := b.Next(policy.Attempt{Number: i + 1})
		require.True(t, ok)
		require.Equal(t, want, wait.Milliseconds())
	}
}

func TestExponentialGrowsBeyondItsTable(t *testing.T) {
	b := policy.Must(policy.Exponential(time.Millisecond, time.Hour, 1.01, policy.NoJitter))
	wait, _ := b.Next(policy.Attempt{Number: 501})
	require.InDelta(t, float64(time.Millisecond)*math.Pow(1.01, 500), float64(wait), 1)
}

func TestALateWaitIsDrawnLikeAnEarlyOne(t *testing.T) {
	f := policy.Must(policy.ProportionalJitter(0.25))
	bounds := func(j policy.Jitter, number int) (low, high time.Duration) {
		return policy.Must(policy.Linear(0, 4*time.Second, 24*time.Hour, j)).Bounds(policy.Attempt{Number: number})
	}
	for number := 1; number <= 200; number++ {
		base := time.Duration(number-1) * 4 * time.Second
		for _, c := range []struct {
			jitter    policy.Jitter
			low, high time.Duration
		}{
			{policy.NoJitter, base, base},
			{policy.FullJitter, 0, base},
			{policy.EqualJitter, base / 2, base},
			{f, base / 4 * 3, base / 4 * 5},
		} {
			low, high := bounds(c.jitter, number)
			require.Equal(t, c.low, low, "%v: attempt %d", c.jitter, number)
			require.Equal(t, c.high, high, "%v: attempt %d", c.jitter, number)
		}
	}
}

func TestBothEndsOfARangeAreDrawn(t *testing.T) {
	b := policy.Must(policy.Fixed(1, policy.FullJitter))
	seen := make(map[time.Duration]bool)
	for range 200 { // one of the two alone: as likely as 200 coins that fall alike
		wait, _ := b.Next(policy.Attempt{Number: 1})
		seen[wait] = true
	}
	require.Equal(t, map[time.Duration]bool{0: true, 1: true}, seen)
}

func TestEachJitterDrawsFromItsRange(t *testing.T) {
	a := policy.Attempt{Number: 3, Wait: 200 * time.Millisecond} // base 400 ms
	for _, c := range []struct {
		jitter    policy.Jitter
		low, high time.Duration
	}{
		{policy.NoJitter, 400 * time.Millisecond, 400 * time.Millisecond},
		{policy.FullJitter, 0, 400 * time.Millisecond},
		{policy.EqualJitter, 200 * time.Millisecond, 400 * time.Millisecond},
		{policy.Must(policy.ProportionalJitter(0.25)), 300 * time.Millisecond, 500 * time.Millisecond},
		{policy.Must(policy.ProportionalJitter(1)), 0, 800 * time.Millisecond},
		{policy.DecorrelatedJitter, 100 * time.Millisecond, 600 * time.Millisecond},
	} {
		b := policy.Must(policy.Exponential(100*time.Millisecond, time.Minute, 2, c.jitter))
		low, high := b.Bounds(a)
		require.Equal(t, c.low, low, c.jitter)
		require.Equal(t, c.high, high, c.jitter)
		lowest, highest, sum := time.Duration(math.MaxInt64), time.Duration(0), 0.0
		const draws = 20_000
		for range draws {
			wait, _ := b.Next(a)
			lowest, highest, sum = min(lowest, wait), max(highest, wait), sum+float64(wait)
		}
		// With 20,000 uniform draws, each end is missed by more than 0.2 % of the range once in 10^17 runs, and the mean of
		// the range by more than 2 % of it (ten standard deviations) practically never.
		spread := float64(high - low)
		require.LessOrEqual(t, float64(lowest-low), 0.002*spread, c.jitter)
		require.LessOrEqual(t, float64(high-highest), 0.002*spread, c.jitter)
		require.InDelta(t, float64(low+high)/2, sum/draws, 0.02*spread, c.jitter)
	}
}

func TestProportionalJitterAtTheCapStillSpreads(t *testing.T) {
	b := policy.Must(policy.Exponential(time.Second, time.Second, 2, policy.Must(policy.ProportionalJitter(0.5))))
	low, high := b.Bounds(policy.Attempt{Number: 9})
	require.Equal(t, 500*time.Millisecond, low)
	require.Equal(t, time.Second, high)
	atCap := 0
	for range 1000 {
		if wait, _ := b.Next(policy.Attempt{Number: 9}); wait == high {
			atCap++
		}
	}
	require.Less(t, atCap, 10, "draws must not pile up at the cap")
}

func TestDecorrelatedJitterFollowsThePreviousWait(t *testing.T) {
	b := policy.Must(policy.Exponential(100*time.Millisecond, 2*time.Second, 2, policy.DecorrelatedJitter))
	for _, c := range []struct{ previous, high time.Duration }{
		{0, 300 * time.Millisecond}, // as if the initial wait came before
		{100 * time.Millisecond, 300 * time.Millisecond},
		{500 * time.Millisecond, 1500 * time.Millisecond},
		{time.Second, 2 * time.Second}, // the cap
	} {
		low, high := b.Bounds(policy.Attempt{Number: 5, Wait: c.previous})
		require.Equal(t, 100*time.Millisecond, low)
		require.Equal(t, c.high, high)
	}
}

func TestBackoffConstructorsSayWhatIsWrong(t *testing.T) {
	full := policy.FullJitter
	for _, c := range []struct {
		err  error
		says string
	}{
		{second(policy.Fixed(-1, full)), "negative"},
		{second(policy.Fixed(1, policy.DecorrelatedJitter)), "decorrelated"},
		{second(policy.Linear(-1, 1, 1, full)), "negative"},
		{second(policy.Linear(1, -1, 1, full)), "negative"},
		{second(policy.Linear(0, 0, 0, full)), "longest wait 0s"},
		{second(policy.Linear(2, 1, 1, full)), "shorter than the initial"},
		{second(policy.Linear(0, 1, -1, full)), "longest wait"},
		{second(policy.Exponential(0, 1, 2, full)), "use Fixed"},
		{second(policy.Exponential(-1, 1, 2, full)), "initial wait"},
		{second(policy.Exponential(2, 1, 2, full)), "shorter than the initial"},
		{second(policy.Exponential(1, 1, 0, full)), "multiplier 0"},
		{second(policy.Exponential(1, 1, 0.99, full)), "multiplier 0.99"},
		{second(policy.Exponential(1, 1, -2, full)), "multiplier -2"},
		{second(policy.Exponential(1, 1, math.NaN(), full)), "multiplier NaN"},
		{second(policy.Exponential(1, 1, math.Inf(1), full)), "multiplier +Inf"},
		{second(policy.Exponential(1, 1, math.Inf(-1), full)), "multiplier -Inf"},
	} {
		require.ErrorContains(t, c.err, c.says)
		require.ErrorContains(t, c.err, "policy: ")
	}
}

func second[T any](_ T, err error) error { return err }

func TestTheZeroBackoffRetriesNothing(t *testing.T) {
	wait, ok := policy.Backoff{}.Next(policy.Attempt{Number: 1})
	require.False(t, ok)
	require.Zero(t, wait)
	require.Equal(t, "no retries", policy.Backoff{}.String())
}

func TestABackoffIsSharedByGoroutinesWithoutInfluencingEachOther(t *testing.T) {
	b := policy.Must(policy.Exponential(time.Millisecond, time.Second, 2, policy.NoJitter))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := 1; n <= 1000; n++ {
				wait, ok := b.Next(policy.Attempt{Number: n})
				if want := min(time.Second, time.Millisecond<<min(n-1, 20)); !ok || wait != want {
					t.Errorf("attempt %d: %v, want %v", n, wait, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestMustPanicsWithTheErrorOfTheConstructor(t *testing.T) {
	require.PanicsWithError(t, "policy: fixed backoff: the wait -1ns is negative: give 0 or more", func() {
		policy.Must(policy.Fixed(-1, policy.NoJitter))
	})
}

func FuzzBackoff(f *testing.F) {
	f.Add(int64(time.Millisecond), int64(time.Second), int64(time.Minute), 2.0, uint64(1), 3, int64(0))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64), math.MaxFloat64, uint64(3), math.MaxInt, int64(math.MaxInt64))
	f.Add(int64(-1), int64(0), int64(0), math.NaN(), uint64(4), -1, int64(-1))
	f.Add(int64(1), int64(1), int64(1<<62), math.Inf(1), math.Float64bits(0.25), 10_000, int64(1<<61))
	f.Fuzz(func(t *testing.T, initial, increment, longest int64, multiplier float64, jitter uint64, number int, previous int64) {
		j := policy.Jitter(jitter)
		check := func(b policy.Backoff, err error, limit time.Duration) {
			if err != nil {
				if b != (policy.Backoff{}) {
					t.Fatalf("%v comes with the error %v", b, err)
				}
				return
			}
			a := policy.Attempt{Number: number, Wait: time.Duration(previous)}
			low, high := b.Bounds(a)
			wait, ok := b.Next(a)
			if !ok || wait < 0 || wait < low || wait > high || high > limit {
				t.Fatalf("%v: wait %v, bounds %v to %v, cap %v", b, wait, low, high, limit)
			}
			if _, err := policy.ParseJitter(j.String()); err != nil {
				t.Fatal(err)
			}
		}
		b, err := policy.Fixed(time.Duration(initial), j)
		check(b, err, math.MaxInt64)
		b, err = policy.Linear(time.Duration(initial), time.Duration(increment), time.Duration(longest), j)
		check(b, err, time.Duration(longest))
		b, err = policy.Exponential(time.Duration(initial), time.Duration(longest), multiplier, j)
		check(b, err, time.Duration(longest))
	})
}
