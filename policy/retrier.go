package policy

import (
	"context"
	"errors"
	"time"
)

// Decision is what [RetrierOptions.Decide] says about an error. The zero Decision ends the loop.
type Decision struct {
	// Retry allows another attempt, within the limits.
	Retry bool
	// Free does not charge the retry to the [Budget].
	Free bool
	// NoWait retries at once where the policy allows a retry. MinWait comes before it.
	NoWait bool
	// MinWait is the shortest wait, as asked for by the server; 0 means none. It may exceed the longest wait of the
	// policy. Limits in time and the deadline of the context apply to it, so it can end the loop.
	MinWait time.Duration
	// Health is what the error says to the [Gate]; the zero value fits what is retried because the server is in trouble.
	Health Health
}

// RetrierOptions say what a [Retrier] does. The zero value is right: the policy of [Default], nothing else.
type RetrierOptions struct {
	// Policy says how often and how long. Nil means Default.
	Policy Policy
	// Budget bounds the retries of all loops that share it. Nil means no bound.
	Budget *Budget
	// Decide says what to do after an error. It must be safe for concurrent use. It is not asked about errors marked with
	// [Permanent]. Nil means that every error is retried but those that match context.Canceled or
	// context.DeadlineExceeded, as the timeouts of package net do too.
	Decide func(err error) Decision
	// Gate is asked before each attempt. Its refusal ends the loop, with StopBreaker. Nil means none.
	Gate Gate
	// OnRetry, if not nil, is called before each wait, when the retry is decided and charged, by the goroutine of the
	// loop, which it delays. It must be safe for concurrent use.
	OnRetry func(ctx context.Context, a Attempt, wait time.Duration)
	// CountFirstAttempt starts [Attempt.Elapsed], and with it [MaxElapsed] and [ExhaustedError.Elapsed], when the loop
	// starts. This reads the clock for each operation, and one long attempt can use up the time for retries. By default
	// they start when the first attempt fails.
	CountFirstAttempt bool
}

// Retrier runs operations until they succeed or must not be tried again. It is immutable and safe for concurrent use; all
// state of an operation is in its [Loop]. An operation that succeeds at once allocates nothing, reads no clock, takes no
// lock and, with a full budget and a healthy breaker, writes to no shared memory.
//
// After an attempt has failed, in this order: Decide, the limits of the policy, the context and its deadline, the Gate
// (would it refuse after the wait?), the Budget, OnRetry, the wait, the context again, the Gate. A wait of 0 uses no
// timer. There is no wait that cannot end before the deadline of the context: the loop ends instead, at once.
//
// The zero Retrier retries nothing.
type Retrier struct {
	backoff    Backoff       // the policy, where custom is nil
	custom     Policy        // the policy without limits
	attempts   int           // limit; 0 in the zero Retrier
	elapsed    time.Duration // limit
	budget     *Budget
	decide     func(error) Decision
	gate       Gate
	onRetry    func(context.Context, Attempt, time.Duration)
	countFirst bool
}

// NewRetrier returns a Retrier, or an error if the policy is the zero [Backoff], which is what a constructor returns
// together with an error.
func NewRetrier(o RetrierOptions) (*Retrier, error) {
	if o.Policy == nil {
		o.Policy = Default()
	}
	l := limit(o.Policy)
	if l.inner == Policy(Backoff{}) {
		return nil, errors.New("policy: retrier: the policy is the zero Backoff: make one with Fixed, Linear or Exponential")
	}
	r := &Retrier{
		attempts:   l.attempts,
		elapsed:    l.elapsed,
		budget:     o.Budget,
		decide:     o.Decide,
		gate:       o.Gate,
		onRetry:    o.OnRetry,
		countFirst: o.CountFirstAttempt,
	}
	if b, ok := l.inner.(Backoff); ok {
		r.backoff = b
	} else {
		r.custom = l.inner
	}
	return r, nil
}

var errNoFunction = errors.New("policy: no function to run: give one that is not nil")

// Do calls fn until it returns nil or must not be called again; op names the operation in errors. fn gets ctx itself.
//
// If ctx has ended before the first attempt, fn is not called. The error of a first attempt that is not to be retried
// comes back as it is, without the mark of [Permanent]; every other error is an [*ExhaustedError]. A panic of fn goes
// through. Do blocks while fn runs and during the waits, which the end of ctx interrupts.
func (r *Retrier) Do(ctx context.Context, op string, fn func(ctx context.Context) error) error {
	// The first attempt is made without the Loop, whose set-up costs more than all the rest.
	if r.gate != nil || fn == nil {
		return r.doGated(ctx, op, fn)
	}
	if r.countFirst || ctx.Err() != nil {
		return r.do(ctx, op, fn)
	}
	if err := fn(ctx); err != nil {
		return r.again(ctx, op, fn, err)
	}
	r.budget.Deposit()
	return nil
}

