package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// StopReason says why a loop ended without success.
type StopReason string

// The reasons. They are the values of the attribute retry.stop_reason of the metrics.
const (
	// StopNotRetryable: the error is not one to retry.
	StopNotRetryable StopReason = "not_retryable"
	// StopMaxAttempts: [MaxAttempts] was reached.
	StopMaxAttempts StopReason = "max_attempts"
	// StopMaxElapsed: the next wait would have ended after [MaxElapsed].
	StopMaxElapsed StopReason = "max_elapsed"
	// StopDeadline: the deadline of the context has passed, or the next wait would not have ended before it.
	StopDeadline StopReason = "deadline"
	// StopCanceled: the context was cancelled.
	StopCanceled StopReason = "canceled"
	// StopBudget: the [Budget] allowed no retry.
	StopBudget StopReason = "budget_exhausted"
	// StopBreaker: the [Gate] refused the attempt.
	StopBreaker StopReason = "breaker_open"
	// StopPolicy: the [Policy] itself refused.
	StopPolicy StopReason = "policy"
)

// MaxHistory is the largest length of [ExhaustedError.History].
const MaxHistory = 8

// ExhaustedError is the error of a loop that ended without success, unless its first attempt failed with an error that is
// not to be retried, which is returned as it is. [errors.Is] and [errors.As] find Last first, then Cause. They never
// look into History: an older error would speak for the operation as if it were its last.
type ExhaustedError struct {
	// Op is what was tried, as given to the loop; may be empty.
	Op string
	// Reason says why there was no further attempt.
	Reason StopReason
	// Attempts is the number of attempts made; 0 if the first was refused.
	Attempts int
	// Elapsed is the time since the first attempt failed, or, with [RetrierOptions.CountFirstAttempt], since it began.
	Elapsed time.Duration
	// History holds the errors of the last attempts, at most MaxHistory, oldest first, Last included.
	History []error
	// Last is the error of the last attempt; nil if there was none.
	Last error
	// Cause is what ended the loop besides Last: for StopDeadline and StopCanceled an error that matches the context's
	// (context.DeadlineExceeded even if the deadline was still ahead) and its [context.Cause], for StopBudget one that
	// matches ErrBudgetExhausted, for StopBreaker the refusal. It is nil for the other reasons.
	Cause error
}

// Error returns a text like "connect: gave up after 5 attempts in 3.2s (max_attempts): " and the last error, then the
// cause. The time is left out where it is 0.
func (e *ExhaustedError) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
		b.WriteString(": ")
	}
	switch {
	case e.Attempts == 0:
		b.WriteString("not attempted")
	default:
		b.WriteString("gave up after ")
		b.WriteString(attempts(e.Attempts))
		if e.Elapsed > 0 {
			fmt.Fprintf(&b, " in %v", readable(e.Elapsed))
		}
	}
	fmt.Fprintf(&b, " (%s)", e.Reason)
	separator := ": "
	if e.Last != nil {
		b.WriteString(separator)
		b.WriteString(e.Last.Error())
		separator = "; "
		if earlier := e.telling(); earlier != nil {
			b.WriteString("; the attempt before: ")
			b.WriteString(earlier.Error())
		}
	}
	if e.Cause != nil {
		b.WriteString(separator)
		b.WriteString(e.Cause.Error())
	}
	return b.String()
}

// telling returns the error of the attempt before the last, if the last one says only that its context ended: then the
// earlier one is what a reader needs.
func (e *ExhaustedError) telling() error {
	if len(e.History) < 2 || !isContextError(e.Last) {
		return nil
	}
	if earlier := e.History[len(e.History)-2]; earlier != nil && !isContextError(earlier) {
		return earlier
	}
	return nil
}

// Unwrap returns Last and Cause, without those that are nil.
func (e *ExhaustedError) Unwrap() []error {
	errs := make([]error, 0, 2)
	if e.Last != nil {
		errs = append(errs, e.Last)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

// readable rounds d to what a reader of an error wants to know.
func readable(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{100 * time.Millisecond, 100 * time.Microsecond} {
		if d >= 10*unit {
			return d.Round(unit)
		}
	}
	return d
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// wrapsNothing reports whether errors.Is would find nothing in err but err itself.
func wrapsNothing(err error) bool {
	switch err.(type) { //nolint:errorlint // this is the question
	case interface{ Unwrap() error }, interface{ Unwrap() []error }, interface{ Is(error) bool }:
		return false
	}
	return true
}

// contextReason returns why a loop ends whose context has ended, and an error that matches both what ctx.Err and what
// context.Cause say.
func contextReason(ctx context.Context) (reason StopReason, cause error) {
	err := ctx.Err()
	reason = StopCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		reason = StopDeadline
	}
	switch cause = context.Cause(ctx); {
	case cause == nil: // a Context of another maker
		return reason, err
	case errors.Is(cause, err):
		return reason, cause
	}
	return reason, fmt.Errorf("%w: %w", err, cause)
}

// waitError is the Cause of StopDeadline where the deadline is still ahead.
type waitError struct {
	wait, left time.Duration
}

func (e *waitError) Error() string {
	return fmt.Sprintf("the next wait of %v would not end before the deadline in %v: %v", readable(e.wait), readable(e.left), context.DeadlineExceeded)
}

func (e *waitError) Unwrap() error { return context.DeadlineExceeded }
