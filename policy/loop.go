package policy

import (
	"context"
	"time"
)

// Loop is the state of one operation of a [Retrier], for code that needs more between its attempts than [Retrier.Do]
// gives:
//
//	loop := retrier.Start(ctx, "transfer")
//	if err := loop.Err(); err != nil {
//		return err
//	}
//	defer loop.Abandon()
//	for {
//		err := attempt(ctx, loop.Attempt())
//		if err == nil {
//			loop.Success()
//			return nil
//		}
//		if err := loop.Wait(ctx, err); err != nil {
//			return err
//		}
//	}
//
// It lives on the stack of its caller, must not be copied once in use, and is not safe for concurrent use.
type Loop struct {
	retrier *Retrier
	op      string
	refused error         // for Err
	number  int           // of the attempt that runs, from 1
	made    int           // attempts that were made and have failed
	wait    time.Duration // before the attempt that runs
	began   time.Duration // when Elapsed begins
	timed   bool          // began is known
	timer   *time.Timer   // made by the first wait, used by all: a pool would mix up the clocks of synctest bubbles

	admitted bool // token is the Gate's, and unsettled
	held     bool // and must be settled if the attempt panics
	token    uint64

	history [MaxHistory]error // of attempt n at (n-1)%MaxHistory
}

// Start begins an operation named op in errors. It reads no clock unless [RetrierOptions.CountFirstAttempt] is set: the
// time of the first attempt is then not known. It asks ctx and the [Gate]: see [Loop.Err].
func (r *Retrier) Start(ctx context.Context, op string) Loop {
	l := Loop{retrier: r, op: op, number: 1}
	if r.countFirst {
		l.began, l.timed = now(), true
	}
	if ctx.Err() != nil {
		l.refused = l.exhausted(contextReason(ctx))
	} else if err := l.admit(); err != nil {
		l.refused = l.exhausted(StopBreaker, err)
	}
	return l
}

// Err returns nil if the first attempt may be made, and else the error to end with, an [*ExhaustedError] without
// attempts: the context had ended when the loop started, or the [Gate] refused. A Retrier without a Gate leaves it to the
// caller whether to ask: an attempt with a context that has ended fails anyway.
func (l *Loop) Err() error { return l.refused }

// Attempt returns the number of the attempt that runs now, from 1.
func (l *Loop) Attempt() int { return l.number }

// Success ends the operation: the attempt that ran has succeeded, which credits the [Budget].
func (l *Loop) Success() {
	l.retrier.budget.Deposit()
	l.settle(1)
}

// Abandon ends the operation without saying anything of the attempt that ran, for one that panics: the [Gate] gets back
// what it admitted. It does nothing after Success or a Wait that returned an error. It is for defer; without a Gate there
// is no need to call it.
func (l *Loop) Abandon() { l.settle(0) }

// Wait ends the attempt that ran, which failed with err. It returns nil after the wait, and the caller makes the next
// attempt; or, at once or when ctx ends the wait, the error to end with, as [Retrier.Do] returns it. ctx should be that of
// Start, or derived from it. A nil err is an error of the program and panics.
func (l *Loop) Wait(ctx context.Context, err error) error {
	return l.end(ctx, err, l.retrier.decide)
}

// WaitAs is Wait with a decision of the caller's in place of that of [RetrierOptions.Decide], for code that knows more of an
// attempt than its error tells. An error marked with [Permanent] ends the operation all the same.
func (l *Loop) WaitAs(ctx context.Context, err error, d Decision) error {
	return l.end(ctx, err, func(error) Decision { return d })
}

// end ends the attempt that ran, by the decision of decide or, without one, of a Retrier that has none.
func (l *Loop) end(ctx context.Context, err error, decide func(error) Decision) error {
	if err == nil {
		panic("policy: Loop.Wait called without an error: call Success")
	}
	r := l.retrier
	plain := wrapsNothing(err)
	permanent := !plain && isPermanent(err)
	if permanent {
		err = stripped(err)
	}
	l.history[l.made%MaxHistory] = err
	l.made++
	ended := ctx.Err() != nil

	var d Decision
	switch {
	case permanent:
	case decide != nil:
		d = decide(err)
	case plain:
		d.Retry = err != context.Canceled && err != context.DeadlineExceeded //nolint:errorlint // it wraps nothing
	default:
		d.Retry = !isContextError(err)
	}
	if l.admitted {
		l.settle(d.Health.outcome(d.Retry, ended))
	}
	if !d.Retry {
		return l.notRetryable(ctx, err, ended)
	}

	wait, reason := l.next(err, d)
	if reason != "" {
		return l.exhausted(reason, nil)
	}
	// Only code of the user can have taken so long since that it is worth asking again.
	if ended || (r.decide != nil || r.custom != nil) && ctx.Err() != nil {
		return l.exhausted(contextReason(ctx))
	}
	if wait > 0 {
		if deadline, ok := ctx.Deadline(); ok {
			if left := time.Until(deadline); left <= wait {
				return l.exhausted(StopDeadline, &waitError{wait: wait, left: max(left, 0)})
			}
		}
	}
	if r.gate != nil {
		if refusal := r.gate.Refusal(wait); refusal != nil {
			return l.exhausted(StopBreaker, refusal)
		}
	}
	if r.budget != nil && !d.Free && !r.budget.Withdraw() {
		return l.exhausted(StopBudget, &budgetError{left: r.budget.Tokens(), full: r.budget.Cap()})
	}
	if r.onRetry != nil {
		r.onRetry(ctx, l.failed(err), wait)
	}
	if wait > 0 {
		l.sleep(ctx, wait)
	}
	if (wait > 0 || r.onRetry != nil) && ctx.Err() != nil { // also if the timer and the context were ready together
		return l.exhausted(contextReason(ctx))
	}
	l.number++
	l.wait = wait
	if r.gate != nil {
		if refusal := l.admit(); refusal != nil {
			return l.exhausted(StopBreaker, refusal)
		}
	}
	return nil
}

