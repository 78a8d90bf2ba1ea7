package retrypg

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/retrypg/retrypg/policy"
)

// ExhaustedError is the error of an operation that failed after more than one attempt, or that could have been tried
// again but for a limit: it carries the number of attempts, the time they took, why there is no further one, and the
// last error, to which it unwraps.
type ExhaustedError = policy.ExhaustedError

// ErrCommitUnknown matches every error that says that a COMMIT was sent and its outcome is not known: the transaction
// may or may not have been applied. Such a transaction is never run again. The connection is closed, but the server may
// still be committing for a while: who looks for the effect at once may miss it, and who runs the transaction again must
// use a key that lets only one of the two succeed.
var ErrCommitUnknown = errors.New("commit outcome unknown")

// CommitUnknownError says that the connection was lost, or the context ended, between sending COMMIT and its answer.
// It matches ErrCommitUnknown, and unwraps to what ended the wait.
type CommitUnknownError struct {
	// Err is what came in place of the answer to COMMIT: a lost connection, a context's end, a pooler's message. It may be
	// nil in an error that a program has made from the other fields, for ResolveCommit.
	Err error
	// Check is how the outcome was asked for.
	Check CommitCheck
	// XID is the transaction's id and PID the server process that had it; 0 where they are not known.
	XID uint64
	PID uint32
	// Server is where the transaction began; the zero value where that is not known.
	Server ServerIdentity
	// Token is the transaction's row in the ledger, empty without one.
	Token string
	// Reason says why the outcome is not known.
	Reason string
	// Asked is how often the server was asked.
	Asked int

	asking   error         // why asking failed
	untold   bool          // hooks and telemetry wait for TxOptions.Verify
	askedFor time.Duration // how long the server was asked
}

// Error says what is known and what to do.
func (e *CommitUnknownError) Error() string {
	s := "commit outcome unknown: COMMIT was sent and no answer came"
	if e.Err != nil {
		s += fmt.Sprintf(" (%v)", e.Err)
	}
	if e.Reason != "" {
		s += "; " + e.Reason
	}
	if e.asking != nil {
		s += fmt.Sprintf(" (%v)", e.asking)
	}
	if e.XID != 0 {
		s += fmt.Sprintf("; transaction id %d, asked %d times", e.XID, e.Asked)
	}
	s += ": the transaction may have been applied; "
	if e.XID != 0 || e.Token != "" {
		s += "ask again with ResolveCommit, or "
	}
	return s + "look for its effect before running it again"
}

// Unwrap returns the cause.
func (e *CommitUnknownError) Unwrap() error { return e.Err }

// Is reports whether target is ErrCommitUnknown.
func (e *CommitUnknownError) Is(target error) bool { return target == ErrCommitUnknown }

// Errors about the use of WithTx and its kin.
var (
	// ErrTxEnded says that the closure of WithTx called Commit or Rollback itself, or sent COMMIT or ROLLBACK as text, or that it failed
	// after its LastStatement, with which the transaction has committed: then Class.Outcome is OutcomeCommitted. Else WithTx does not know what became of
	// the transaction then and does not run it again.
	ErrTxEnded = errors.New("the closure ended the transaction itself: leave Commit and Rollback to WithTx")
	// ErrNilFunc says that WithTx was called without a closure.
	ErrNilFunc = errors.New("retrypg: WithTx needs a function, got nil")
	// ErrNilDB says that WithTx or WaitReady was called without a database.
	ErrNilDB = errors.New("retrypg: a database is needed, got nil")
	// ErrNestedOptions says that a nested WithTx asked for an isolation level or access mode: a savepoint has none.
	ErrNestedOptions = errors.New("retrypg: a nested WithTx is a savepoint of the outer transaction: set isolation, read-only and deferrable there")
	// ErrClosed says that a Connector or a Pool was used after Close, or closed while a call waited for the server.
	ErrClosed = errors.New("retrypg: connector or pool is closed")
)

// errBusy is the error in place of driver.ErrBadConn, which says nothing, when a statement is sent while rows of an
// earlier one are still open.
var errBusy = errors.New("retrypg: connection busy: close the rows of the previous query on this transaction or connection first")

// discardedError tells database/sql to drop a connection and to take another one, and tells everybody else why. Unlike
// a bare driver.ErrBadConn the reason survives when database/sql has no other connection to take (a pinned sql.Conn,
// or its attempts used up). It is returned only where nothing of the statement can have taken effect.
type discardedError struct{ err error }

func (e *discardedError) Error() string        { return e.err.Error() }
func (e *discardedError) Unwrap() error        { return e.err }
func (e *discardedError) Is(target error) bool { return target == driver.ErrBadConn }

// sentAgainError is the error of a statement that was sent again although an earlier attempt may have taken effect: what became
// of the last attempt says nothing of that.
type sentAgainError struct{ last, lost error }

// newSentAgainError leaves out what would make database/sql send it yet again.
func newSentAgainError(last, lost error) error {
	var discarded *discardedError
	if errors.As(last, &discarded) {
		last = discarded.err
	}
	return &sentAgainError{last: last, lost: lost}
}

func (e *sentAgainError) Error() string {
	return fmt.Sprintf("%v; the statement was sent before, and may have taken effect then (%v)", e.last, e.lost)
}

func (e *sentAgainError) Unwrap() []error { return []error{e.last, e.lost} }
