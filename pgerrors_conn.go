package retrypg

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"reflect"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/endpoint"
)

// classifyNode classifies one error of a tree without looking further than that error's own kind demands. The weight is
// silent if the error says nothing, or if what it wraps says it better.
func classifyNode(err error, ph phase) (Class, weight) {
	switch e := err.(type) {
	case *pgconn.PgError:
		return classifyServer(e)
	case *CommitUnknownError:
		// Whatever ended the wait would be healed by another connection; the transaction would not.
		c, _ := classifyFirst(e.Err, inFlight)
		return Class{Retry: RetryNever, Outcome: OutcomeUnknown, SQLState: c.SQLState, Reason: "commit outcome unknown"}, decisive
	case *notAppliedError:
		c, _ := classifyFirst(e.err, inFlight)
		retry := RetryReconnect
		if e.why == "" && (errors.Is(e.err, context.Canceled) || errors.Is(e.err, context.DeadlineExceeded)) {
			retry = RetryNever // the caller's own end
		}
		return Class{Retry: retry, Outcome: OutcomeRolledBack, SQLState: c.SQLState, Reason: "commit not applied"}, decisive
	case *committedError:
		return Class{Retry: RetryNever, Outcome: OutcomeCommitted, Reason: "committed"}, decisive
	case *discardedError:
		return classifyDiscarded(e, ph)
	case *sentAgainError:
		c, _ := classifyFirst(e.last, inFlight)
		c.Outcome = OutcomeUnknown
		return c, decisive
	case *statementTimeoutError:
		return Class{Retry: RetryReconnect, Outcome: OutcomeUnknown, Reason: "statement timeout"}, decisive
	case *greetError:
		return classifyFirst(e.err, connecting)
	case *ExhaustedError:
		switch {
		case e.Last == nil: // not one attempt was made
			return Class{Retry: RetryNever, Outcome: OutcomeNotStarted, Reason: "not attempted"}, decisive
		case e.Op == endpoint.Connecting: // whatever ended it, nothing was sent
			return classifyFirst(e.Last, connecting)
		}
	case interface{ SQLState() string }:
		var server *pgconn.PgError
		if errors.As(err, &server) {
			return classifyServer(server) // it says more than its code
		}
		return classifyServer(&pgconn.PgError{Code: e.SQLState()})
	case *pgconn.ParseConfigError:
		return Class{Outcome: OutcomeNotStarted, Reason: "invalid connection string"}, decisive
	case *net.DNSError:
		return classifyDNS(e)
	case *net.OpError:
		return classifyOp(e, ph)
	case *tls.CertificateVerificationError, x509.UnknownAuthorityError, x509.HostnameError, x509.CertificateInvalidError,
		x509.ConstraintViolationError, x509.InsecureAlgorithmError, x509.UnhandledCriticalExtension, x509.SystemRootsError:
		return Class{Outcome: OutcomeNotStarted, Reason: "certificate not valid"}, ordinary
	case tls.RecordHeaderError:
		return atHandshake(ph, "peer does not speak TLS"), ordinary
	case tls.AlertError:
		return atHandshake(ph, "TLS alert"), ordinary
	}
	if c, w := classifyPgxType(err, ph); w != silent {
		return c, w
	}
	if c, w := classifySentinel(err, ph); w != silent {
		return c, w
	}
	if reason, k := errnoOf(err); k == errnoNetwork {
		return broken(ph, reason), ordinary
	}
	if !unwraps(err) {
		return classifyLeafText(err, ph)
	}
	return Class{}, silent
}

// classifyDiscarded classifies the reason for which a connection was dropped. That the statement had no effect the reason
// itself need not prove.
func classifyDiscarded(e *discardedError, ph phase) (Class, weight) {
	c, _ := classifyFirst(e.err, ph)
	if c.Outcome == OutcomeUnknown {
		c.Outcome = OutcomeNotStarted
	}
	if c.Reason == "" {
		c.Retry, c.Reason = RetryReconnect, "connection dropped"
	}
	return c, ordinary
}

// broken is the class of a connection that failed: before anything was sent, waiting heals it; afterwards nobody knows.
func broken(ph phase, reason string) Class {
	if ph == inFlight {
		return Class{Retry: RetryReconnect, Outcome: OutcomeUnknown, Reason: reason}
	}
	return Class{Retry: RetryWait, Outcome: OutcomeNotStarted, Reason: reason}
}

// atHandshake is the class of a TLS failure: at connect one of the configurations is wrong; on a connection that worked
// it is damage on the way.
func atHandshake(ph phase, reason string) Class {
	if ph == inFlight {
		return broken(ph, reason)
	}
	return Class{Retry: RetryNever, Outcome: OutcomeNotStarted, Reason: reason}
}

