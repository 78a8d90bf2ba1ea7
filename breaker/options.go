package breaker

import (
	"fmt"
	"time"
)

// Defaults of [Options].
const (
	// DefaultFailures is how many failures in a row open a breaker. Chosen: a single killed connection does not.
	DefaultFailures = 5
	// DefaultWindow is how far apart these failures may be: the statistical window of Netflix's Hystrix.
	DefaultWindow = 10 * time.Second
	// DefaultOpenFor is how long a breaker stays open: the sleep window of Hystrix. A small PostgreSQL server restarts
	// within it.
	DefaultOpenFor = 5 * time.Second
	// DefaultProbes is the number of probes at a time. Chosen: one is enough to learn whether the server is back.
	DefaultProbes = 1
	// DefaultProbeSuccesses is the number of successful probes that close a breaker. Chosen: callers wait for it.
	DefaultProbeSuccesses = 1
	// DefaultProbeLease is how long a probe keeps its place. Chosen: twice what retrypg lets one connection attempt to one
	// host take.
	DefaultProbeLease = 10 * time.Second
)

// Bounds of [Options]. A breaker keeps one time for each of Failures and one lease for each of Probes, so the bounds, which
// are chosen, bound its memory.
const (
	// MaxFailures is the largest Failures.
	MaxFailures = 10_000
	// MaxProbes is the largest Probes and ProbeSuccesses.
	MaxProbes = 10_000
)

// Options say how a [Breaker] decides. The zero value is right for most.
type Options struct {
	// Failures is the number of failures, without a success between them, that opens a closed breaker, from 1 to
	// MaxFailures. Zero means DefaultFailures.
	Failures int
	// Window is the longest time between the first and the last of these failures. Zero means DefaultWindow.
	Window time.Duration
	// OpenFor is how long the breaker refuses everything. Zero means DefaultOpenFor.
	OpenFor time.Duration
	// Probes is the number of attempts that a half-open breaker allows at a time, from 1 to MaxProbes. Zero means
	// DefaultProbes.
	Probes int
	// ProbeSuccesses is the number of successful probes that closes a half-open breaker, from 1 to MaxProbes. Zero means
	// DefaultProbeSuccesses.
	ProbeSuccesses int
	// ProbeLease is how long a probe that has not reported keeps its place from others. Its result counts until another
	// probe has taken the place. Zero means DefaultProbeLease.
	ProbeLease time.Duration
	// OnStateChange, if not nil, is called after each change of state, in the order of the changes, one call at a time and
	// under no lock, so it may use the breaker. It is called by a goroutine that uses the breaker, which waits for it to
	// return; asking for the state is a use too. An open breaker that nobody uses tells of its change to half-open when it
	// is used next.
	OnStateChange func(from, to State)
}

// complete fills in the defaults, and returns an error that names the first option out of bounds.
func (o *Options) complete() error {
	for _, n := range []struct {
		name              string
		value             *int
		standard, longest int
	}{
		{"failures", &o.Failures, DefaultFailures, MaxFailures},
		{"probes", &o.Probes, DefaultProbes, MaxProbes},
		{"probe successes", &o.ProbeSuccesses, DefaultProbeSuccesses, MaxProbes},
	} {
		if *n.value == 0 {
			*n.value = n.standard
		}
		if *n.value < 1 || *n.value > n.longest {
			return fmt.Errorf("breaker: %s %d: give a number from 1 to %d", n.name, *n.value, n.longest)
		}
	}
	for _, d := range []struct {
		name     string
		value    *time.Duration
		standard time.Duration
	}{
		{"window", &o.Window, DefaultWindow},
		{"open for", &o.OpenFor, DefaultOpenFor},
		{"probe lease", &o.ProbeLease, DefaultProbeLease},
	} {
		if *d.value == 0 {
			*d.value = d.standard
		}
		if *d.value < 0 {
			return fmt.Errorf("breaker: %s %v: give a positive duration", d.name, *d.value)
		}
	}
	return nil
}
