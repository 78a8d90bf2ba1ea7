package policy

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"time"
)

// Backoff is a [Policy] that waits between attempts and never gives up by itself: limit it with [MaxAttempts] or
// [MaxElapsed], or by the deadline of the context. It is immutable and safe for concurrent use, and Next allocates nothing.
// The zero Backoff retries nothing.
type Backoff struct{ curve *curve }

// curve is what a Backoff was made with. It never changes once it is made, so that all copies of a Backoff share it.
type curve struct {
	growth     growth
	jitter     Jitter
	initial    time.Duration
	increment  time.Duration // of growLinear
	multiplier float64       // of growExponential
	max        time.Duration
	// early are the ranges of the first waits: to work one out would cost more than to draw from it. There are none for
	// decorrelated jitter, whose range depends on the wait before.
	early []span
}

// span is a range of durations: the lowest, which is 0 or more, and how many there are.
type span struct {
	low   time.Duration
	count uint64
}

// spanOf returns the range from low to high, both ends included.
func spanOf(low, high time.Duration) span { return span{low, uint64(high-low) + 1} }

func (s span) high() time.Duration { return s.low + time.Duration(s.count-1) }

// draw returns one at random. It multiplies where rand.Uint64N draws again now and then: what makes up for count not being a
// power of two shifts the share of a duration by less than count in 2^64.
func (s span) draw() time.Duration {
	if s.count == 1 {
		return s.low
	}
	above, _ := bits.Mul64(rand.Uint64(), s.count)
	return s.low + time.Duration(above)
}

type growth uint8

const (
	growFixed growth = iota
	growLinear
	growExponential
)

// maxEarly is how many waits a curve keeps. 63 doublings take 1 ns beyond every duration.
const maxEarly = 64

// decorrelation is the growth of decorrelated jitter in its source: see [Jitter].
const decorrelation = 3

// Fixed waits the same time before every attempt. wait must not be negative; 0 retries at once. With
// [ProportionalJitter] of f the waits are spread around wait, so the longest is wait*(1+f). [DecorrelatedJitter] is
// refused: a fixed wait has nothing to grow to.
func Fixed(wait time.Duration, j Jitter) (Backoff, error) {
	if err := j.check(); err != nil {
		return Backoff{}, err
	}
	if wait < 0 {
		return Backoff{}, fmt.Errorf("policy: fixed backoff: the wait %v is negative: give 0 or more", wait)
	}
	if j == DecorrelatedJitter {
		return Backoff{}, fmt.Errorf("policy: fixed backoff: decorrelated jitter needs a wait to grow to: use Linear or Exponential")
	}
	longest := wait
	if f, ok := j.factor(); ok {
		longest = scale(wait, 1+f, math.MaxInt64)
	}
	return newBackoff(curve{growth: growFixed, jitter: j, initial: wait, max: longest}), nil
}

// Linear waits initial before the second attempt and increment longer before each further one, up to maxWait, which the
// jitter does not exceed either. initial and increment must not be negative, maxWait must be positive and at least
// initial.
func Linear(initial, increment, maxWait time.Duration, j Jitter) (Backoff, error) {
	if err := j.check(); err != nil {
		return Backoff{}, err
	}
	if initial < 0 || increment < 0 {
		return Backoff{}, fmt.Errorf("policy: linear backoff: the initial wait %v and the increment %v must not be negative", initial, increment)
	}
	if err := checkMax("linear", initial, maxWait); err != nil {
		return Backoff{}, err
	}
	return newBackoff(curve{growth: growLinear, jitter: j, initial: initial, increment: increment, max: maxWait}), nil
}

// Exponential waits initial before the second attempt and multiplier times longer before each further one, up to maxWait,
// which the jitter does not exceed either. initial must be positive, maxWait at least initial, and multiplier a finite
// number of at least 1.
func Exponential(initial, maxWait time.Duration, multiplier float64, j Jitter) (Backoff, error) {
	if err := j.check(); err != nil {
		return Backoff{}, err
	}
	if initial <= 0 {
		return Backoff{}, fmt.Errorf("policy: exponential backoff: the initial wait %v cannot grow: give a positive one, or use Fixed", initial)
	}
	if err := checkMax("exponential", initial, maxWait); err != nil {
		return Backoff{}, err
	}
	if !(multiplier >= 1) || math.IsInf(multiplier, 1) { // refuses NaN too
		return Backoff{}, fmt.Errorf("policy: exponential backoff: the multiplier %v must be a finite number of at least 1", multiplier)
	}
	return newBackoff(curve{growth: growExponential, jitter: j, initial: initial, multiplier: multiplier, max: maxWait}), nil
}