// classifyDNS: names are only looked up before a connection. A name that does not exist may be one that does not exist
// yet, as when a container starts before the server's.
func classifyDNS(e *net.DNSError) (Class, weight) {
	switch {
	case errors.Is(e, context.Canceled):
		return Class{Outcome: OutcomeNotStarted, Reason: "context canceled"}, decisive
	case e.IsNotFound:
		return broken(dialing, "host not found"), ordinary
	default:
		return broken(dialing, "name lookup failed"), ordinary
	}
}

// classifyOp classifies what package net and crypto/tls report of a socket.
func classifyOp(e *net.OpError, ph phase) (Class, weight) {
	if e.Op == "dial" {
		ph = dialing
	}
	// When a dial ends with its context, net returns errors of its own that match the context's.
	if errors.Is(e.Err, context.Canceled) {
		return classifySentinel(context.Canceled, ph)
	}
	switch e.Op {
	case "remote error", "local error": // so crypto/tls names alerts
		return atHandshake(ph, "TLS alert"), ordinary
	}
	if ph == dialing {
		var dns *net.DNSError
		if errors.As(e.Err, &dns) {
			return classifyDNS(dns)
		}
		switch e.Err.(type) {
		case *net.AddrError, *net.ParseError, net.UnknownNetworkError, net.InvalidAddrError:
			return Class{Outcome: OutcomeNotStarted, Reason: "invalid address"}, ordinary
		}
	}
	switch reason, k := errnoOf(innermost(e.Err)); {
	case k == errnoNetwork:
		return broken(ph, reason), ordinary
	case k == errnoHopeless && ph == dialing:
		return Class{Outcome: OutcomeNotStarted, Reason: reason}, ordinary
	case k == errnoNoFile && ph == dialing:
		return broken(ph, "socket missing"), ordinary
	}
	switch {
	case e.Timeout():
		return broken(ph, "connection timed out"), ordinary
	case errors.Is(e.Err, net.ErrClosed):
		return broken(ph, "connection closed"), ordinary
	case ph == dialing:
		return broken(ph, "dial failed"), ordinary
	}
	return broken(ph, "network error"), ordinary
}

// errnoKind says what an operating system's error number means on a socket.
type errnoKind uint8

const (
	errnoNone     errnoKind = iota // no error number, or one that need not come from a network
	errnoNetwork                   // the network or the peer failed
	errnoNoFile                    // no such file: of a Unix socket, if it was dialled
	errnoHopeless                  // a dial that fails again: no permission, address not valid
)

// classifyPgxType knows the error types of pgx that carry evidence and are not exported. A type's name decides, never
// the method SafeToRetry alone: see [Classify].
func classifyPgxType(err error, ph phase) (Class, weight) {
	t := reflect.TypeOf(err)
	if t.Kind() != reflect.Pointer {
		return Class{}, silent
	}
	switch t.String() {
	case "*pgproto3.writeError":
		if ph != inFlight {
			return Class{}, silent // what it wraps may be a certificate that was refused at the first write
		}
		c := broken(ph, "write failed")
		// True here means that not a byte of this message was written (pgproto3.Frontend.Flush).
		if e, ok := err.(interface{ SafeToRetry() bool }); ok && e.SafeToRetry() {
			c.Outcome = OutcomeNotStarted
		}
		return c, ordinary
	case "*pgconn.contextAlreadyDoneError":
		if ph != inFlight {
			return Class{}, silent // the context may be that of one attempt
		}
		return Class{Outcome: OutcomeNotStarted, Reason: "context was done before sending"}, decisive
	case "*pgconn.connLockError":
		// "conn busy" and "conn uninitialized" are found out before sending. "conn closed" is not: see [Classify].
		if !errors.Is(err, pgconn.ErrConnClosed) {
			return Class{Outcome: OutcomeNotStarted, Reason: "connection in use"}, ordinary
		}
	case "*pgconn.sslCertModeError":
		return Class{Outcome: OutcomeNotStarted, Reason: "client certificate required"}, decisive
	}
	return Class{}, silent
}

