package retrypg

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/metrics"
	"github.com/retrypg/retrypg/policy"
)

// healable reports whether waiting, or another connection, can heal a failed connection attempt.
func healable(err error) bool {
	if errors.Is(err, breaker.ErrOpen) || errors.Is(err, ErrClosed) {
		return false
	}
	switch Classify(err).Retry {
	case RetryWait, RetryReconnect, RetryFailover:
		return true
	}
	return false
}

// reaching says how the server is reached.
type reaching struct {
	kind metrics.Operation
	// refusable says that the breaker is asked before each attempt: not by WaitReady, which is there to wait for what the breaker
	// refuses.
	refusable bool
	stock     *endpoint.Stock // see endpoint.Call
	// undo closes what was made, if it was: a hook that is told of the server's return may panic after that. It may be nil.
	undo func()
}

// reach makes attempts to reach the server, through the gate: until one succeeds, fails for good, or no time is left.
func (c *core) reach(ctx context.Context, r reaching, attempt func(context.Context) error) error {
	if c.closed.Load() {
		return ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(ErrClosed) })()
	return c.reachThrough(ctx, c.gate, r, attempt)
}

// reachThrough is reach through any gate, also after Close.
func (c *core) reachThrough(ctx context.Context, gate *endpoint.Gate, r reaching, attempt func(context.Context) error) error {
	limit := time.Duration(0)
	if _, ok := ctx.Deadline(); !ok {
		limit = c.connectMaxElapsed()
	}
	op, ctx, _ := c.start(ctx, r.kind, "", false) // no refusal: the breaker is asked before each attempt
	waitCtx := withOperation(ctx, &op)
	var t try
	returned := false
	defer func() {
		if returned {
			return
		}
		if r.undo != nil {
			r.undo()
		}
		op.panicked(ctx, t)
	}()
	if _, down := gate.Down(); down {
		c.met.Store(true)
	}
	waited := false // for another caller
	how := endpoint.Call{Healable: c.heals, Limit: limit, Once: noRetry(ctx), Stock: r.stock}
	if id := op.span.SpanContext(); id.IsValid() {
		how.ID = id
	}
	how.Waited = func(by any) {
		waited = true
		if id, ok := by.(trace.SpanContext); ok {
			op.span.Link(id)
		}
	}
	err := gate.Do(waitCtx, how, func(ctx context.Context) error {
		var permit breaker.Permit
		if r.refusable {
			var err error
			if permit, err = c.breaker.Allow(); err != nil {
				return err
			}
		}
		defer permit.Ignore() // of no effect once something was reported
		t = op.attempt(ctx)
		err := attempt(t.ctx)
		if c.refusesServerSide(err) {
			err = attempt(t.ctx) // without what was refused
		}
		again := err != nil && c.heals(err) && !endpoint.Over(ctx)
		switch {
		case err == nil:
			permit.Success()
		case errors.Is(err, endpoint.ErrInStock):
			op.attemptEnd(t, nil, false)
			return err
		case errors.Is(err, endpoint.ErrNoPlace), errors.Is(err, endpoint.ErrDown):
			op.attemptWithdrawn(t)
			return err
		case again:
			permit.Failure()
			c.met.Store(true)
		default:
			permit.Ignore()
		}
		op.attemptEnd(t, err, again)
		return err
	})
	returned = true
	var exhausted *ExhaustedError
	if errors.As(err, &exhausted) && errors.Is(exhausted.Last, breaker.ErrOpen) {
		exhausted.Reason = policy.StopBreaker // the gate knows no breaker
	}
	if (waited || op.attempts > 1 || exhausted != nil) && r.kind == metrics.OpConnect && op.started != 0 {
		c.rec.ConnectWait(ctx, op.started.since())
	}
	op.end(ctx, err)
	return err
}
