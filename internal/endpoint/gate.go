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

// Observer is told of what a Gate finds out. Each function may be nil.
type Observer struct {
	// Down and Up are called when the server is found to be away, and when it is found to be back.
	Down func(err error)
	Up   func(after time.Duration, attempts int)
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
	// ID, if not nil, identifies the call to others; Served, if not nil, is told the ID of the call that has found the server back,
	// when a call that waited for that is let in.
	ID     any
	Served func(by any)
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
	wait     time.Duration // the prober's last wait, counted from failedAt
	lastErr  error         // the last healable failure
	foundBy  any           // the ID of the call that found the server back last
	foundAt  time.Time     // when that was
	probing  bool          // somebody has turnProbe, or is being given it; only its holder ends that
	waiters  []*waiter     // in order of arrival

	observers []*Observer
}

type waiter struct {
	turn chan turn // buffered, sent to at most once, while the waiter is in Gate.waiters
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

// Admitted reports whether an attempt with ctx was let through by a gate that knew the server to be away: it must not fail with
// ErrDown.
func Admitted(ctx context.Context) bool { return ctx.Value(admittedKey{}) != nil }

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

// Observe makes o be told of what the gate finds out, until the returned function is called.
func (g *Gate) Observe(o Observer) (stop func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := &o
	g.observers = append(slices.Clone(g.observers), p) // those before may be in use
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.observers = slices.DeleteFunc(slices.Clone(g.observers), func(other *Observer) bool { return other == p })
	}
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
		away := errors.Is(err, ErrDown)
		if !away {
			g.failed(err, c.start)
		}
		switch {
		case how.Once && away:
			return c.exhausted(policy.StopNotRetryable, nil, nil)
		case how.Once:
			return err
		}
	}
	admitted := context.WithValue(ctx, admittedKey{}, true)
	var t turn
	holding := false
	defer func() {
		if holding { // also when attempt or a hook panics: a turn that nobody passes on would be waited for for ever
			g.finish(t)
		}
	}()
	for {
		if !holding {
			switch t, holding = g.await(ctx, how); {
			case holding && t == turnTake:
				holding = false
				if done, err := c.take(ctx, how.Stock); done {
					return err
				}
				continue
			case holding:
				if t == turnEnter && how.Served != nil {
					how.Served(g.finder())
				}
			case how.Once && ctx.Err() == nil:
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

// await returns the caller's turn: at once if nobody probes or there is something in its stock, else when it is woken; ok is false
// if ctx ended first, or if it would have to wait and the call is to be made once. A turnTake need not be passed on: all that wait
// look at their stock.
func (g *Gate) await(ctx context.Context, how Call) (t turn, ok bool) {
	g.mu.Lock()
	if !g.down.Load() {
		g.mu.Unlock()
		return turnEnter, true
	}
	if !g.probing {
		g.probing = true
		g.mu.Unlock()
		return turnProbe, true
	}
	if how.Once {
		g.mu.Unlock()
		return 0, false
	}
	w := &waiter{turn: make(chan turn, 1)}
	g.waiters = append(g.waiters, w)
	g.mu.Unlock()

	var look <-chan time.Time
	if how.Stock != nil {
		if how.Stock.Has() && g.leave(w) {
			return turnTake, true
		}
		ticker := time.NewTicker(lookAtStock)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case t := <-w.turn:
			return t, true
		case <-look:
			if how.Stock.Has() && g.leave(w) {
				return turnTake, true
			}
		case <-ctx.Done():
			if !g.leave(w) {
				g.finish(<-w.turn) // woken and out of time at once: the turn is not lost, somebody else gets it
			}
			return 0, false
		}
	}
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
	g.lastErr, g.failedAt = err, time.Now()
	g.promoteLocked()
	observers := g.observers
	g.mu.Unlock()
	for _, o := range observers {
		if wentDown && o.Down != nil {
			o.Down(err)
		}
	}
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
	g.down.Store(false)
	if t == turnProbe {
		g.probing = false
	}
	g.enterLocked(rampUp)
	observers := g.observers
	g.mu.Unlock()
	for _, o := range observers {
		if wasDown && o.Up != nil {
			o.Up(after, attempts)
		}
	}
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
	if g.probing || !g.down.Load() || len(g.waiters) == 0 {
		return
	}
	g.probing = true
	g.wakeLocked(turnProbe)
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
