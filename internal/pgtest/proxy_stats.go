package pgtest

import (
	"context"
	"fmt"
	"slices"
)

// Stats are what a [Proxy] has seen since it started. A copy does not change.
type Stats struct {
	Accepted int // connections taken from the listener, of every kind
	Opened   int // of these, those that have reached the server
	Active   int // of these, those that are open and were not cut
	Cancels  int // requests to cancel a statement, passed to the server or dropped
	// Flights is how often a client sent something after it had been sent something, or for the first time: the round trips
	// that clients waited for, however many messages each carried. The startup message is one; a request for TLS is not.
	Flights int
	// Swallowed is the number of bytes that black holes and cuts kept from arriving.
	Swallowed int64
	// Queries are the texts of the statements that clients asked to run, in order, at most the last 8192: of the simple
	// protocol, and of each Execute of the extended one.
	Queries []string
	// messages counts by direction and type.
	messages [2][256]int
}

// queriesKept bounds Stats.Queries.
const queriesKept = 8192

// Messages returns how many messages of a type came from a side: Messages(FromServer, 'D') is the number of rows.
func (s Stats) Messages(dir Direction, kind byte) int { return s.messages[dir][kind] }

// Seen returns how many of the queries begin with text, as [Sending] compares.
func (s Stats) Seen(text string) int {
	n := 0
	for _, query := range s.Queries {
		if beginsWith(query, text) {
			n++
		}
	}
	return n
}

// Stats returns the counters.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.statsLocked()
}

func (p *Proxy) statsLocked() Stats {
	s := p.stats
	s.Queries = slices.Clone(s.Queries)
	return s
}

// count changes the counters and wakes whoever waits for them.
func (p *Proxy) count(change func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.stats)
	if extra := len(p.stats.Queries) - queriesKept; extra > 0 {
		p.stats.Queries = slices.Delete(p.stats.Queries, 0, extra)
	}
	if p.waiting > 0 {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// Wait blocks until the counters satisfy a condition, which is asked at once and after every change, or until ctx is
// done or the proxy closed.
func (p *Proxy) Wait(ctx context.Context, condition func(Stats) bool) error {
	p.mu.Lock()
	p.waiting++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.waiting--
		p.mu.Unlock()
	}()
	for {
		p.mu.Lock()
		s, changed := p.statsLocked(), p.changed
		p.mu.Unlock()
		if condition(s) {
			return nil
		}
		select {
		case <-changed:
		case <-p.ctx.Done():
			return fmt.Errorf("wait for the proxy's counters: %w", ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("wait for the proxy's counters: %w", context.Cause(ctx))
		}
	}
}