func newBackoff(c curve) Backoff {
	if c.jitter != DecorrelatedJitter {
		c.early = make([]span, maxEarly)
		for n := range c.early {
			c.early[n] = c.around(c.base(n))
		}
	}
	return Backoff{curve: &c}
}

func checkMax(kind string, initial, maxWait time.Duration) error {
	if maxWait <= 0 || maxWait < initial {
		return fmt.Errorf("policy: %s backoff: the longest wait %v must be positive and not shorter than the initial wait %v", kind, maxWait, initial)
	}
	return nil
}

// Next implements [Policy]. Of a it reads Number, and Wait if the jitter is decorrelated.
func (b Backoff) Next(a Attempt) (time.Duration, bool) {
	return b.next(a.Number, a.Wait)
}

func (b Backoff) next(number int, previous time.Duration) (time.Duration, bool) {
	c := b.curve
	if c == nil {
		return 0, false
	}
	if n := uint(number - 1); n < uint(len(c.early)) {
		return c.early[n].draw(), true
	}
	return min(c.draws(max(number, 1)-1, previous).draw(), c.max), true
}

// Bounds returns the shortest and the longest wait that Next may return for a. Both are 0 for the zero Backoff.
func (b Backoff) Bounds(a Attempt) (shortest, longest time.Duration) {
	if b.curve == nil {
		return 0, 0
	}
	s := b.curve.draws(max(a.Number, 1)-1, a.Wait)
	return min(s.low, b.curve.max), min(s.high(), b.curve.max)
}

// draws returns the range from which the wait before retry n, from 0, is drawn. That of decorrelated jitter may exceed the
// cap: what is drawn above it becomes the cap.
func (c *curve) draws(n int, previous time.Duration) span {
	if c.jitter == DecorrelatedJitter {
		// The first wait is drawn as if initial came before it. Without that, all clients that fail together would wait
		// exactly initial.
		return spanOf(c.initial, scale(max(previous, c.initial), decorrelation, math.MaxInt64))
	}
	return c.around(c.base(n))
}

// around returns the range from which a wait is drawn that is base without jitter.
func (c *curve) around(base time.Duration) span {
	switch c.jitter {
	case NoJitter:
		return spanOf(base, base)
	case FullJitter:
		return spanOf(0, base)
	case EqualJitter:
		return spanOf(base-base/2, base)
	}
	f, _ := c.jitter.factor()
	return spanOf(scale(base, 1-f, base), scale(base, 1+f, c.max))
}

// base returns the wait before retry n, from 0, without jitter.
func (c *curve) base(n int) time.Duration {
	switch c.growth {
	case growLinear:
		if c.increment > 0 && time.Duration(n) > (c.max-c.initial)/c.increment {
			return c.max
		}
		return c.initial + time.Duration(n)*c.increment
	case growExponential:
		return c.power(n)
	}
	return c.initial
}

// power returns initial * multiplier^n, at most max.
func (c *curve) power(n int) time.Duration {
	if n == 0 {
		return c.initial // exactly: a float64 does not hold every duration above 104 days
	}
	return scale(c.initial, math.Pow(c.multiplier, float64(n)), c.max)
}

// scale returns d*factor, at most limit. factor must be 0 or more, and may be +Inf if d is not 0.
func scale(d time.Duration, factor float64, limit time.Duration) time.Duration {
	if f := float64(d) * factor; f < float64(limit) {
		return time.Duration(f)
	}
	return limit
}

// String describes the backoff, as in "exponential(50ms to 5s, x2, jitter full)".
func (b Backoff) String() string {
	c := b.curve
	if c == nil {
		return "no retries"
	}
	switch c.growth {
	case growLinear:
		return fmt.Sprintf("linear(%v to %v, +%v, jitter %v)", c.initial, c.max, c.increment, c.jitter)
	case growExponential:
		return fmt.Sprintf("exponential(%v to %v, x%v, jitter %v)", c.initial, c.max, c.multiplier, c.jitter)
	}
	return fmt.Sprintf("fixed(%v, jitter %v)", c.initial, c.jitter)
}
