package pgtest

import "time"

// AcceptMode is what a new connection to a [Proxy] meets.
type AcceptMode uint8

const (
	AcceptForward AcceptMode = iota // it is taken to the server
	AcceptRefuse                    // nobody listens: ECONNREFUSED
	AcceptClose                     // accepted and closed, as by a load balancer without a server: unexpected EOF
	AcceptReset                     // accepted and reset: ECONNRESET
	AcceptSilent                    // accepted, and never answered
)

// Cut is how a TCP connection ends.
type Cut uint8

const (
	FIN Cut = iota // in order, after the bytes already sent: EOF
	RST            // at once, bytes under way may be lost: ECONNRESET
)

// Side is whose connection is cut: each proxied connection has two. The side that is not cut stays open, and nothing
// passes any more.
type Side uint8

const (
	Both   Side = iota // the network between them, or the proxy, is gone
	Client             // the server does not notice
	Server             // the client does not notice
)

// Scope says which connections [Proxy.SetFaults] is about.
type Scope uint8

const (
	All      Scope = iota // those that are open and those to come
	Existing              // those that are open
	New                   // those to come
)

// Faults are what happens to the bytes of a connection while it stays open. "Up" is from the client to the server.
// The zero value is none: forward at once.
type Faults struct {
	// BlackHoleUp and BlackHoleDown swallow bytes, and the end of the connection too. A connection that has lost
	// bytes is reset when the black hole ends, because the protocol could not go on.
	BlackHoleUp, BlackHoleDown bool
	// StallUp and StallDown keep bytes back; they arrive, in order, when the stall ends, as after a short failure of
	// a network that TCP survives.
	StallUp, StallDown bool
	// DelayUp and DelayDown are how much later each byte arrives. Zero and less mean none.
	DelayUp, DelayDown time.Duration
}

func (f Faults) blackHole(dir Direction) bool {
	if dir == FromClient {
		return f.BlackHoleUp
	}
	return f.BlackHoleDown
}

func (f Faults) stall(dir Direction) bool {
	if dir == FromClient {
		return f.StallUp
	}
	return f.StallDown
}

func (f Faults) delay(dir Direction) time.Duration {
	if dir == FromClient {
		return f.DelayUp
	}
	return f.DelayDown
}