// sentinels are the error values that say something, each with its class while a statement may be in flight.
var sentinels = [...]struct {
	err   error
	class Class
}{
	{io.ErrUnexpectedEOF, Class{Retry: RetryReconnect, Reason: "connection lost"}},
	{io.EOF, Class{Retry: RetryReconnect, Reason: "connection lost"}},
	{io.ErrClosedPipe, Class{Retry: RetryReconnect, Reason: "connection closed"}},
	{net.ErrClosed, Class{Retry: RetryReconnect, Reason: "connection closed"}},
	{pgconn.ErrConnClosed, Class{Retry: RetryReconnect, Reason: "connection closed"}},
	{driver.ErrBadConn, Class{Retry: RetryReconnect, Reason: "bad connection"}},
	{os.ErrDeadlineExceeded, Class{Retry: RetryReconnect, Reason: "connection timed out"}},
	// database/sql refuses to use what was given back: nothing was sent.
	{sql.ErrConnDone, Class{Retry: RetryReconnect, Outcome: OutcomeNotStarted, Reason: "connection was given back"}},
	// Whether that transaction was committed is another question, hence unknown. After a deadline sql.Tx.Commit returns
	// ErrTxDone too.
	{sql.ErrTxDone, Class{Reason: "transaction is over"}},
	{pgx.ErrTxClosed, Class{Reason: "transaction is over"}},
	{pgx.ErrTxCommitRollback, Class{Outcome: OutcomeRolledBack, Reason: "commit of an aborted transaction"}},
	{ErrClosed, Class{Outcome: OutcomeNotStarted, Reason: "connector is closed"}},
	// The statement worked; they say nothing about the transaction.
	{sql.ErrNoRows, Class{Reason: "no rows"}},
	{pgx.ErrNoRows, Class{Reason: "no rows"}},
	{pgx.ErrTooManyRows, Class{Reason: "too many rows"}},
	// target_session_attrs is not met: this server has the wrong role, now.
	{pgconn.ErrReadOnlyConnection, Class{Retry: RetryFailover, Outcome: OutcomeNotStarted, Reason: "server is read-only"}},
	{pgconn.ErrStandbyConnection, Class{Retry: RetryFailover, Outcome: OutcomeNotStarted, Reason: "server is a standby"}},
	{pgconn.ErrReadWriteConnection, Class{Retry: RetryFailover, Outcome: OutcomeNotStarted, Reason: "server is not read-only"}},
	{pgconn.ErrPrimaryConnection, Class{Retry: RetryFailover, Outcome: OutcomeNotStarted, Reason: "server is not a standby"}},
}

// classifySentinel compares err, but not what it wraps, with the known values. A method Is counts only where nothing is
// wrapped: errors that stand for others in that way, as those of package net do for a context's.
func classifySentinel(err error, ph phase) (Class, weight) {
	same, _ := err.(interface{ Is(target error) bool })
	if same != nil && unwraps(err) {
		same = nil
	}
	is := func(target error) bool { return err == target || same != nil && same.Is(target) }
	switch {
	case is(context.Canceled):
		if ph == inFlight {
			return Class{Outcome: OutcomeUnknown, Reason: "context canceled"}, decisive
		}
		return Class{Outcome: OutcomeNotStarted, Reason: "context canceled"}, decisive
	case is(context.DeadlineExceeded):
		if ph == inFlight {
			return Class{Outcome: OutcomeUnknown, Reason: "context deadline exceeded"}, decisive
		}
		// The deadline may be connect_timeout of one address. The caller knows whether its own has passed.
		return broken(ph, "connection timed out"), ordinary
	}
	for i := range sentinels {
		if is(sentinels[i].err) {
			c := sentinels[i].class
			if ph != inFlight && c.Retry == RetryReconnect {
				c = broken(ph, c.Reason)
			}
			return c, ordinary
		}
	}
	return Class{}, silent
}

// classifyLeafText knows the errors of Go packages that have neither type nor value to be known by. They wrap nothing
// and are not localised.
func classifyLeafText(err error, ph phase) (Class, weight) {
	switch err.Error() {
	case "server refused TLS connection": // pgconn, answer N to SSLRequest
		return atHandshake(ph, "server refused TLS"), ordinary
	case "closed pool": // puddle, below pgxpool
		return Class{Outcome: OutcomeNotStarted, Reason: "pool is closed"}, ordinary
	case "sql: database is closed", "sql: statement is closed":
		return Class{Outcome: OutcomeNotStarted, Reason: "database handle is closed"}, ordinary
	}
	if e, ok := err.(net.Error); ok && e.Timeout() {
		return broken(ph, "connection timed out"), ordinary
	}
	return Class{}, silent
}

// innermost follows a chain of errors to its end.
func innermost(err error) error {
	for {
		e, ok := err.(interface{ Unwrap() error })
		if !ok || e.Unwrap() == nil {
			return err
		}
		err = e.Unwrap()
	}
}

// unwraps says whether err wraps something that is not nil.
func unwraps(err error) bool {
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return e.Unwrap() != nil
	case interface{ Unwrap() []error }:
		return len(e.Unwrap()) > 0
	}
	return false
}
