// Package endpoint keeps what one process knows of the servers that its handles lead to: whether they accept connections,
// and who of the callers that need one looks for their return.
package endpoint

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/retrypg/retrypg/policy"
)

// rampUp is how many waiters each finished attempt lets in once the server is back. Eight make the number of connections
// that are being opened grow eightfold with each round trip, so that a server which has just come back is not met by all
// callers at once, and still serves n of them after log8(n) round trips. Chosen: two processors of a server are busy with so
// many connections that begin, and four took longer in measurements.
const rampUp = 8

// Options say how a Gate works. Backoff is needed.
type Options struct {
	// Backoff says how long the prober waits between attempts.
	Backoff policy.Policy
	// OnWait, if not nil, is called by the prober before each wait.
	OnWait func(ctx context.Context, a policy.Attempt, wait time.Duration)
}

// Call says how one call of Gate.Do goes. Healable is needed.
type Call struct {
	// Healable reports whether waiting can heal a connection attempt that failed with err.
	Healable func(err error) bool
	// Limit, if positive, bounds the call in addition to its context.
	Limit time.Duration
	// Once makes the call try once: the error of its attempt is its own, and where the server is known to be away and somebody
	// is looking for it, it fails at once with what was last seen.
	Once bool
	// Stock, if not nil, may serve the call while the server is away.
	Stock *Stock
	// ID, if not nil, identifies the call to others; Waited, if not nil, is called when a call goes on that has waited for others: by
	// is the ID of the one that has found the server back, and nil where there is something in the stock.
	ID     any
	Waited func(by any)
}

// Gate lets connection attempts through while the server accepts them. When one fails in a way that waiting can heal,
// exactly one of the waiting callers (the prober) goes on trying, and all others wait for its success, each within its
// own deadline; when the prober's deadline ends, another waiter takes over. No goroutine is started. A Gate is safe for
// concurrent use.
type Gate struct {
	opts Options
	down atomic.Bool

	mu       sync.Mutex
	since    time.Time     // when the gate went down
	attempts int           // failed attempts since then
	failedAt time.Time     // when the last of them failed
	lapsed   time.Time     // when nobody looked any more; zero while somebody does
	wait     time.Duration // the prober's last wait, counted from failedAt
	lastErr  error         // the last healable failure
	foundBy  any           // the ID of the call that found the server back last
	foundAt  time.Time     // when that was
	probing  bool          // somebody has turnProbe, or is being given it; only its holder ends that
	waiters  []*waiter     // in order of arrival

	observers []*observer
}

type waiter struct {
	since time.Time // when its call began
	turn  chan turn // buffered, sent to at most once, while the waiter is in Gate.waiters
}

// turn is what a waiter is told to do.
type turn uint8

const (
	turnProbe turn = iota // be the prober
	turnEnter             // the server is back: connect
	turnTake              // there may be something in the stock
)

// ErrDown is what an attempt may fail with that had to wait for something else first and finds the server away by then, which it
// did not when it began: it says nothing of the server, and the call waits with the others.
var ErrDown = errors.New("the server is away")

// ErrNoPlace is what an attempt fails with that would first have to wait for what other callers of the stock have.
var ErrNoPlace = errors.New("no place")

// ErrInStock is what an attempt returns that was served from the stock: the call has succeeded, and nothing was learned of the
// server.
var ErrInStock = errors.New("served from the stock")

type admittedKey struct{}

// Admitted reports whether an attempt with ctx was let through by g when it knew the server to be away: it must not fail with
// ErrDown.
func (g *Gate) Admitted(ctx context.Context) bool { return ctx.Value(admittedKey{}) == g }

// New returns a gate that is open.
func New(o Options) *Gate { return &Gate{opts: o} }

