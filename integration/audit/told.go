package audit

import (
	"errors"
	"fmt"

	"github.com/retrypg/retrypg"
)

// Told is what a caller was told of its entry.
type Told uint8

const (
	OK         Told = iota + 1 // it is there
	NotApplied                 // it is not, and never will be
	Unknown                    // it may be
)

func (t Told) String() string {
	switch t {
	case OK:
		return "ok"
	case NotApplied:
		return "not applied"
	case Unknown:
		return "unknown"
	default:
		return fmt.Sprintf("Told(%d)", uint8(t))
	}
}

// Reading says what an error, or none, tells of an entry.
type Reading func(error) Told

// OfTransaction reads what WithTx and its like return: all errors but one say that nothing was applied.
func OfTransaction(err error) Told {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, retrypg.ErrCommitUnknown):
		return Unknown
	default:
		return NotApplied
	}
}

// OfStatement reads what anything else returns, by the outcome that Classify finds.
func OfStatement(err error) Told {
	if err == nil {
		return OK
	}
	switch retrypg.Classify(err).Outcome {
	case retrypg.OutcomeCommitted:
		return OK
	case retrypg.OutcomeNotStarted, retrypg.OutcomeRolledBack:
		return NotApplied
	default:
		return Unknown
	}
}