// again goes on after the first attempt failed with err. Its Loop would be on the stack of Do.
//
//go:noinline
func (r *Retrier) again(ctx context.Context, op string, fn func(ctx context.Context) error, err error) error {
	l := Loop{retrier: r, op: op, number: 1}
	return l.finish(ctx, fn, err)
}

// doGated is Do for a Retrier with a Gate.
func (r *Retrier) doGated(ctx context.Context, op string, fn func(ctx context.Context) error) error {
	if fn == nil {
		return errNoFunction
	}
	if r.countFirst || ctx.Err() != nil {
		return r.do(ctx, op, fn)
	}
	token, held, err := r.gate.Admit()
	if held || err != nil {
		return r.doHeld(ctx, op, fn, token, err)
	}
	if err = fn(ctx); err != nil {
		return r.againGated(ctx, op, fn, token, err)
	}
	r.budget.Deposit()
	r.gate.Settle(token, 1)
	return nil
}

// doHeld is doGated after the Gate refused, or has admitted an attempt that takes a place.
func (r *Retrier) doHeld(ctx context.Context, op string, fn func(ctx context.Context) error, token uint64, refusal error) error {
	if refusal != nil {
		return &ExhaustedError{Op: op, Reason: StopBreaker, Cause: refusal}
	}
	if err := r.runHeld(ctx, token, fn); err != nil {
		return r.againGated(ctx, op, fn, token, err)
	}
	r.budget.Deposit()
	r.gate.Settle(token, 1)
	return nil
}

// againGated is again for an attempt that the Gate admitted.
//
//go:noinline
func (r *Retrier) againGated(ctx context.Context, op string, fn func(ctx context.Context) error, token uint64, err error) error {
	l := Loop{retrier: r, op: op, number: 1, token: token, admitted: true}
	return l.finish(ctx, fn, err)
}

// runHeld makes an attempt that takes a place. A panic or Goexit of fn gives it back; otherwise the caller settles the
// token.
func (r *Retrier) runHeld(ctx context.Context, token uint64, fn func(context.Context) error) error {
	returned := false
	defer func() {
		if !returned {
			r.gate.Settle(token, 0)
		}
	}()
	err := fn(ctx)
	returned = true
	return err
}

func (r *Retrier) do(ctx context.Context, op string, fn func(ctx context.Context) error) error {
	l := r.Start(ctx, op)
	if err := l.Err(); err != nil {
		return err
	}
	err := l.run(ctx, fn)
	if err == nil {
		l.Success()
		return nil
	}
	return l.finish(ctx, fn, err)
}

// DoValue is [Retrier.Do] for a function that returns a value. With an error, the value is the zero value.
func DoValue[T any](ctx context.Context, r *Retrier, op string, fn func(ctx context.Context) (T, error)) (T, error) {
	if r.gate != nil || r.countFirst || fn == nil || ctx.Err() != nil {
		return doValue(ctx, r, op, fn)
	}
	value, err := fn(ctx)
	if err != nil {
		return valueAgain(ctx, r, op, fn, err)
	}
	r.budget.Deposit()
	return value, nil
}

// doValue is DoValue by way of Do.
//
//go:noinline
func doValue[T any](ctx context.Context, r *Retrier, op string, fn func(ctx context.Context) (T, error)) (T, error) {
	var value, zero T
	if fn == nil {
		return zero, errNoFunction
	}
	err := r.Do(ctx, op, func(ctx context.Context) (err error) {
		value, err = fn(ctx)
		return err
	})
	if err != nil {
		return zero, err
	}
	return value, nil
}

// valueAgain goes on after the first attempt failed with err.
//
//go:noinline
func valueAgain[T any](ctx context.Context, r *Retrier, op string, fn func(ctx context.Context) (T, error), err error) (T, error) {
	var value, zero T
	err = r.again(ctx, op, func(ctx context.Context) (err error) {
		value, err = fn(ctx)
		return err
	}, err)
	if err != nil {
		return zero, err
	}
	return value, nil
}