// Down reports whether the server is thought to be away, and since when.
func (g *Gate) Down() (time.Time, bool) {
	if !g.down.Load() {
		return time.Time{}, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.since, g.down.Load()
}

// Do runs attempt until it succeeds, fails for good, or no time is left: ctx has ended or, where there is one, the limit is
// over. It returns nil, or the error of a first attempt that waiting cannot heal, or that was to be the only one, as it is, or a
// *policy.ExhaustedError with the last failure that was seen of the server, be it another caller's.
func (g *Gate) Do(ctx context.Context, how Call, attempt func(context.Context) error) error {
	c := call{gate: g, start: time.Now(), seen: g.failures()}
	if how.Limit > 0 {
		end := c.start.Add(how.Limit)
		deadline, ok := ctx.Deadline()
		c.limited = !ok || end.Before(deadline)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end)
		defer cancel()
	}
	if ctx.Err() != nil {
		return c.ended(ctx, nil)
	}
	if !g.down.Load() {
		c.own++
		err := attempt(ctx)
		if errors.Is(err, ErrInStock) {
			return nil
		}
		if err == nil || !errors.Is(err, ErrDown) && !how.Healable(err) && !Over(ctx) {
			return err
		}
		if Over(ctx) {
			// What the caller's own end cut short says nothing of the server.
			return c.ended(ctx, err)
		}
		if errors.Is(err, ErrDown) {
			c.own--
		} else {
			g.failed(err, c.start)
			if how.Once {
				return err
			}
		}
	}
	admitted := context.WithValue(ctx, admittedKey{}, g)
	var t turn
	holding := false
	defer func() {
		if holding { // also when attempt or a hook panics: a turn that nobody passes on would be waited for for ever
			g.finish(t)
		}
	}()
	for {
		if !holding {
			switch t, holding = c.await(ctx, how); {
			case holding && t == turnTake:
				holding = false
				if how.Waited != nil {
					how.Waited(nil)
				}
				if done, err := c.take(ctx, how.Stock); done {
					return err
				}
				continue
			case holding:
				if t == turnEnter && how.Waited != nil {
					how.Waited(g.finder())
				}
			case how.Once && ctx.Err() == nil:
				if !g.down.Load() {
					continue // it has come back in this moment
				}
				return c.exhausted(policy.StopNotRetryable, nil, nil)
			default:
				return c.ended(ctx, nil)
			}
		}
		if t == turnProbe && !how.Once && !g.pause(ctx) {
			return c.ended(ctx, nil)
		}
		c.own++
		began := time.Now()
		err := attempt(admitted)
		switch {
		case err == nil:
			holding = false
			g.succeeded(t, how.ID)
			return nil
		case errors.Is(err, ErrInStock):
			return nil // the turn is passed on
		case errors.Is(err, ErrNoPlace) && how.Stock != nil:
			// Nobody waits with a turn in hand for what other callers have: those that wait for the turn may need nothing of it.
			holding = false
			c.own--
			g.finish(t)
			if done, err := c.take(ctx, how.Stock); done {
				return err
			}
			continue
		case Over(ctx):
			return c.ended(ctx, err)
		case !how.Healable(err):
			return c.exhausted(policy.StopNotRetryable, err, nil)
		}
		holding = t == turnProbe // the prober goes on
		g.failed(err, began)
		if how.Once {
			return err
		}
	}
}

// failures returns how many attempts have failed in the outage that goes on, and 0 if there is none.
func (g *Gate) failures() int {
	if !g.down.Load() {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.attempts
}

// finder returns the ID of the call that found the server back last.
func (g *Gate) finder() any {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.foundBy
}

// leave takes a waiter out of those that wait; it was woken already if that is false.
func (g *Gate) leave(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiters, w)
	if i < 0 {
		return false
	}
	g.waiters = slices.Delete(g.waiters, i, i+1)
	return true
}

