// Package contention lowers the number of transactions of one process that run at a time while they are in each other's way,
// so that a conflict is waited for before a transaction begins, where waiting costs nothing, and not found out when its work
// is done.
//
// Nothing of it happens while conflicts are rare: a transaction then costs one atomic load. A conflict makes the control
// watch the next attempts; where many of them conflict, what comes next is admitted in the order of its arrival: at most a
// number at a time that follows the conflicts ([Control] has one such limit for each name), and, where the callers say which
// things they change (keys), no two at a time that change the same. When nobody has had to wait for a while, and conflicts
// are rare again, the control goes back to doing nothing.
//
// Nothing here is needed for correctness: an attempt that is let through too early can only conflict. So nobody waits for
// what does not move, be it that its holder hangs or waits for the waiter itself: see [Control.Patience].
package contention

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options say how a Control works. The zero value is right.
type Options struct {
	// Escalate is after how many conflicts of a transaction its attempts run alone; 0 means DefaultEscalate.
	Escalate int
	// Elsewhere says that the attempts can have locks that hold in other processes, too: see [Call.Elsewhere].
	Elsewhere bool
}

// DefaultEscalate is after how many conflicts of a transaction its attempts run alone. Chosen: a transaction of ordinary
// luck needs two attempts, and one in sixteen needs five where each attempt conflicts as likely as not.
const DefaultEscalate = 4

// maxNames is how many names have a limit of their own; the rest share that of the empty name. Names are meant to be few.
const maxNames = 256

// Control admits the transactions of one database. It is safe for concurrent use, starts no goroutine, and keeps nothing of
// callers that are gone but the limits of up to maxNames names.
type Control struct {
	escalate  int
	active    atomic.Int32 // names that are not calm, and one for the keys: zero says that there is nothing to do
	seq       atomic.Uint64
	keys      keyTable
	elsewhere elsewhere
	names     atomic.Pointer[map[string]*limiter] // never changed in place
	naming    sync.Mutex                          // held while names is replaced
}

// New returns a Control that is calm.
func New(o Options) *Control {
	c := &Control{escalate: o.Escalate}
	if c.escalate == 0 {
		c.escalate = DefaultEscalate
	}
	c.keys.init(&c.active)
	c.elsewhere.wanted = o.Elsewhere
	return c
}

// named returns the limiter of a name, or nil where it has never met a conflict. add says that it is to have one.
func (c *Control) named(name string, add bool) *limiter {
	if all := c.names.Load(); all != nil {
		if l := (*all)[name]; l != nil {
			return l
		}
		if len(*all) > maxNames {
			return (*all)[""]
		}
	}
	if !add {
		return nil
	}
	return c.addName(name)
}

func (c *Control) addName(name string) *limiter {
	c.naming.Lock()
	defer c.naming.Unlock()
	old := c.names.Load()
	all := map[string]*limiter{"": newLimiter(&c.active)}
	if old != nil {
		if l := (*old)[name]; l != nil {
			return l
		}
		if len(*old) > maxNames {
			return (*old)[""]
		}
		for n, l := range *old {
			all[n] = l
		}
	}
	if all[name] == nil {
		all[name] = newLimiter(&c.active)
	}
	c.names.Store(&all)
	return all[name]
}

// State is what a Control does at a moment.
type State struct {
	Contended int // names whose transactions are admitted by a limit, and one for the keys
	Waiting   int // transactions that wait to be admitted
	Limit     int // the lowest limit in force; 0 where there is none
}

// State tells what the Control does now.
func (c *Control) State() (s State) {
	if c == nil || c.active.Load() == 0 {
		return s
	}
	c.keys.add(&s)
	if all := c.names.Load(); all != nil {
		for _, l := range *all {
			l.add(&s)
		}
	}
	return s
}

// Outcome is how an attempt ended.
type Outcome uint8

// The outcomes.
const (
	Other     Outcome = iota // with an error that says nothing of conflicts, or not at all
	Committed                // it committed
	Conflict                 // it was rolled back because of other transactions
	Deadlock                 // the same, after the server had let it wait to find out
)

func (o Outcome) conflict() bool { return o == Conflict || o == Deadlock }

// Call is one transaction with all its attempts: Enter, the attempt, Leave, and again. It must not be copied once in use,
// and is for one goroutine. The zero Call does nothing.
type Call struct {
	// Until, if not zero, is when the wait for an admission ends, with ErrLate.
	Until time.Time

	control   *Control
	name      string
	keys      []string
	seq       uint64 // when it first had to do with the control: its place in every queue
	conflicts int    // attempts that conflicted
	stubborn  int    // attempts that conflicted although they held their keys, or had none

	in      bool // between Enter and Leave of an attempt that the control is told of
	limiter *limiter
	pass    pass
	holds   *owner[string] // the keys; nil where it does not
	watched bool           // the attempt is one that the keys' watch counts
	began   time.Time
	print   *Footprint // of the attempt; nil where nobody looks at one
	marks   []uint64   // what earlier attempts have touched that conflicts
}

