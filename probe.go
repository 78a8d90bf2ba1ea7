package retrypg

import (
	"time"

	"github.com/retrypg/retrypg/policy"
)

// The waits of the one prober that looks for the return of a server, of which they take half at least.
const (
	// probeInitialDelay is the first wait. Chosen: a server that a restart took away for a moment is often back after some
	// tens of milliseconds.
	probeInitialDelay = 10 * time.Millisecond
	// probeMaxDelay caps them while the outage is young. It is low because there is one prober for each server in a process,
	// however many callers wait: a dozen attempts a second harm no server.
	probeMaxDelay = 100 * time.Millisecond
	// probeOld is when an outage is no longer young. Chosen: restarts and failovers are over by then, and a tenth of a second
	// more is one part in a hundred.
	probeOld = 10 * time.Second
	// probeOldMaxDelay caps them from then on.
	probeOldMaxDelay = 250 * time.Millisecond
)

// probePolicy is the backoff of the prober.
type probePolicy struct{ young, old policy.Policy }

func newProbePolicy() (p probePolicy, err error) {
	if p.young, err = policy.Exponential(probeInitialDelay, probeMaxDelay, 2, policy.EqualJitter); err != nil {
		return p, err
	}
	p.old, err = policy.Exponential(probeInitialDelay, probeOldMaxDelay, 2, policy.EqualJitter)
	return p, err
}

// Next implements policy.Policy.
func (p probePolicy) Next(a policy.Attempt) (time.Duration, bool) {
	if a.Elapsed < probeOld {
		return p.young.Next(a)
	}
	return p.old.Next(a)
}
