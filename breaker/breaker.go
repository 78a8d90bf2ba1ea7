package breaker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Breaker is a circuit breaker; the package comment says how it works. Make it with [New]: a zero Breaker never opens. All
// methods are safe for concurrent use, do not block, and work on a nil *Breaker, which is always closed. A Breaker needs
// no closing.
type Breaker struct {
	// word is the generation, shifted left by stateBits, with the state. It is also the token of what a closed breaker
	// allows. It is written under mu.
	word atomic.Uint64
	// failing says that a closed breaker has counted failures. It is written under mu.
	failing atomic.Bool

	// openUntil is when open turns into half-open, a time of now. It is written under mu, before word.
	openUntil atomic.Int64

	opts Options

	mu        sync.Mutex
	failures  []time.Duration // when closed: a ring with the times of the last opts.Failures failures
	failed    int             // when closed: failures since the last success
	probes    []probe         // when half-open: those that hold a place, at most opts.Probes
	probed    int             // when half-open: successes
	lastProbe uint64          // number of the newest probe ever

	changes []change // still to be told to OnStateChange
	telling bool     // a goroutine is in OnStateChange
}

const (
	stateBits = 2
	stateMask = 1<<stateBits - 1
)

func stateOf(word uint64) State { return State(word & stateMask) }

// New returns a closed breaker, or an error that names the option that is out of bounds.
func New(o Options) (*Breaker, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	return &Breaker{opts: o, failures: make([]time.Duration, o.Failures)}, nil
}

// Allow asks to make an attempt. The error of a refusal is an [*OpenError].
func (b *Breaker) Allow() (Permit, error) {
	token, err := b.Admit()
	if err != nil {
		return Permit{}, err
	}
	return Permit{breaker: b, token: token}, nil
}

// State returns the state as of now: an open breaker is half-open as soon as its time is over, though nobody has asked it
// for anything.
func (b *Breaker) State() State {
	if b == nil {
		return Closed
	}
	state := stateOf(b.word.Load())
	if state != Open || b.openFor() > 0 {
		return state
	}
	b.mu.Lock()
	state = b.stateLocked(now())
	b.unlock()
	return state
}

// Do runs fn if the breaker allows it, and returns its error or the refusal. classify says what the error of fn means: a
// positive number for success, a negative one for failure, 0 for neither. It is not asked about a nil error, which is a
// success. If classify is nil, every error is a failure, unless ctx has ended. A panic of fn goes through and is neither.
func (b *Breaker) Do(ctx context.Context, fn func(ctx context.Context) error, classify func(err error) int) error {
	token, err := b.Admit()
	if err != nil {
		return err
	}
	if stateOf(token) != Closed {
		return b.probe(ctx, token, fn, classify)
	}
	// Of what a closed breaker allowed nothing needs to be given back if fn panics.
	if err = fn(ctx); err == nil {
		b.Settle(token, 1)
		return nil
	}
	b.Settle(token, outcomeOf(ctx, err, classify))
	return err
}

// probe is Do for an attempt that holds a place in a half-open breaker.
func (b *Breaker) probe(ctx context.Context, token uint64, fn func(ctx context.Context) error, classify func(err error) int) error {
	outcome := 0
	defer func() { b.Settle(token, outcome) }()
	err := fn(ctx)
	outcome = outcomeOf(ctx, err, classify)
	return err
}

// outcomeOf returns the argument of Settle for what fn of Do returned.
func outcomeOf(ctx context.Context, err error, classify func(err error) int) int {
	switch {
	case err == nil:
		return 1
	case classify != nil:
		return classify(err)
	case ctx.Err() == nil:
		return -1
	}
	return 0
}

// Admit is [Breaker.Allow] with a token in place of the [Permit]. With Refusal and Settle it makes a Breaker a policy.Gate;
// other callers want Allow.
func (b *Breaker) Admit() (token uint64, err error) {
	if b != nil {
		if word := b.word.Load(); stateOf(word) == Closed {
			return word, nil
		}
	}
	return b.admit()
}

// Settle reports the outcome of what Admit allowed: a positive number for success, a negative one for failure, 0 for
// neither. It must be called once for each token.
func (b *Breaker) Settle(token uint64, outcome int) {
	if outcome > 0 && b != nil && stateOf(token) == Closed && !b.failing.Load() {
		return
	}
	b.settle(token, outcome)
}

// Refusal returns the error with which an attempt is certain to be refused for longer than wait: the breaker is open and
// stays so. It returns nil otherwise, and allows nothing.
func (b *Breaker) Refusal(wait time.Duration) error {
	if b == nil || stateOf(b.word.Load()) != Open {
		return nil
	}
	if left := b.openFor(); left > wait {
		return &OpenError{State: Open, RetryAfter: left}
	}
	return nil
}
