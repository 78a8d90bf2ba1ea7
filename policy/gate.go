package policy

import "time"

// Gate decides whether attempts may be made at all, and is told how they went: a circuit breaker. [breaker.Breaker]
// is one, without either package importing the other. All methods must be safe for concurrent use and must not block.
//
// [breaker.Breaker]: https://pkg.go.dev/github.com/retrypg/retrypg/breaker#Breaker
type Gate interface {
	// Admit asks to make an attempt now. The token identifies it to Settle; an error refuses it. held says that the attempt
	// takes a place that somebody else could have, as the probe of a circuit breaker does: Settle is then called for it
	// even if the attempt panics.
	Admit() (token uint64, held bool, err error)
	// Refusal returns the error with which Admit is certain to refuse for longer than wait, and nil if that is not
	// certain. It admits nothing.
	Refusal(wait time.Duration) error
	// Settle ends the attempt of token: well if outcome is positive, badly if it is negative, and without saying anything
	// of the server's health if it is 0. It is called once for each token that Admit gave, but not for an attempt that
	// panicked and held nothing.
	Settle(token uint64, outcome int)
}

// Health is what an error says to a [Gate] about the health of the server.
type Health uint8

const (
	// HealthAuto makes an error count against the server if it is to be retried and the context has not ended, and say
	// nothing otherwise: what the caller cancelled and what the server refuses on good grounds is no outage.
	HealthAuto Health = iota
	// HealthGood says that the server works: it has answered, if not as wished.
	HealthGood
	// HealthBad says that the server does not work.
	HealthBad
	// HealthUnknown says nothing.
	HealthUnknown
)

// outcome returns the argument of Gate.Settle.
func (h Health) outcome(retry, ended bool) int {
	switch {
	case h == HealthGood:
		return 1
	case h == HealthBad, h == HealthAuto && retry && !ended:
		return -1
	}
	return 0
}
