package contention

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// feed tells a climb of attempts, one after another, of which every nth conflicts; 0: none.
func feed(c *climb, attempts int, every time.Duration, nth int) {
	for i := range attempts {
		time.Sleep(every)
		o := Committed
		if nth > 0 && i%nth == 1 {
			o = Conflict
		}
		c.saw(o, 1, true)
	}
}

func TestAHigherLimitIsKeptOnlyWhereItIsWorthIt(t *testing.T) {
	const slow, fast = time.Millisecond, 800 * time.Microsecond
	for _, tt := range []struct {
		name  string
		every time.Duration
		nth   int
		want  int
	}{
		{"more commits, few conflicts", fast, 10, 2},
		{"more commits, many conflicts", fast / 2, 4, 1},
		{"hardly more commits, few conflicts", slow * 92 / 100, 20, 1},
		{"as many commits, no conflicts", slow, 0, 2},
		{"fewer commits, no conflicts", slow * 2, 0, 1},
		{"a conflict that costs much", 100 * slow, 2, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c climb
				c.start(1)
				for c.limit == 1 { // the rate of one is found out
					feed(&c, 1, slow, 0)
				}
				require.Equal(t, 2, c.limit)
				require.Equal(t, 1, c.best)
				feed(&c, 30, tt.every, tt.nth) // that of two
				require.Equal(t, tt.want, c.best)
			})
		})
	}
}

func TestAfterATryThatFailedNothingIsTriedForALongTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c climb
		c.start(1)
		tries := 0
		for range 10_000 {
			before := c.limit
			every := time.Millisecond
			if c.limit > 1 {
				every = 10 * time.Millisecond
			}
			feed(&c, 1, every, 0)
			if c.limit > before {
				tries++
			}
		}
		require.Equal(t, 1, c.best)
		require.Positive(t, tries)
		require.Less(t, tries, 25, "a try costs 8 attempts here, in 80 ms; 32 times as long has more than 2,500 of the others")
	})
}

func TestATryInWhichAConflictTakesLongerThanAllElseWouldIsGivenUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := climb{limit: 2, best: 1, rate: 2500, step: 1}
		feed(&c, 1, time.Millisecond, 0)
		feed(&c, 2, 30*time.Millisecond, 2)
		require.Equal(t, 1, c.limit)
	})
}

func TestManyConflictsHalveALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := climb{limit: 8, best: 8, rate: 1000, step: 1}
		feed(&c, 22, time.Millisecond, 3)
		require.Equal(t, 4, c.best)
		require.Equal(t, 4, c.limit, "its rate is to be found out first")
	})
}
