package retrypg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/retrypg/retrypg/internal/contention"
	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/policy"
)

// turnOf begins to admit the attempts of a transaction. One that runs inside of another, on whatever database, is never made
// to wait: what it would wait for may be what the other one has.
func (c *core) turnOf(ctx context.Context, opts TxOptions) contention.Call {
	if c.contention == nil || scopeFrom(ctx) != nil {
		return contention.Call{}
	}
	turn := c.contention.Start(opts.Name, opts.Keys)
	if elapsed := orDefault(opts.MaxElapsed, c.tuned.Load().set.maxElapsed); elapsed > 0 {
		turn.Until = time.Now().Add(elapsed)
	}
	return turn
}

// admit waits until the next attempt may begin. No connection is held meanwhile.
func (c *core) admit(ctx context.Context, op *operation, loop *policy.Loop, turn *contention.Call) error {
	waited, err := turn.Enter(ctx)
	if waited > 0 {
		op.admitted(ctx, op.attempts+1, waited)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, contention.ErrLate):
		return loop.Stop(ctx, policy.StopMaxElapsed)
	case op.attempts == 0:
		return fmt.Errorf("retrypg: transaction not begun: %w", endpoint.Causes(ctx))
	}
	return loop.Stop(ctx, policy.StopCanceled)
}

// deadlockDetected is the SQLSTATE of a transaction that the server chose to end a deadlock.
const deadlockDetected = "40P01"

// outcomeOf says how an attempt ended, for the control of contention.
func outcomeOf(err error) contention.Outcome {
	switch {
	case err == nil:
		return contention.Committed
	case isConflict(err):
		if SQLState(err) == deadlockDetected {
			return contention.Deadlock
		}
		return contention.Conflict
	}
	return contention.Other
}

// isConflict reports whether a transaction was rolled back because of others (SQLSTATE class 40).
func isConflict(err error) bool {
	var aborted *abortedError
	if errors.As(err, &aborted) {
		err = aborted.cause
	}
	if err == nil {
		return false
	}
	class := Classify(err)
	return class.Retry == RetryTransaction && strings.HasPrefix(class.SQLState, "40")
}

// decide is decideTransaction with what is known of the contention. After a conflict an attempt that will be admitted in its
// turn needs no sleep before; where there is no queue, it sleeps as the policy says, but less where transactions of its name
// are shorter than the first wait of the policy: a conflict is over when the other transaction has ended. A policy of the user's
// is left as it is.
func (c *core) decide(err error, attempt int, turn *contention.Call) policy.Decision {
	d := decideTransaction(err)
	t := c.tuned.Load()
	if !d.Retry || t.set.backoff != nil || !isConflict(err) {
		return d
	}
	if turn.Queued() {
		d.NoWait = true
		return d
	}
	number, scale := attempt, 1.0
	if past := turn.Escalated(); past >= 0 {
		// Alone in the process, and in conflict with others elsewhere, who may be done soon: the waits begin anew, and grow to
		// what they would be anyway.
		number = min(2*past+1, attempt)
	} else if took := turn.Duration(); took > 0 && took < t.set.initialDelay {
		scale = float64(took) / float64(t.set.initialDelay)
	}
	if wait, ok := t.backoff.Next(policy.Attempt{Number: number}); ok && t.set.jitter != policy.DecorrelatedJitter {
		d.NoWait, d.MinWait = true, time.Duration(scale*float64(wait))
	}
	return d
}
