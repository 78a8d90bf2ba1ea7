package contention

import (
	"sync"
	"sync/atomic"
	"time"
)

// elsewhere tells whether transactions with keys conflict with others of other processes, of which a keyTable knows nothing.
// Then, where the caller can have locks that hold there too, every attempt that holds its keys here is to have those.
//
// It begins with a conflict of an attempt that held all of its keys. That is no proof: what it conflicted with may as well be
// of somebody who has no such locks, or who does not say what it changes. The proof is a lock that has to be waited for, as here
// nobody waits for one: the keys come first. So the locks are given up when none was waited for, and nothing conflicted, for a while; and
// also where conflicts go on although none is waited for, and then not tried again for longer.
type elsewhere struct {
	wanted bool // there are such locks
	on     atomic.Bool

	mu      sync.Mutex
	trouble time.Time // when an attempt conflicted that held its keys, or a lock had to be waited for
	quiet   int       // attempts since then
	useful  time.Time // when a lock had to be waited for, or the conflicts began that go on
	next    time.Time // they are not tried again before that
}

const (
	// useless is for how long conflicts may go on without a wait for a lock. Chosen: the other processes must
	// have found out, too, each by conflicts of its own, of which one that is a deadlock takes a second.
	useless = 4 * time.Second
	// notAgain is for how long the locks are not tried then. Chosen: they are of no use for a sixteenth of the time at most.
	notAgain = 15 * useless
)

// left is told of an attempt that held its keys, and how it ended.
func (e *elsewhere) left(o Outcome) {
	if !e.wanted || !o.conflict() && !e.on.Load() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now, on := time.Now(), e.on.Load()
	switch {
	case !o.conflict():
		if e.quiet++; e.quiet >= watchFor && now.Sub(e.trouble) >= calmAfter {
			e.on.Store(false)
		}
		return
	case !on && now.Before(e.next):
		return
	case !on, now.Sub(e.trouble) >= calmAfter: // conflicts begin, or begin again: it may be long since anybody could have waited
		e.useful = now
	}
	on = now.Sub(e.useful) < useless
	if !on {
		e.next = now.Add(notAgain)
	}
	e.trouble, e.quiet = now, 0
	e.on.Store(on)
}

// waited is told that a lock had to be waited for, perhaps by an attempt that was to run alone, which takes them in any case.
func (e *elsewhere) waited() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	e.trouble, e.useful, e.quiet, e.next = now, now, 0, time.Time{}
	e.on.Store(true)
}

// Elsewhere reports whether the attempt that was admitted is to have locks that hold in other processes, too: it is to run
// alone, or holds its keys here while others elsewhere are in the way of such attempts.
func (t *Call) Elsewhere() bool {
	return t.Escalated() >= 0 || t.holds != nil && t.control.elsewhere.on.Load()
}

// WaitedElsewhere is told, before Leave, that the attempt had to wait for such a lock: somebody elsewhere had it. The keys are not
// calm then, although here nobody may have had to wait.
func (t *Call) WaitedElsewhere() {
	if t.control == nil || t.holds == nil || !t.control.elsewhere.wanted {
		return
	}
	t.control.elsewhere.waited()
	t.control.stirKeys()
}

// leaveKeys is told of an attempt that held its keys, and how it ended.
func (c *Control) leaveKeys(o Outcome) {
	c.elsewhere.left(o)
	if c.elsewhere.wanted && o.conflict() {
		c.stirKeys()
	}
}

// stirKeys keeps the keys from the calm for a while, in which nothing is known of locks elsewhere.
func (c *Control) stirKeys() {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	c.keys.stir()
}
