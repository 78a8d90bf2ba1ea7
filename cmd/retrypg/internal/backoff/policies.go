// Package backoff shows what the policies of package policy do: the waits of each, and the attempts of many clients
// that one outage has made fail at the same time.
package backoff

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/retrypg/retrypg/policy"
)

// Kinds are the kinds of growth that package policy knows.
var Kinds = []string{"fixed", "linear", "exponential"}

// Jitters are the kinds of jitter that package policy knows, the proportional one with its usual factor.
var Jitters = []string{"none", "full", "equal", "decorrelated", "proportional"}

// All stands for all kinds, and for all jitters.
const All = "all"

// Settings say which policies are looked at.
type Settings struct {
	Kinds      []string // of Kinds, or All
	Jitters    []string // as policy.ParseJitter reads them, or All
	Initial    time.Duration
	Max        time.Duration // of the linear and the exponential kind
	Increment  time.Duration // of the linear kind
	Multiplier float64       // of the exponential kind
}

// Policy is one policy, with what it is made of.
type Policy struct {
	Kind   string
	Jitter string
	policy.Backoff
	wide policy.Backoff // the same without a cap, where the cap is applied after the draw
	max  time.Duration  // the cap of wide
}

// Policies returns each kind with each jitter. A pair that does not exist is left out, unless it is the only one.
func (s Settings) Policies() ([]Policy, error) {
	kinds, err := expand("kind", s.Kinds, Kinds)
	if err != nil {
		return nil, err
	}
	jitters, err := expand("jitter", s.Jitters, Jitters)
	if err != nil {
		return nil, err
	}
	var policies []Policy
	for _, kind := range kinds {
		for _, name := range jitters {
			jitter, err := policy.ParseJitter(name)
			if err != nil {
				return nil, err
			}
			if kind == "fixed" && jitter == policy.DecorrelatedJitter && len(kinds)*len(jitters) > 1 {
				continue
			}
			p, err := s.policy(kind, jitter)
			if err != nil {
				return nil, err
			}
			policies = append(policies, p)
		}
	}
	return policies, nil
}

// expand returns the names, each once, with All taken for all that there are. What they may be is checked where they are
// used, but for kinds.
func expand(what string, names, all []string) ([]string, error) {
	var expanded []string
	for _, name := range names {
		some := []string{name}
		if name == All {
			some = all
		}
		for _, n := range some {
			if !slices.Contains(expanded, n) {
				expanded = append(expanded, n)
			}
		}
	}
	if len(expanded) == 0 {
		return nil, fmt.Errorf("no %s given: give %s or %s", what, strings.Join(all, ", "), All)
	}
	return expanded, nil
}

// uncapped is the longest cap that a backoff can have.
const uncapped = time.Duration(math.MaxInt64)

func (s Settings) policy(kind string, jitter policy.Jitter) (Policy, error) {
	p := Policy{Kind: kind, Jitter: jitter.String(), max: s.Max}
	build := func(longest time.Duration) (policy.Backoff, error) {
		switch kind {
		case "fixed":
			return policy.Fixed(s.Initial, jitter)
		case "linear":
			return policy.Linear(s.Initial, s.Increment, longest, jitter)
		case "exponential":
			return policy.Exponential(s.Initial, longest, s.Multiplier, jitter)
		}
		return policy.Backoff{}, fmt.Errorf("kind %q: give %s or %s", kind, strings.Join(Kinds, ", "), All)
	}
	var err error
	if p.Backoff, err = build(s.Max); err != nil {
		return p, errors.New(strings.TrimPrefix(err.Error(), "policy: "))
	}
	p.wide = p.Backoff
	if kind == "fixed" {
		p.max = uncapped
	}
	if jitter == policy.DecorrelatedJitter {
		p.wide, err = build(uncapped)
	}
	return p, err
}

// draw returns a wait as Next draws it: evenly between its bounds, both included, where that of decorrelated jitter is
// cut to the cap after the draw (see policy.Jitter). Next itself has a source of randomness that takes no seed.
func (p *Policy) draw(rng *rand.Rand, a policy.Attempt) time.Duration {
	low, high := p.wide.Bounds(a)
	return min(low+time.Duration(rng.Uint64N(uint64(high-low)+1)), p.max)
}
