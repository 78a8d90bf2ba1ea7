package retrypg

import (
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Retry says what heals an error: what a caller may repeat, and on which connection. The numbers are not ordered.
// It is a statement about the error alone; whether repeating is safe also needs [Class.Outcome].
type Retry uint8

const (
	// RetryNever: repeating gives the same error again, or must not happen before the outcome is known. The zero value.
	RetryNever Retry = iota
	// RetryStatement: the same statement works when it is sent again on the same connection (a stale cached plan or
	// prepared statement). Inside a transaction the transaction is aborted, so there it means [RetryTransaction].
	RetryStatement
	// RetryTransaction: the transaction, from its BEGIN, may succeed after a short backoff. The connection is usable.
	// For a single statement outside a transaction the statement is the transaction.
	RetryTransaction
	// RetryReconnect: this connection is finished; another one to the same server can be had at once.
	RetryReconnect
	// RetryWait: the server (or pooler) does not take connections now; the same address may do so after a backoff.
	RetryWait
	// RetryFailover: this server has the wrong role or never becomes ready; look for another one, with backoff.
	RetryFailover
)

// String returns "never", "statement", "transaction", "reconnect", "wait" or "failover".
func (r Retry) String() string {
	switch r {
	case RetryNever:
		return "never"
	case RetryStatement:
		return "statement"
	case RetryTransaction:
		return "transaction"
	case RetryReconnect:
		return "reconnect"
	case RetryWait:
		return "wait"
	case RetryFailover:
		return "failover"
	}
	return "invalid"
}

// Outcome says what an error proves about the work that met it: the statement outside a transaction, or the
// transaction as a whole when the error came from COMMIT.
type Outcome uint8

const (
	// OutcomeUnknown: the error proves nothing; the work may have been applied. The zero value.
	OutcomeUnknown Outcome = iota
	// OutcomeNotStarted: the server did not begin the work that the error answers.
	OutcomeNotStarted
	// OutcomeRolledBack: the server began the work and rolled it back.
	OutcomeRolledBack
	// OutcomeCommitted: the work is applied although an error was returned.
	OutcomeCommitted
)

// String returns "unknown", "not_started", "rolled_back" or "committed".
func (o Outcome) String() string {
	switch o {
	case OutcomeUnknown:
		return "unknown"
	case OutcomeNotStarted:
		return "not_started"
	case OutcomeRolledBack:
		return "rolled_back"
	case OutcomeCommitted:
		return "committed"
	}
	return "invalid"
}

// Class is what [Classify] finds out about an error. It is comparable.
type Class struct {
	// Retry says what heals the error.
	Retry Retry
	// Outcome says what is known about the work that met the error.
	Outcome Outcome
	// SQLState is the five-character code, or empty if no server or proxy sent one.
	SQLState string
	// Reason is a short constant text such as "deadlock_detected" or "connection refused". It is empty for a nil
	// error, never contains user data, and may be reworded: do not match on it.
	Reason string
}

// Classify says what may be repeated after err and what is known about the work that met it. It looks at the error
// alone, not at a connection, and it never blocks. It is safe for concurrent use.
//
// A nil error gives the zero Class. So does an error about which nothing is known, such as one of the caller's own, apart
// from a Reason: [RetryNever] and [OutcomeUnknown] are the cautious answers.
//
// Wrapped errors are unwrapped. Of joined errors the first that says something decides: put the newest one first. A
// [pgconn.ConnectError] is different: it holds one error per address, all are looked at, and the answer is what waiting
// or another address can still heal. [RetryWait] therefore goes before [RetryFailover], and that before [RetryNever],
// with two exceptions which make the whole attempt RetryNever: an answer that is the same on all hosts of a cluster
// (wrong password, no such database, no privilege to connect: the errors at which pgx itself stops trying hosts), and a
// cancelled context. Within a ConnectError the outcome is always [OutcomeNotStarted], and what would have been
// [RetryStatement], [RetryTransaction] or [RetryReconnect] is RetryWait, as only a new attempt is left.
//
// Limits that no reading of an error can remove:
//   - An ERROR (as opposed to FATAL) proves the rollback only if the connection is still usable afterwards. If it broke
//     at the same moment, treat the outcome of a COMMIT as unknown.
//   - 25006 is [RetryFailover], although it also comes from a transaction that was declared READ ONLY, or has that by default. ParameterStatus
//     in_hot_standby (PostgreSQL 14 and later, without a pooler) or pg_is_in_recovery() tells them apart.
//   - A lost connection looks the same whoever owned it. If fn of a transaction called another service, an EOF or a
//     refusal may be that service's.
//   - driver.ErrBadConn and "conn closed" prove nothing, although they should: pgx 5.9 to 5.12 return them for statements
//     that ran. For the same reason [pgconn.SafeToRetry] is not consulted.
func Classify(err error) Class {
	c, w := classifyFirst(err, inFlight)
	if w == silent && err != nil {
		c.Reason = "not a database error"
	}
	return c
}

// SQLState returns the SQLSTATE of the error by which [Classify] decides, or "" if that one carries none. It knows
// *pgconn.PgError and every error with a method SQLState() string, so those of other drivers too.
func SQLState(err error) string {
	return Classify(err).SQLState
}

// phase says what was going on when an error arose.
type phase uint8

const (
	inFlight   phase = iota // a statement may have been sent
	connecting              // no statement was sent yet
	dialing                 // not even a connection was there
)

// weight says how much an error counts among others that it is joined with.
type weight uint8

const (
	silent   weight = iota // says nothing
	ordinary               // says something about the server or the connection that it came from
	decisive               // says the same about all hosts, or about the caller
)

// classifyFirst finds the first error in the tree of err that says something.
func classifyFirst(err error, ph phase) (Class, weight) {
	for err != nil {
		if e, ok := err.(*pgconn.ConnectError); ok {
			return classifyConnect(e)
		}
		if c, w := classifyNode(err, ph); w != silent {
			return c, w
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, child := range e.Unwrap() {
				if c, w := classifyFirst(child, ph); w != silent {
					return c, w
				}
			}
			return Class{}, silent
		default:
			return Class{}, silent
		}
	}
	return Class{}, silent
}

// classifyConnect combines what all addresses of one connection attempt answered.
func classifyConnect(err *pgconn.ConnectError) (Class, weight) {
	found := connectAnswer{class: Class{Outcome: OutcomeNotStarted, Reason: "connect failed"}}
	found.walk(err.Unwrap(), connecting)
	return found.class, max(found.weight, ordinary)
}

// connectAnswer is the combined class of the addresses looked at so far.
type connectAnswer struct {
	class  Class
	weight weight
}

// walk visits every leaf of the tree of err.
func (a *connectAnswer) walk(err error, ph phase) {
	for err != nil {
		c, w := classifyNode(err, ph)
		if w != silent {
			a.add(c, w)
			return
		}
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, child := range many.Unwrap() {
				a.walk(child, ph)
			}
			return
		}
		var inner error
		if one, ok := err.(interface{ Unwrap() error }); ok {
			inner = one.Unwrap()
		}
		if inner == nil {
			if ph == dialing {
				a.add(Class{Retry: RetryWait, Reason: "dial failed"}, ordinary)
			} else {
				a.add(Class{Retry: RetryNever, Reason: "connect failed"}, ordinary)
			}
			return
		}
		// pgx marks the two steps before a connection exists by these words, which are not localised. What custom
		// LookupFuncs and DialFuncs return has no common type.
		if text := err.Error(); strings.HasPrefix(text, "dial error: ") || strings.HasPrefix(text, "hostname resolving error: ") {
			ph = dialing
		}
		err = inner
	}
}

// add takes the class of one more leaf into account.
func (a *connectAnswer) add(c Class, w weight) {
	c.Outcome = OutcomeNotStarted
	switch c.Retry {
	case RetryStatement, RetryTransaction, RetryReconnect:
		c.Retry = RetryWait
	}
	if w > a.weight || (w == a.weight && connectRank(c.Retry) > connectRank(a.class.Retry)) {
		a.class, a.weight = c, w
	}
}

// connectRank orders what heals a connection attempt: the higher of two wins.
func connectRank(r Retry) int {
	switch r {
	case RetryWait:
		return 2
	case RetryFailover:
		return 1
	}
	return 0
}
