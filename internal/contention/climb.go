package contention

import "time"

// climb looks for the number of transactions that should run at a time: that with which most of them commit in a second,
// among those with which no more than one attempt in maxConflicts conflicts. It begins with one, and tries others: more
// while somebody waits, fewer where attempts conflict. What a conflict costs is in the throughput: a deadlock holds two
// transactions up for as long as the server takes to look for it.
type climb struct {
	limit  int     // in force
	best   int     // of which rate is known; limit is another one while that is tried
	rate   float64 // commits in a second with best; 0: not known yet
	step   int     // by how much the next try is more
	lower  bool    // the next try is of fewer
	next   time.Time
	window window
}

// window is what was seen since it began. Attempts that began under another limit do not belong to it.
type window struct {
	began     time.Time // zero until those are gone
	attempts  int
	conflicts int
	crowded   bool // somebody waited
}

const (
	// maxConflicts is the share of attempts that may conflict: one in so many, which makes 1.2 attempts per commit.
	maxConflicts = 6
	// A window is over after manyAttempts, or after fewAttempts and windowTime. Chosen: fewer tell little, and slow
	// transactions would take long for more.
	manyAttempts = 64
	fewAttempts  = 8
	windowTime   = 20 * time.Millisecond
	// worthMore is how much more throughput a higher limit must have: it means more conflicts. Chosen, above the noise.
	worthMore = 1.05
	// rest is how many times as long as a try that failed took nothing else is tried, so that tries cost little. Chosen: about
	// 3 % where a try gets nothing done at all.
	rest    = 32
	maxRest = 30 * time.Second
)

// start begins with a limit.
func (c *climb) start(limit int) {
	*c = climb{limit: limit, best: limit, step: 1}
}

// saw is told of an attempt that ended, of how many run now, and whether somebody waits. It may change the limit.
func (c *climb) saw(o Outcome, running int, crowded bool) {
	w := &c.window
	now := time.Now()
	if w.began.IsZero() {
		if running <= c.limit {
			w.began = now
		}
		return
	}
	w.crowded = w.crowded || crowded
	switch o {
	case Other:
		return
	case Conflict, Deadlock:
		w.conflicts++
	}
	w.attempts++
	took := now.Sub(w.began)
	if c.limit != c.best && c.hopeless(took) {
		c.reject(now, took)
		return
	}
	if w.attempts < fewAttempts || w.attempts < manyAttempts && took < windowTime {
		return
	}
	c.judge(now, took)
}

// hopeless reports whether a try takes so long that it cannot be better any more: what a conflict costs may be much more
// than all the rest of the window.
func (c *climb) hopeless(took time.Duration) bool {
	return c.window.conflicts > 0 && took.Seconds()*c.rate > 2*manyAttempts
}

// judge ends a window.
func (c *climb) judge(now time.Time, took time.Duration) {
	w := c.window
	rate := float64(w.attempts-w.conflicts) / took.Seconds()
	many := w.conflicts*maxConflicts > w.attempts
	switch {
	case c.limit > c.best:
		// Where nothing conflicts, there is no reason to wait, only none to hurry.
		if many || w.conflicts > 0 && rate < worthMore*c.rate || rate*worthMore < c.rate {
			c.reject(now, took)
			return
		}
		c.accept(rate)
		c.step *= 2
	case c.limit < c.best:
		if rate < c.rate {
			c.reject(now, took)
			return
		}
		c.accept(rate)
	case many && c.limit > 1:
		c.limit = c.limit / 2
		c.accept(0)
		c.step = 1
	default:
		const weight = 4
		if c.rate == 0 {
			c.rate = rate
		}
		c.rate += (rate - c.rate) / weight
	}
	c.try(now)
}

// accept makes the limit in force the best.
func (c *climb) accept(rate float64) {
	c.best, c.rate = c.limit, rate
	c.window = window{}
}

// reject goes back to the best.
func (c *climb) reject(now time.Time, took time.Duration) {
	c.lower = c.limit > c.best
	c.limit, c.step = c.best, 1
	c.next = now.Add(min(rest*took, maxRest))
	c.window = window{}
}

// try begins the next window, with another limit if it is time for that.
func (c *climb) try(now time.Time) {
	w := c.window
	c.window = window{}
	switch {
	case c.rate == 0 || now.Before(c.next):
		return
	case c.lower && c.best > 1 && w.conflicts > 0:
		c.limit = c.best - max(1, c.best/4)
	case w.crowded:
		c.limit = c.best + c.step
	}
	c.lower = false
}
