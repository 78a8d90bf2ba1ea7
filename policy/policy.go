package policy

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Attempt describes a failed attempt to a Policy.
type Attempt struct {
	// Number is the number of the attempt that has just failed, from 1. A Policy takes a smaller one for 1.
	Number int
	// Elapsed is the time since the first attempt failed, or, with [RetrierOptions.CountFirstAttempt], since it began. It
	// is 0 at the first failure otherwise: the run time of the first attempt does not use up the time for retries.
	Elapsed time.Duration
	// Wait is the wait that came before this attempt; 0 before the first.
	Wait time.Duration
	// Err is the error of the attempt, without the mark of [Permanent].
	Err error
}

// Policy decides how long to wait before the next attempt. A Policy must be safe for concurrent use, must not block and
// must keep no state of a loop: everything it needs is in the Attempt. All policies of this package are immutable values.
type Policy interface {
	// Next returns the wait before the attempt that follows a, and true; or false if there must be none. A negative wait
	// is taken for 0.
	Next(a Attempt) (wait time.Duration, ok bool)
}

// Values of the policy that a [Retrier] without one uses: exponential with full jitter. Package retrypg has values of its
// own, for transactions: 10 attempts, waits from 5 ms to 1 s.
const (
	// DefaultAttempts is the number of attempts, the first one included. It is the most that gRPC's retry design (A6) lets
	// a client make.
	DefaultAttempts = 5
	// DefaultInitialWait is the longest wait before the second attempt. The base of 50 ms is that of the AWS SDKs'
	// standard retry mode (2026): longer than most transactions, shorter than what a person notices.
	DefaultInitialWait = 50 * time.Millisecond
	// DefaultMaxWait is the longest wait at all. Chosen: five attempts never wait that long (at most 50, 100, 200 and
	// 400 ms), it is for policies with more.
	DefaultMaxWait = 5 * time.Second
	// DefaultMultiplier is the growth of the longest wait from one attempt to the next. Chosen: the usual doubling.
	DefaultMultiplier = 2.0
)

// Default returns the policy of a Retrier without one: DefaultAttempts attempts, exponential waits with full jitter from
// DefaultInitialWait to DefaultMaxWait.
func Default() Policy {
	return Must(MaxAttempts(Must(Exponential(DefaultInitialWait, DefaultMaxWait, DefaultMultiplier, FullJitter)), DefaultAttempts))
}

// Must returns v and panics if err is not nil. It is for constructors whose arguments are constants of the program, as in
// a package variable; with anything that comes from a user, handle the error.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// MaxAttempts returns p limited to n attempts in all, the first one included. n must be at least 1; 1 means that nothing
// is retried. Of several such limits the lowest holds.
func MaxAttempts(p Policy, n int) (Policy, error) {
	if p == nil {
		return nil, errors.New("policy: max attempts: no policy to limit: give one, for example Exponential")
	}
	if n < 1 {
		return nil, fmt.Errorf("policy: max attempts %d: give a number of at least 1, which counts the first attempt", n)
	}
	l := limit(p)
	l.attempts = min(l.attempts, n)
	return &l, nil
}

// MaxElapsed returns p limited in time: it refuses a wait that would end later than d after the start of
// [Attempt.Elapsed], so no attempt begins after d. d must be positive. Of several such limits the lowest holds.
//
// By default the run time of the first attempt does not count, so that one long attempt does not use up the time of its
// only retry unnoticed; the limit does not interrupt an attempt either. What must bound everything is the deadline of the
// context.
func MaxElapsed(p Policy, d time.Duration) (Policy, error) {
	if p == nil {
		return nil, errors.New("policy: max elapsed: no policy to limit: give one, for example Exponential")
	}
	if d <= 0 {
		return nil, fmt.Errorf("policy: max elapsed %v: give a positive duration, or leave the limit out", d)
	}
	l := limit(p)
	l.elapsed = min(l.elapsed, d)
	return &l, nil
}

// limited is a policy with limits. Limits on limits are merged when they are made, so that inner is never limited. It never
// changes once it is made.
type limited struct {
	inner    Policy
	backoff  Backoff       // inner, if it is one
	attempts int           // noAttemptLimit, if there is none
	elapsed  time.Duration // noElapsedLimit, if there is none
}

const (
	noAttemptLimit = math.MaxInt
	noElapsedLimit = time.Duration(math.MaxInt64)
)

func limit(p Policy) limited {
	if l, ok := p.(*limited); ok {
		return *l
	}
	l := limited{inner: p, attempts: noAttemptLimit, elapsed: noElapsedLimit}
	l.backoff, _ = p.(Backoff)
	return l
}

// Next implements Policy.
func (l *limited) Next(a Attempt) (wait time.Duration, ok bool) {
	if a.Number >= l.attempts {
		return 0, false
	}
	if l.backoff.curve != nil {
		wait, ok = l.backoff.next(a.Number, a.Wait)
	} else {
		wait, ok = l.inner.Next(a)
	}
	if !ok || l.overruns(a.Elapsed, wait) {
		return 0, false
	}
	return max(wait, 0), true
}

// overruns reports whether wait ends after the limit. It takes what it needs of an Attempt, all of which would be copied.
func (l *limited) overruns(elapsed, wait time.Duration) bool {
	return wait > l.elapsed-max(elapsed, 0)
}

// String describes the policy with its limits.
func (l *limited) String() string {
	s := "policy"
	if named, ok := l.inner.(fmt.Stringer); ok {
		s = named.String()
	}
	if l.attempts != noAttemptLimit {
		s += fmt.Sprintf(", at most %s", attempts(l.attempts))
	}
	if l.elapsed != noElapsedLimit {
		s += fmt.Sprintf(", at most %v", l.elapsed)
	}
	return s
}

// attempts returns "1 attempt", "2 attempts".
func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}
