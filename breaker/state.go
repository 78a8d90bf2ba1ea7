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

// OpenError is the refusal of an attempt. It matches ErrOpen.
type OpenError struct {
	// State is Open or HalfOpen.
	State State
	// RetryAfter is the time after which an attempt can be allowed: for Open until the breaker is half-open; for HalfOpen
	// until the lease of a probe ends, although a place can be free, or the breaker closed or open, at any time before.
	RetryAfter time.Duration
	// Probing says that the breaker is half-open and all its probes are under way.
	Probing bool
}

// Error returns the refusal with its state and time.
func (e *OpenError) Error() string {
	if e.Probing {
		return fmt.Sprintf("circuit breaker is half-open and probing: try again within %v", e.RetryAfter.Round(time.Millisecond))
	}
	return fmt.Sprintf("%v: try again in %v", ErrOpen, e.RetryAfter.Round(time.Millisecond))
}

// Is reports whether target is ErrOpen.
func (e *OpenError) Is(target error) bool { return target == ErrOpen }
