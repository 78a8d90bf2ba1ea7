package policy_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

func TestBudgetNeverAllowsMoreThanItsBoundInAnyStretchOfTime(t *testing.T) {
	for seed := range uint64(25) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			o := policy.BudgetOptions{
				Ratio:        policy.MinBudgetRatio + rng.Float64()*0.9,
				MinPerSecond: rng.Float64() * math.Pow(10, float64(rng.IntN(5)-1)),
				Burst:        1 + rng.IntN(50),
			}
			b := policy.Must(policy.NewBudget(o))
			type moment struct {
				at                 time.Time
				retries, successes int
			}
			moments := []moment{{at: time.Now()}}
			for range 400 {
				m := moments[len(moments)-1]
				switch rng.IntN(4) {
				case 0:
					time.Sleep(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
				case 1:
					for range rng.IntN(30) {
						b.Deposit()
						m.successes++
					}
				default:
					for range rng.IntN(20) {
						if b.Withdraw() {
							m.retries++
						}
					}
				}
				m.at = time.Now()
				moments = append(moments, m)
				require.GreaterOrEqual(t, b.Tokens(), 0.0)
				require.LessOrEqual(t, b.Tokens(), b.Cap())
			}
			for i, from := range moments {
				for _, to := range moments[i:] {
					bound := float64(o.Burst) + o.Ratio*float64(to.successes-from.successes) + o.MinPerSecond*to.at.Sub(from.at).Seconds()
					if got := float64(to.retries - from.retries); got > bound+1e-6 {
						t.Fatalf("seed %d, %+v: %v retries between %v and %v, bound %v", seed, o, got, from.at, to.at, bound)
					}
				}
			}
		})
	}
}

func TestBudgetAllowsWhatItsBoundPromises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := policy.Must(policy.NewBudget(policy.BudgetOptions{Ratio: 0.1, MinPerSecond: 3, Burst: 10}))
		withdraw := func() (n int) {
			for b.Withdraw() {
				n++
			}
			return n
		}
		require.Equal(t, 10, withdraw(), "the burst")
		for range 50 {
			b.Deposit()
		}
		require.Equal(t, 5, withdraw(), "a tenth of the successes")
		time.Sleep(2 * time.Second)
		require.Equal(t, 6, withdraw(), "three a second")
		time.Sleep(time.Hour)
		require.Equal(t, 10, withdraw(), "no more than the burst is saved up")
		for range 1000 {
			b.Deposit()
		}
		require.Equal(t, 10, withdraw(), "no more than the burst is saved up")
	})
}

func TestBudgetLosesNoTimeToFrequentWithdrawals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond = 0.00013 // 1.95 of the budget's units in 15 ms: a fraction is left over each time
		b := policy.Must(policy.NewBudget(policy.BudgetOptions{MinPerSecond: perSecond, Burst: 1}))
		require.True(t, b.Withdraw())
		start := time.Now()
		for range 10_000 {
			time.Sleep(15 * time.Millisecond)
			require.False(t, b.Withdraw())
		}
		require.InDelta(t, perSecond*time.Since(start).Seconds(), b.Tokens(), 5e-6)
	})
}

func TestBudgetWithoutMinimumEarnsFromSuccessesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := policy.Must(policy.NewBudget(policy.BudgetOptions{Ratio: 1, NoMinimum: true, Burst: 1}))
		require.True(t, b.Withdraw())
		time.Sleep(1000 * time.Hour)
		require.False(t, b.Withdraw())
		b.Deposit()
		require.True(t, b.Withdraw())
		require.False(t, b.Withdraw())
	})
}

func TestBudgetHoldsItsBoundAmongGoroutines(t *testing.T) {
	b := policy.Must(policy.NewBudget(policy.BudgetOptions{Ratio: 0.5, NoMinimum: true, Burst: 7}))
	var wg sync.WaitGroup
	var allowed atomic.Int64
	const workers, each = 8, 2000
	for range workers {
		wg.Go(func() {
			for range each {
				b.Deposit()
				for b.Withdraw() {
					allowed.Add(1)
				}
				_ = b.Tokens()
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, allowed.Load(), int64(7+workers*each/2))
	// A deposit is lost only while the bucket is full, which it never is here after the first withdrawals.
	require.GreaterOrEqual(t, allowed.Load(), int64(workers*each/2))
	require.Less(t, b.Tokens(), 1.0)
}

func TestBudgetTellsItsTokensWithTheTimeThatHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := policy.Must(policy.NewBudget(policy.BudgetOptions{MinPerSecond: 2, Burst: 4}))
		require.Equal(t, 4.0, b.Tokens())
		require.Equal(t, 4.0, b.Cap())
		for b.Withdraw() {
		}
		require.Zero(t, b.Tokens())
		time.Sleep(750 * time.Millisecond)
		require.InDelta(t, 1.5, b.Tokens(), 1e-6)
		require.InDelta(t, 1.5, b.Tokens(), 1e-6, "asking changes nothing")
		time.Sleep(time.Minute)
		require.Equal(t, 4.0, b.Tokens())
	})
}

func TestANilBudgetAllowsEverything(t *testing.T) {
	var b *policy.Budget
	b.Deposit()
	require.True(t, b.Withdraw())
	require.True(t, math.IsInf(b.Tokens(), 1))
	require.True(t, math.IsInf(b.Cap(), 1))
}

func TestNewBudgetChecksItsOptions(t *testing.T) {
	require.Equal(t, float64(policy.DefaultBudgetBurst), policy.Must(policy.NewBudget(policy.BudgetOptions{})).Cap())
	for says, o := range map[string]policy.BudgetOptions{
		"ratio -0.1":          {Ratio: -0.1},
		"ratio 1.5":           {Ratio: 1.5},
		"ratio NaN":           {Ratio: math.NaN()},
		"ratio +Inf":          {Ratio: math.Inf(1)},
		"ratio 1e-07":         {Ratio: 1e-7},
		"minimum of -1":       {MinPerSecond: -1},
		"minimum of NaN":      {MinPerSecond: math.NaN()},
		"minimum of +Inf":     {MinPerSecond: math.Inf(1)},
		"contradicts":         {MinPerSecond: 1, NoMinimum: true},
		"burst -1":            {Burst: -1},
		"burst 1000001":       {Burst: policy.MaxBudgetBurst + 1},
		"minimum of 1e+07":    {MinPerSecond: 1e7},
		"minimum of -1e-300 ": {MinPerSecond: -1e-300},
	} {
		_, err := policy.NewBudget(o)
		require.ErrorContains(t, err, says, fmt.Sprint(o))
	}
}

func FuzzBudget(f *testing.F) {
	f.Add(0.1, 3.0, 10, []byte{1, 2, 3, 200})
	f.Add(1.0, 1e6, 1, []byte{0})
	f.Add(math.NaN(), math.Inf(1), -1, []byte{255})
	f.Add(1e-6, math.SmallestNonzeroFloat64, 1_000_000, []byte{7, 9})
	f.Fuzz(func(t *testing.T, ratio, perSecond float64, burst int, steps []byte) {
		b, err := policy.NewBudget(policy.BudgetOptions{Ratio: ratio, MinPerSecond: perSecond, Burst: burst})
		if err != nil {
			return
		}
		for _, s := range steps {
			if s%2 == 0 {
				b.Deposit()
			} else {
				b.Withdraw()
			}
			if left := b.Tokens(); !(left >= 0 && left <= b.Cap()) {
				t.Fatalf("%v tokens of %v", left, b.Cap())
			}
		}
	})
}