// Stop ends the operation between two attempts, or before the first one, for code that has to wait for something else there:
// for the end of ctx, with StopDeadline or StopCanceled, or else with reason. The result is the error to end with.
func (l *Loop) Stop(ctx context.Context, reason StopReason) error {
	l.settle(0)
	if ctx.Err() != nil {
		return l.exhausted(contextReason(ctx))
	}
	return l.exhausted(reason, nil)
}

// notRetryable returns the error of a loop whose last error is not to be retried.
func (l *Loop) notRetryable(ctx context.Context, err error, ended bool) error {
	if l.made == 1 {
		return err
	}
	if ended && isContextError(err) {
		return l.exhausted(contextReason(ctx))
	}
	return l.exhausted(StopNotRetryable, nil)
}

// next returns the wait after the attempt that failed with err, or why there is no further attempt.
func (l *Loop) next(err error, d Decision) (time.Duration, StopReason) {
	r := l.retrier
	if l.made == 1 {
		l.elapsed()
	}
	if l.made >= r.attempts {
		return 0, StopMaxAttempts
	}
	var wait time.Duration
	var ok bool
	if r.custom != nil {
		wait, ok = r.custom.Next(l.failed(err))
	} else {
		wait, ok = r.backoff.next(l.made, l.wait)
	}
	if !ok {
		return 0, StopPolicy
	}
	if d.NoWait {
		wait = 0
	}
	wait = max(wait, d.MinWait, 0)
	if r.elapsed != noElapsedLimit && wait > r.elapsed-l.elapsed() {
		return 0, StopMaxElapsed
	}
	return wait, ""
}

// failed describes the attempt that has just failed.
func (l *Loop) failed(err error) Attempt {
	return Attempt{Number: l.made, Elapsed: l.elapsed(), Wait: l.wait, Err: err}
}

// elapsed returns the time since the first failure, or since the start, and begins it where neither was timed yet.
func (l *Loop) elapsed() time.Duration {
	if !l.timed {
		l.began, l.timed = now(), true
		return 0
	}
	return now() - l.began
}

// sleep waits for d or the end of ctx.
func (l *Loop) sleep(ctx context.Context, d time.Duration) {
	if l.timer == nil {
		l.timer = time.NewTimer(d)
	} else {
		l.timer.Reset(d)
	}
	select {
	case <-ctx.Done():
		l.timer.Stop()
	case <-l.timer.C:
	}
}

// admit asks the Gate for an attempt.
func (l *Loop) admit() error {
	g := l.retrier.gate
	if g == nil {
		return nil
	}
	token, held, err := g.Admit()
	if err != nil {
		return err
	}
	l.token, l.held, l.admitted = token, held, true
	return nil
}

// settle tells the Gate how its attempt went, once.
func (l *Loop) settle(outcome int) {
	if l.admitted {
		l.admitted = false
		l.retrier.gate.Settle(l.token, outcome)
	}
}

// run makes an attempt.
func (l *Loop) run(ctx context.Context, fn func(context.Context) error) error {
	if l.held {
		return l.retrier.runHeld(ctx, l.token, fn)
	}
	return fn(ctx)
}

// finish goes on after the first attempt of fn failed with err.
func (l *Loop) finish(ctx context.Context, fn func(context.Context) error, err error) error {
	for {
		if err = l.Wait(ctx, err); err != nil {
			return err
		}
		if err = l.run(ctx, fn); err == nil {
			l.Success()
			return nil
		}
	}
}

// exhausted returns the error of the loop.
func (l *Loop) exhausted(reason StopReason, cause error) error {
	e := &ExhaustedError{Op: l.op, Reason: reason, Attempts: l.made, Cause: cause}
	if l.made == 0 {
		return e
	}
	e.Elapsed = l.elapsed()
	kept := min(l.made, MaxHistory)
	e.History = make([]error, 0, kept)
	for i := l.made - kept; i < l.made; i++ {
		e.History = append(e.History, l.history[i%MaxHistory])
	}
	e.Last = e.History[kept-1]
	return e
}
