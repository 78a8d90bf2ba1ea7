package breaker

import (
	"math"
	"time"
	"weak"
)

// epoch is where now begins. Reading the monotonic clock alone takes half the time of time.Now.
var epoch = time.Now()

// now returns a monotonic time. Only differences mean anything.
func now() time.Duration { return time.Since(epoch) }

// allow is Allow for a breaker that is neither closed nor certain to refuse. A refusal while it is open takes no lock:
// there are many.
func (b *Breaker) allow() (Permit, error) {
	if stateOf(b.word.Load()) == Open {
		if refusal := b.refusal.Load(); refusal.until > now() {
			return Permit{}, refusal
		}
	}
	b.mu.Lock()
	defer b.unlock()
	t := now() // under the lock, so that time does not go backwards from one caller to the next
	switch b.stateLocked(t) {
	case HalfOpen:
		return b.probeLocked(t)
	case Open:
		return Permit{}, b.refusal.Load()
	}
	return Permit{breaker: b, token: b.word.Load() &^ failing}, nil
}

// settle is Settle for what may change something.
func (b *Breaker) settle(token uint64, outcome int) {
	if stateOf(token) == Closed && outcome == 0 {
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
	if stateOf(b.word.Load()) == Open && t >= b.refusal.Load().until {
		b.changeLocked(HalfOpen, t)
	}
	return stateOf(b.word.Load())
}

// changeLocked begins the next generation, in state to.
func (b *Breaker) changeLocked(to State, t time.Duration) {
	word := b.word.Load()
	b.failed, b.probed, b.probes = 0, 0, b.probes[:0]
	next := (word>>stateBits+1)<<stateBits | uint64(to)
	if to == Open {
		until := t + b.opts.OpenFor
		if until < t {
			until = math.MaxInt64
		}
		b.refusal.Store(&OpenError{state: Open, until: until})
		if b.opts.OpenFor >= minUnwatched {
			next |= certain
		}
	}
	b.word.Store(next)
	if next&flagsMask == refusing {
		b.watchFrom(b.opts.OpenFor-clockWatch, next)
	}
	if b.opts.OnStateChange != nil {
		b.changes = append(b.changes, change{from: stateOf(word), to: to})
	}
}

// The open time is over by the clock. To read it at each refusal would make a refusal many times as expensive, so a timer
// has it read from a little before the end on only. The end is exact, in a bubble of testing/synctest too, unless the timer
// comes later than clockWatch: the breaker is then open for so much longer, or until somebody asks for State, which always
// reads the clock.
const (
	// clockWatch is how long before the end the clock is read again. Chosen: on a busy machine a timer comes some
	// milliseconds late.
	clockWatch = 100 * time.Millisecond
	// minUnwatched is the shortest open time with a timer.
	minUnwatched = 2 * clockWatch
)

// watchFrom takes certain out of word after d. Nothing needs to stop its timer, which does not keep the breaker in memory,
// has no goroutine while it waits, and changes nothing if the word is another one by then. It is a new one each time: one of
// a testing/synctest bubble must not be reset outside of it.
func (b *Breaker) watchFrom(d time.Duration, word uint64) {
	weakly := weak.Make(b)
	time.AfterFunc(d, func() {
		if b := weakly.Value(); b != nil {
			b.word.CompareAndSwap(word, word&^certain)
		}
	})
}

// closedResultLocked counts the result of what a closed breaker allowed.
func (b *Breaker) closedResultLocked(token uint64, outcome int) {
	if token != b.word.Load()&^failing || len(b.failures) == 0 {
		return // of an earlier generation, or of a Breaker not made with New
	}
	if outcome > 0 {
		b.failed = 0
		b.word.Store(token)
		return
	}
	t := now()
	b.failures[b.failed%len(b.failures)] = t
	b.failed++
	b.word.Store(token | failing)
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
func (b *Breaker) probeLocked(t time.Duration) (Permit, error) {
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
		if until := b.probes[place].expires; until > t {
			return Permit{}, &OpenError{state: HalfOpen, until: until}
		}
	}
	b.lastProbe++ // never used again, so that the result of a probe that lost its place is told apart
	token := b.lastProbe<<stateBits | probing | uint64(HalfOpen)
	b.probes[place] = probe{token: token, expires: expires}
	return Permit{breaker: b, token: token}, nil
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