// ErrLate says that the time for attempts was over before one was admitted.
var ErrLate = errors.New("not admitted in time")

// Start begins a transaction. keys name what it will change; it may be nil. c may be nil.
func (c *Control) Start(name string, keys []string) Call {
	return Call{control: c, name: name, keys: keys}
}

// Enter waits until the next attempt may begin, and returns how long that took. The error is that of ctx, or ErrLate, and
// there is no Leave then. While the control is calm it is one atomic load.
func (t *Call) Enter(ctx context.Context) (waited time.Duration, err error) {
	c := t.control
	if c == nil || c.active.Load() == 0 && t.conflicts < c.escalate {
		return 0, nil
	}
	if t.Until.IsZero() {
		return t.enter(ctx)
	}
	bounded, cancel := context.WithDeadline(ctx, t.Until)
	defer cancel()
	if waited, err = t.enter(bounded); err != nil && ctx.Err() == nil {
		err = ErrLate
	}
	return waited, err
}

func (t *Call) enter(ctx context.Context) (waited time.Duration, err error) {
	c := t.control
	if t.seq == 0 {
		t.seq = c.seq.Add(1)
	}
	escalated := t.conflicts >= c.escalate
	free := false // of the limit: what has keys, and need not hold them, is the keys' business
	if len(t.keys) > 0 {
		switch c.keys.ask(escalated) {
		case contended:
			t.holds = new(owner[string])
			if waited, err = c.keys.hold(ctx, t.holds, t.keys, t.seq); err != nil {
				t.holds = nil
				return waited, err
			}
		case watching:
			t.watched, free = true, true
		default:
			free = true
		}
		escalated = t.stubborn >= c.escalate
	}
	if !free {
		if l := c.named(t.name, escalated); l != nil && (escalated || l.phase() != calm) {
			var more time.Duration
			t.pass, more, err = l.enter(ctx, t.seq, escalated)
			waited += more
			if err != nil {
				t.letGo()
				return waited, err
			}
			t.limiter = l
			if len(t.keys) == 0 && !escalated && l.phase() == contended {
				t.print = &Footprint{table: l.prints, seq: t.seq, known: slices.Clone(t.marks)}
			}
			if t.conflicts > 0 {
				if err := sleep(ctx, l.pause()); err != nil {
					t.in = true
					t.leave(Other)
					return waited, err
				}
			}
		}
	}
	t.in = true
	t.began = time.Now()
	return waited, nil
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// letGo gives the keys back.
func (t *Call) letGo() {
	if t.holds != nil {
		t.control.keys.drop(t.holds)
		t.holds = nil
	}
}

// Leave ends an attempt. It is to be called when the attempt holds nothing any more, after COMMIT or ROLLBACK. A second call
// does nothing.
func (t *Call) Leave(o Outcome) {
	if !t.in && !o.conflict() || t.control == nil {
		return
	}
	t.leave(o)
}

func (t *Call) leave(o Outcome) {
	c := t.control
	if o.conflict() {
		t.marks = t.print.marks(t.marks[:0])
		t.conflicts++
		if t.holds != nil || len(t.keys) == 0 {
			t.stubborn++
		}
	}
	if t.holds != nil {
		c.leaveKeys(o)
	}
	switch {
	case t.watched:
		c.keys.saw(o)
	case t.limiter != nil:
		t.limiter.leave(t.pass, t.print, o, time.Since(t.began))
	case !o.conflict():
	case len(t.keys) > 0 && t.holds == nil:
		c.keys.alarm(o)
	default:
		c.named(t.name, true).alarm(o)
	}
	t.letGo()
	t.in, t.watched, t.limiter, t.pass, t.print = false, false, nil, pass{}, nil
}

// Footprint is what the attempt that was admitted is to tell of its statements; nil where that is of no use.
func (t *Call) Footprint() *Footprint { return t.print }

// Escalated returns how many attempts have conflicted since the transaction was to run alone, and a negative number where it
// is not.
func (t *Call) Escalated() int {
	if t.control == nil {
		return -1
	}
	return t.conflicts - t.control.escalate
}

// Queued reports whether the next attempt will be admitted in its turn, so that there is no need to sleep before it. It
// is false once an attempt has conflicted that had all to itself: what it conflicts with is not of this process, or does
// not say what it changes; unless the next one is to have locks that hold elsewhere, too.
func (t *Call) Queued() bool {
	c := t.control
	if c == nil || t.conflicts >= c.escalate || c.active.Load() == 0 {
		return false
	}
	if len(t.keys) > 0 && (t.stubborn == 0 || c.elsewhere.on.Load()) {
		return c.keys.phase() == contended
	}
	l := c.named(t.name, false)
	return l != nil && l.phase() == contended
}

// Duration returns how long an attempt of this name took that committed, as a moving average; 0 where that is not known.
func (t *Call) Duration() time.Duration {
	if t.control == nil {
		return 0
	}
	if l := t.control.named(t.name, false); l != nil {
		return l.duration()
	}
	return 0
}
