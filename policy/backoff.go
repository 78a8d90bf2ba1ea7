package policy

import (
	"fmt"
	"math"
	"time"
)

// Backoff is a [Policy] that waits between attempts and never gives up by itself: limit it with [MaxAttempts] or
// [MaxElapsed], or by the deadline of the context. It is immutable and safe for concurrent use, and Next allocates nothing.
// The zero Backoff retries nothing.
type Backoff struct {
	growth     growth
	jitter     Jitter
	initial    time.Duration
	increment  time.Duration // of growLinear
	multiplier float64       // of growExponential
	max        time.Duration
	// steps are the first waits of growExponential without jitter: math.Pow in each Next would cost more than the draw of
	// the jitter. A pointer, so that a Backoff is comparable; what it points to never changes.
	steps *[maxSteps]time.Duration
}

type growth uint8

const (
	growNever growth = iota // the zero Backoff
	growFixed
	growLinear
	growExponential
)

// maxSteps bounds Backoff.steps. 63 doublings take 1 ns beyond every duration.
const maxSteps = 64

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
	return Backoff{growth: growFixed, jitter: j, initial: wait, max: longest}, nil
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
	return Backoff{growth: growLinear, jitter: j, initial: initial, increment: increment, max: maxWait}, nil
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
	b := Backoff{growth: growExponential, jitter: j, initial: initial, multiplier: multiplier, max: maxWait}
	b.steps = new([maxSteps]time.Duration)
	for n := range b.steps {
		b.steps[n] = b.power(n)
	}
	return b, nil
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

func (b *Backoff) next(number int, previous time.Duration) (time.Duration, bool) {
	if b.growth == growNever {
		return 0, false
	}
	low, high := b.draws(number, previous)
	return min(between(low, high), b.max), true
}

// Bounds returns the shortest and the longest wait that Next may return for a. Both are 0 for the zero Backoff.
func (b Backoff) Bounds(a Attempt) (shortest, longest time.Duration) {
	low, high := b.draws(a.Number, a.Wait)
	return min(low, b.max), min(high, b.max)
}

// draws returns the range from which the wait after attempt number is drawn, before the cap.
func (b *Backoff) draws(number int, previous time.Duration) (low, high time.Duration) {
	switch b.jitter {
	case NoJitter:
		base := b.base(number)
		return base, base
	case FullJitter:
		return 0, b.base(number)
	case EqualJitter:
		base := b.base(number)
		return base - base/2, base
	case DecorrelatedJitter:
		// The first wait is drawn as if initial came before it. Without that, all clients that fail together would wait
		// exactly initial.
		return b.initial, scale(max(previous, b.initial), decorrelation, math.MaxInt64)
	}
	base := b.base(number)
	f, _ := b.jitter.factor()
	return scale(base, 1-f, base), scale(base, 1+f, b.max)
}

// base returns the wait after attempt number without jitter.
func (b *Backoff) base(number int) time.Duration {
	n := max(number, 1) - 1
	switch b.growth {
	case growLinear:
		if b.increment > 0 && time.Duration(n) > (b.max-b.initial)/b.increment {
			return b.max
		}
		return b.initial + time.Duration(n)*b.increment
	case growExponential:
		if n < maxSteps {
			return b.steps[n]
		}
		if b.steps[maxSteps-1] == b.max {
			return b.max
		}
		return b.power(n)
	}
	return b.initial
}

// power returns initial * multiplier^n, at most max.
func (b *Backoff) power(n int) time.Duration {
	if n == 0 {
		return b.initial // exactly: a float64 does not hold every duration above 104 days
	}
	return scale(b.initial, math.Pow(b.multiplier, float64(n)), b.max)
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
	switch b.growth {
	case growFixed:
		return fmt.Sprintf("fixed(%v, jitter %v)", b.initial, b.jitter)
	case growLinear:
		return fmt.Sprintf("linear(%v to %v, +%v, jitter %v)", b.initial, b.max, b.increment, b.jitter)
	case growExponential:
		return fmt.Sprintf("exponential(%v to %v, x%v, jitter %v)", b.initial, b.max, b.multiplier, b.jitter)
	}
	return "no retries"
}
