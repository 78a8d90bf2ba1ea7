package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Jitter says how a wait is spread at random, so that clients that failed together do not come back together. With base
// the wait of the backoff without jitter, and its cap the longest wait that the backoff was made with, the draws are
// uniform, both bounds included, and never above the cap:
//
//	NoJitter               base
//	FullJitter             0 to base
//	EqualJitter            base/2 to base
//	ProportionalJitter(f)  base*(1-f) to base*(1+f), or to the cap where that is less
//	DecorrelatedJitter     initial to 3 * the wait before; a draw above the cap becomes the cap
//
// Full, equal and decorrelated jitter are those of "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015). Full
// jitter puts the least load on a server; equal jitter guarantees a pause. With decorrelated jitter the growth of the
// backoff has no effect, and two of three late waits are the cap itself, so late waves of clients spread less than with
// full jitter.
//
// A Jitter is comparable; the zero value is NoJitter. Values come from the constants, [ProportionalJitter] and
// [ParseJitter] alone.
type Jitter uint64

// The jitters without a parameter.
const (
	NoJitter Jitter = iota
	FullJitter
	EqualJitter
	DecorrelatedJitter
)

// DefaultJitterFactor is the factor of "proportional" in [ParseJitter].
const DefaultJitterFactor = 0.25

// minJitterFactor is the smallest factor that changes anything worth it: 1 ns in a second. It also keeps the bits of all
// factors apart from the constants.
const minJitterFactor = 1e-9

// ProportionalJitter spreads a wait evenly around its base, from base*(1-factor) to base*(1+factor). factor is from 0 to
// 1; one below 0.000000001 is NoJitter.
func ProportionalJitter(factor float64) (Jitter, error) {
	if !(factor >= 0 && factor <= 1) { // refuses NaN too
		return NoJitter, fmt.Errorf("policy: proportional jitter %v: give a factor from 0 to 1", factor)
	}
	if factor < minJitterFactor {
		return NoJitter, nil
	}
	return Jitter(math.Float64bits(factor)), nil
}

// ParseJitter returns the jitter named none, full, equal, decorrelated, proportional, or proportional:F with the factor F
// in decimal, as in proportional:0.25, which is also what proportional alone means. Every String of a Jitter can be parsed.
func ParseJitter(s string) (Jitter, error) {
	switch s {
	case "none":
		return NoJitter, nil
	case "full":
		return FullJitter, nil
	case "equal":
		return EqualJitter, nil
	case "decorrelated":
		return DecorrelatedJitter, nil
	case "proportional":
		return ProportionalJitter(DefaultJitterFactor)
	}
	if factor, ok := strings.CutPrefix(s, "proportional:"); ok {
		f, err := strconv.ParseFloat(factor, 64)
		if err != nil {
			return NoJitter, fmt.Errorf("policy: jitter %.64q: the factor after the colon must be a number from 0 to 1", s)
		}
		return ProportionalJitter(f)
	}
	return NoJitter, fmt.Errorf("policy: jitter %.64q: give none, full, equal, decorrelated, proportional or proportional:0.25", s)
}

// String returns the name that ParseJitter accepts.
func (j Jitter) String() string {
	switch j {
	case NoJitter:
		return "none"
	case FullJitter:
		return "full"
	case EqualJitter:
		return "equal"
	case DecorrelatedJitter:
		return "decorrelated"
	}
	if f, ok := j.factor(); ok {
		return "proportional:" + strconv.FormatFloat(f, 'g', -1, 64)
	}
	return fmt.Sprintf("jitter(%d)", uint64(j))
}

// factor returns the factor of a proportional jitter. It is false for the constants and for numbers that are no jitter.
func (j Jitter) factor() (float64, bool) {
	f := math.Float64frombits(uint64(j))
	return f, f >= minJitterFactor && f <= 1
}

func (j Jitter) check() error {
	if _, ok := j.factor(); !ok && j > DecorrelatedJitter {
		return fmt.Errorf("policy: jitter(%d) is none: use a constant, ProportionalJitter or ParseJitter", uint64(j))
	}
	return nil
}
