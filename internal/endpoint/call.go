package endpoint

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/retrypg/retrypg/policy"
)

// Connecting is the Op of the errors of a Gate.
const Connecting = "connect"

// call is one Do: what its error will tell.
type call struct {
	gate    *Gate
	start   time.Time
	seen    int  // failures that the gate had counted when the call began
	own     int  // attempts that the call made itself
	limited bool // the deadline is the limit's, not the caller's
}

// await returns the caller's turn: at once if nobody probes or there is something in its stock, else when it is woken; ok is false
// if ctx ended first, or if it would have to wait and the call is to be made once. A turnTake need not be passed on: all that wait
// look at their stock.
func (c *call) await(ctx context.Context, how Call) (t turn, ok bool) {
	g := c.gate
	g.mu.Lock()
	if !g.down.Load() {
		g.mu.Unlock()
		return turnEnter, true
	}
	if !g.probing {
		g.beginLocked()
		g.mu.Unlock()
		return turnProbe, true
	}
	if how.Once {
		g.mu.Unlock()
		return 0, false
	}
	w := &waiter{since: c.start, turn: make(chan turn, 1)}
	i := len(g.waiters)
	for ; i > 0 && g.waiters[i-1].since.After(w.since); i-- { // one that was woken in vain goes back to its place
	}
	g.waiters = slices.Insert(g.waiters, i, w)
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

// ended is the error of a call whose context has ended, or would end before the next attempt.
func (c *call) ended(ctx context.Context, last error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return c.exhausted(policy.StopCanceled, last, Causes(ctx))
	}
	if c.limited {
		return c.exhausted(policy.StopMaxElapsed, last, nil)
	}
	return c.exhausted(policy.StopDeadline, last, Causes(ctx))
}

// Over reports whether ctx has ended or its deadline has passed: the network poller keeps the deadline too, and may tell
// of it before the timer of ctx does.
func Over(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	deadline, ok := ctx.Deadline()
	return ok && !time.Now().Before(deadline)
}

// Causes returns what ended ctx, matching both ctx.Err and context.Cause; DeadlineExceeded if it has not ended yet.
func Causes(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	switch {
	case err == nil:
		return context.DeadlineExceeded
	case cause == nil || errors.Is(cause, err):
		return err
	}
	return errors.Join(err, cause)
}

// cutShort reports whether an attempt ended because its time did, or was not made. Package net has an error of its own for
// that.
func cutShort(err error) bool {
	var netErr net.Error
	return err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &netErr) && netErr.Timeout()
}

// exhausted makes the error of the call. Where its own last attempt was merely cut short by its context, or it had
// none, the last failure that the gate knows says more.
func (c *call) exhausted(reason policy.StopReason, last, cause error) error {
	g := c.gate
	g.mu.Lock()
	attempts := c.own
	if g.down.Load() {
		attempts = max(attempts, g.attempts-c.seen)
		if g.lastErr != nil && cutShort(last) {
			last = g.lastErr
		}
	}
	g.mu.Unlock()
	e := &policy.ExhaustedError{
		Op: Connecting, Reason: reason, Attempts: attempts, Elapsed: time.Since(c.start), Last: last, Cause: cause,
	}
	if last != nil {
		e.History = []error{last}
	}
	return e
}
