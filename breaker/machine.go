package breaker

import (
	"math"
	"time"
)

// epoch is where now begins. Reading the monotonic clock alone takes half the time of time.Now.
var epoch = time.Now()

// now returns a monotonic time. Only differences mean anything.
func now() time.Duration { return time.Since(epoch) }

// openFor returns how long the breaker stays open; 0 or less if its time is over. It must be, or just have been, open.
func (b *Breaker) openFor() time.Duration { return time.Duration(b.openUntil.Load()) - now() }

// admit is Admit for a breaker that was not closed. A refusal while the breaker is open takes no lock: there are many.
func (b *Breaker) admit() (token uint64, err error) {
	if b == nil {
		return 0, nil
	}
	if stateOf(b.word.Load()) == Open {
		if left := b.openFor(); left > 0 {
			return 0, &OpenError{State: Open, RetryAfter: left}
		}
	}
	b.mu.Lock()
	defer b.unlock()
	t := now() // under the lock, so that time does not go backwards from one caller to the next
	switch b.stateLocked(t) {
	case HalfOpen:
		return b.probeLocked(t)
	case Open:
		return 0, &OpenError{State: Open, RetryAfter: time.Duration(b.openUntil.Load()) - t}
	}
	return b.word.Load(), nil
}

// settle is Settle for what may change something.
func (b *Breaker) settle(token uint64, outcome int) {
	if b == nil || stateOf(token) == Closed && outcome == 0 {
		return
	}
	b.mu.Lock()
	defer b.unlock()
	if stateOf(token) == Closed {
		b.closedResultLocked(token, outcome)
	} else {
		b.probeResultLocked(token, outcome)
	}
}

// stateLocked returns the state at t, after the change that time brings.
func (b *Breaker) stateLocked(t time.Duration) State {
	if stateOf(b.word.Load()) == Open && int64(t) >= b.openUntil.Load() {
		b.changeLocked(HalfOpen, t)
	}
	return stateOf(b.word.Load())
}

// changeLocked begins the next generation, in state to.
func (b *Breaker) changeLocked(to State, t time.Duration) {
	word := b.word.Load()
	b.failed, b.probed, b.probes = 0, 0, b.probes[:0]
	b.failing.Store(false)
	if to == Open {
		until := int64(t) + int64(b.opts.OpenFor)
		if until < int64(t) {
			until = math.MaxInt64
		}
		b.openUntil.Store(until)
	}
	b.word.Store((word>>stateBits+1)<<stateBits | uint64(to))
	if b.opts.OnStateChange != nil {
		b.changes = append(b.changes, change{from: stateOf(word), to: to})
	}
}

// closedResultLocked counts the result of what a closed breaker allowed.
func (b *Breaker) closedResultLocked(token uint64, outcome int) {
	if token != b.word.Load() || len(b.failures) == 0 {
		return // of an earlier generation, or of a Breaker not made with New
	}
	if outcome > 0 {
		b.failed = 0
		b.failing.Store(false)
		return
	}
	t := now()
	b.failures[b.failed%len(b.failures)] = t
	b.failed++
	b.failing.Store(true)
	if b.failed < len(b.failures) {
		return
	}
	if oldest := b.failures[b.failed%len(b.failures)]; t-oldest <= b.opts.Window {
		b.changeLocked(Open, t)
	}
}

// probe is a probe that holds a place in a half-open breaker.
type probe struct {
	token   uint64
	expires time.Duration // when its lease ends, a time of now
}

// probeLocked gives a place to a new probe: a free one, or that of the probe whose lease ended first.
func (b *Breaker) probeLocked(t time.Duration) (token uint64, err error) {
	expires := t + b.opts.ProbeLease
	if expires < t {
		expires = math.MaxInt64
	}
	place := 0
	if len(b.probes) < b.opts.Probes {
		place = len(b.probes)
		b.probes = append(b.probes, probe{})
	} else {
		for i, p := range b.probes {
			if p.expires < b.probes[place].expires {
				place = i
			}
		}
		if left := b.probes[place].expires - t; left > 0 {
			return 0, &OpenError{State: HalfOpen, RetryAfter: left, Probing: true}
		}
	}
	b.lastProbe++ // never used again, so that the result of a probe that lost its place is told apart
	token = b.lastProbe<<stateBits | uint64(HalfOpen)
	b.probes[place] = probe{token: token, expires: expires}
	return token, nil
}

// probeResultLocked counts the result of a probe, if it still has its place.
func (b *Breaker) probeResultLocked(token uint64, outcome int) {
	for i, p := range b.probes {
		if p.token != token {
			continue
		}
		last := len(b.probes) - 1
		b.probes[i] = b.probes[last]
		b.probes = b.probes[:last]
		switch {
		case outcome < 0:
			b.changeLocked(Open, now())
		case outcome > 0:
			if b.probed++; b.probed >= b.opts.ProbeSuccesses {
				b.changeLocked(Closed, now())
			}
		}
		return
	}
}
