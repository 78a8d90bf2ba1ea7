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
	// word is the generation, shifted left by stateBits, with the state and failing or certain. Without failing it is also
	// the token of what a closed breaker allows. It is written under mu, but for certain, which a timer takes away.
	word atomic.Uint64
	// refusal is what an open breaker answers. It is written under mu, before word.
	refusal atomic.Pointer[OpenError]

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
	stateBits = 3
	stateMask = 3

	// failing is in the word of a closed breaker that has counted failures. No token has it: a word that is equal to a token
	// says that nothing has happened since, and that there is nothing to forget.
	failing = 4
	// certain is in the word of an open breaker whose time is not nearly over.
	certain = 4
	// probing is in the token of each probe, and in no word of a half-open breaker: what a probe tells always counts.
	probing = 4

	// flagsMask is all of a word but the generation; refusing is what it leaves of that of a breaker that is certain to refuse.
	flagsMask = 1<<stateBits - 1
	refusing  = uint64(Open) | certain
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
	if b == nil {
		return Permit{}, nil
	}
	word := b.word.Load()
	switch {
	case stateOf(word) == Closed:
		return Permit{breaker: b, token: word &^ failing}, nil
	case word&flagsMask == refusing:
		return Permit{}, b.refusal.Load()
	}
	return b.allow()
}

// State returns the state as of now: an open breaker is half-open as soon as its time is over, though nobody has asked it
// for anything.
func (b *Breaker) State() State {
	if b == nil {
		return Closed
	}
	state := stateOf(b.word.Load())
	if state != Open || b.refusal.Load().until > now() {
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
	if b == nil {
		return fn(ctx)
	}
	word := b.word.Load()
	switch {
	case word&flagsMask == refusing:
		return b.refusal.Load()
	case stateOf(word) != Closed:
		return b.probe(ctx, fn, classify)
	}
	// Of what a closed breaker allowed nothing needs to be given back if fn panics.
	token := word &^ failing
	err := fn(ctx)
	if err != nil {
		b.settle(token, outcomeOf(ctx, err, classify))
		return err
	}
	if b.word.Load() != token {
		b.settle(token, 1)
	}
	return nil
}

// probe is Do for a breaker that was not closed: what it allows may hold a place.
func (b *Breaker) probe(ctx context.Context, fn func(ctx context.Context) error, classify func(err error) int) error {
	permit, err := b.allow()
	if err != nil {
		return err
	}
	outcome := 0
	defer func() { b.settle(permit.token, outcome) }()
	err = fn(ctx)
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

// Admit is [Breaker.Allow] with a token in place of the [Permit]; held says that the attempt is a probe, whose place must
// be given back. With Refusal and Settle it makes a Breaker a policy.Gate; other callers want Allow.
func (b *Breaker) Admit() (token uint64, held bool, err error) {
	if b != nil {
		if word := b.word.Load(); stateOf(word) == Closed {
			return word &^ failing, false, nil
		}
	}
	permit, err := b.Allow()
	return permit.token, stateOf(permit.token) == HalfOpen, err
}

// Settle reports the outcome of what Admit allowed: a positive number for success, a negative one for failure, 0 for
// neither. It must be called once for each token; where nothing was held, 0 need not be told.
//
// The methods of Permit call it. They are small enough for the compiler to put them where they are called, which keeps the
// Permit out of memory, as long as this is not put into them.
//
//go:noinline
func (b *Breaker) Settle(token uint64, outcome int) {
	if b == nil || outcome > 0 && b.word.Load() == token {
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
	if refusal := b.refusal.Load(); refusal.until-now() > wait {
		return refusal
	}
	return nil
}
