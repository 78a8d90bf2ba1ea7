package retrypg

import (
	"context"
	"errors"
	"time"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/metrics"
	"github.com/retrypg/retrypg/policy"
)

// operation is one statement, transaction or connecting of the caller, with all its attempts: what the breaker, the budget
// and the telemetry are told of it.
type operation struct {
	core     *core
	kind     metrics.Operation
	name     string
	permit   breaker.Permit
	span     metrics.Span
	started  instant // zero while no metrics are recorded: the clock is not read for nothing
	again    instant // when the last attempt began, if it is not the first
	attempts int
}

// start begins an operation. With ask it asks the breaker, whose refusal is the error. Where connecting is part of the
// operation, and asks by itself, it must not: it would hold the one probe that its own connecting needs.
func (c *core) start(ctx context.Context, kind metrics.Operation, name string, ask bool) (operation, context.Context, error) {
	op := operation{core: c, kind: kind, name: name}
	if ask {
		var err error
		if op.permit, err = c.breaker.Allow(); err != nil {
			c.rec.Failure(ctx, kind, string(policy.StopBreaker), "", 0)
			return op, ctx, err
		}
	}
	if c.rec.Metering() {
		op.started = readClock()
	}
	ctx, op.span = c.rec.Start(ctx, kind, name)
	return op, ctx, nil
}

// try is one attempt of an operation.
type try struct {
	ctx  context.Context // what the attempt runs with: its span is in it
	span metrics.Span
}

// attempt begins the next attempt.
func (op *operation) attempt(ctx context.Context) (t try) {
	if op.attempts++; op.attempts > 1 && op.started != 0 {
		op.again = readClock()
	}
	t.ctx, t.span = op.span.Attempt(ctx, op.attempts)
	return t
}

// attemptEnd ends an attempt. again says that another one follows.
func (op *operation) attemptEnd(t try, err error, again bool) {
	if op.started == 0 && err == nil {
		t.span.End(nil, "")
		return
	}
	code := SQLState(err)
	op.core.rec.Attempt(t.ctx, op.kind, code)
	if again {
		t.span.Retried(err, code)
		return
	}
	t.span.End(err, code)
}

// attemptWithdrawn ends an attempt that had to wait for something else, and was not made.
func (op *operation) attemptWithdrawn(t try) {
	op.attempts--
	t.span.End(nil, "")
}

// end ends the operation with the error that its caller gets.
func (op *operation) end(ctx context.Context, err error) { op.endStopped(ctx, err, stopReason(err)) }

// endStopped is end where err does not tell why there was no further attempt.
func (op *operation) endStopped(ctx context.Context, err error, reason string) {
	report(ctx, &op.permit, err)
	c := op.core
	if op.again != 0 {
		c.rec.Lost(ctx, op.kind, op.again.sub(op.started))
	}
	if err == nil {
		if op.kind == metrics.OpStatement || op.kind == metrics.OpTransaction {
			c.budget.Deposit()
		}
		if op.started != 0 {
			c.rec.Success(ctx, op.kind, op.attempts, op.started.since())
		}
		op.span.End(nil, "")
		return
	}
	code := SQLState(err)
	c.rec.Failure(ctx, op.kind, reason, code, op.attempts)
	op.span.EndStopped(err, code, reason)
}

// panicked ends an operation, and its attempt t, whose user code panicked or ended its goroutine.
func (op *operation) panicked(ctx context.Context, t try) {
	const reason = "panic"
	t.span.EndStopped(errPanicked, "", reason)
	op.permit.Ignore()
	op.core.rec.Failure(ctx, op.kind, reason, "", op.attempts)
	op.span.EndStopped(errPanicked, "", reason)
}

var errPanicked = errors.New("panic")

// backoff is told of each wait between two attempts.
func (op *operation) backoff(ctx context.Context, a policy.Attempt, wait time.Duration) {
	class := Classify(a.Err)
	op.core.rec.Backoff(ctx, op.kind, wait, class.SQLState)
	op.span.Backoff(a.Number, wait, class.SQLState, class.Retry.String())
	if hook := op.core.set.hooks.Backoff; hook != nil {
		hook(ctx, BackoffInfo{
			Operation: string(op.kind), Name: op.name, Attempt: a.Number, Wait: wait, Err: a.Err, Class: class,
		})
	}
}

// admitted is told that an attempt, or a statement of it, had to wait for its turn, or has given up waiting.
func (op *operation) admitted(ctx context.Context, attempt int, waited time.Duration) {
	op.core.rec.AdmissionWait(ctx, waited)
	op.span.Admission(attempt, waited)
}

// report tells the breaker how an operation went. What the server answers, what the caller's own context ended, and a
// pooled connection that was found dead say nothing of whether the server can be reached now.
func report(ctx context.Context, permit *breaker.Permit, err error) {
	if err == nil {
		permit.Success()
		return
	}
	var discarded *discardedError
	switch {
	case endpoint.Over(ctx), errors.Is(err, breaker.ErrOpen), errors.As(err, &discarded), !healable(err):
		permit.Ignore()
	default:
		permit.Failure()
	}
}

// stopReason is the retry.stop_reason of the error that an operation ended with.
func stopReason(err error) string {
	if err == nil {
		return ""
	}
	var exhausted *ExhaustedError
	switch {
	case errors.As(err, &exhausted):
		return string(exhausted.Reason)
	case errors.Is(err, breaker.ErrOpen):
		return string(policy.StopBreaker)
	case errors.Is(err, context.DeadlineExceeded):
		return string(policy.StopDeadline)
	case errors.Is(err, context.Canceled):
		return string(policy.StopCanceled)
	}
	return string(policy.StopNotRetryable)
}

type operationKey struct{}

// withOperation lets the retrier's OnRetry find the operation it waits for.
func withOperation(ctx context.Context, op *operation) context.Context {
	return context.WithValue(ctx, operationKey{}, op)
}

// onRetry is what the core's retriers and its gate call before each wait.
func onRetry(ctx context.Context, a policy.Attempt, wait time.Duration) {
	if op, ok := ctx.Value(operationKey{}).(*operation); ok {
		op.backoff(ctx, a, wait)
	}
}
