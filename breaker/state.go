package breaker

import (
	"errors"
	"fmt"
	"time"
)

// State is the state of a [Breaker].
type State uint8

// The states. Their numbers are those of the metric retry.breaker.state.
const (
	// Closed allows everything.
	Closed State = iota
	// HalfOpen allows a few probes.
	HalfOpen
	// Open refuses everything.
	Open
)

// String returns "closed", "half-open" or "open".
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case HalfOpen:
		return "half-open"
	case Open:
		return "open"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// ErrOpen is matched by every refusal of a [Breaker].
var ErrOpen = errors.New("circuit breaker is open")

// OpenError is the refusal of an attempt. It matches ErrOpen. All refusals of one open time are the same value.
type OpenError struct {
	state State
	until time.Duration // a time of now
}

// State is Open, or HalfOpen where all probes are under way.
func (e *OpenError) State() State { return e.state }

// RetryAfter is the time from now after which an attempt can be allowed, 0 if that has passed: for Open until the breaker
// is half-open; for HalfOpen until the lease of a probe ends, although a place can be free, or the breaker closed or open,
// at any time before.
func (e *OpenError) RetryAfter() time.Duration { return max(e.until-now(), 0) }

// Error returns the refusal with its state and RetryAfter, as it is now.
func (e *OpenError) Error() string {
	left := e.RetryAfter()
	switch {
	case left == 0:
		return fmt.Sprintf("%v: try again now", ErrOpen)
	case e.state == HalfOpen:
		return fmt.Sprintf("circuit breaker is half-open and probing: try again within %v", left.Round(time.Millisecond))
	}
	return fmt.Sprintf("%v: try again in %v", ErrOpen, left.Round(time.Millisecond))
}

// Is reports whether target is ErrOpen.
func (e *OpenError) Is(target error) bool { return target == ErrOpen }
