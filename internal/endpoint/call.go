package endpoint

import (
	"context"
	"errors"
	"net"
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