// pause is the prober's wait before an attempt. It returns false, at once, where the wait could not end before ctx does.
func (g *Gate) pause(ctx context.Context) bool {
	g.mu.Lock()
	a := policy.Attempt{Number: max(g.attempts, 1), Elapsed: time.Since(g.since), Wait: g.wait, Err: g.lastErr}
	wait, ok := g.opts.Backoff.Next(a)
	if !ok {
		wait = g.wait
	}
	g.wait = wait
	// After a time in which nobody asked for a connection the wait is over already.
	wait -= time.Since(g.failedAt)
	g.mu.Unlock()
	if wait <= 0 {
		return ctx.Err() == nil
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return false
	}
	if g.opts.OnWait != nil {
		g.opts.OnWait(ctx, a, wait)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// failed notes a healable failure of an attempt that began at began, and sees to it that somebody probes: before user code runs,
// which may panic. An attempt that began before the server was found back says nothing new: its caller tries again.
func (g *Gate) failed(err error, began time.Time) {
	g.mu.Lock()
	wentDown := !g.down.Load()
	if wentDown && began.Before(g.foundAt) {
		g.mu.Unlock()
		return
	}
	if wentDown {
		g.down.Store(true)
		g.since, g.attempts, g.wait = time.Now(), 0, 0
	}
	g.attempts++
	g.lastErr, g.failedAt, g.lapsed = err, time.Now(), time.Time{}
	g.promoteLocked()
	var tell []func()
	for _, o := range g.observers {
		if down := o.Down; !o.told && down != nil {
			tell = append(tell, func() { down(err) })
		}
		o.told = true
	}
	g.mu.Unlock()
	callAll(tell)
}

// succeeded opens the gate and lets the first waiters in. Only the prober ends its probing: a success of one who was let
// in earlier leaves it at work, so that there is never a second one.
func (g *Gate) succeeded(t turn, by any) {
	g.mu.Lock()
	wasDown := g.down.Load()
	if wasDown {
		g.foundBy, g.foundAt = by, time.Now()
	}
	after, attempts := time.Since(g.since), g.attempts+1
	if !g.lapsed.IsZero() { // it may have been back since then
		after = g.lapsed.Sub(g.since)
	}
	g.down.Store(false)
	if t == turnProbe {
		g.probing = false
	}
	g.enterLocked(rampUp)
	var tell []func()
	for _, o := range g.observers {
		if up := o.Up; wasDown && o.told && up != nil {
			tell = append(tell, func() { up(after, attempts) })
		}
		o.told = o.told && !wasDown
	}
	g.mu.Unlock()
	callAll(tell)
}

// finish ends a turn that said nothing about the server: the next waiter gets it.
func (g *Gate) finish(t turn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passOnLocked(t)
}

// passOnLocked hands a turn that was not used to the next waiter.
func (g *Gate) passOnLocked(t turn) {
	if t == turnProbe {
		g.probing = false
	}
	if g.down.Load() {
		g.promoteLocked()
		return
	}
	g.enterLocked(rampUp)
}

// promoteLocked makes the longest waiter the prober, if there is none.
func (g *Gate) promoteLocked() {
	switch {
	case g.probing || !g.down.Load():
	case len(g.waiters) > 0:
		g.beginLocked()
		g.wakeLocked(turnProbe)
	case g.lapsed.IsZero():
		g.lapsed = time.Now()
	}
}

// beginLocked begins the turn of a prober.
func (g *Gate) beginLocked() {
	g.probing = true
	if time.Since(g.lapsed) < unattended {
		g.lapsed = time.Time{}
	}
}

// enterLocked lets n waiters in.
func (g *Gate) enterLocked(n int) {
	for ; n > 0 && len(g.waiters) > 0; n-- {
		g.wakeLocked(turnEnter)
	}
}

// wakeLocked gives the turn to the one that has waited longest.
func (g *Gate) wakeLocked(t turn) {
	w := g.waiters[0]
	g.waiters[0] = nil
	g.waiters = g.waiters[1:]
	w.turn <- t
}
