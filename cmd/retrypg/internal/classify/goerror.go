package classify

import (
	"context"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg"
)

// when says at which moments an error can arise.
type when uint8

const (
	atConnect when = 1 << iota
	inFlight
	anytime = atConnect | inFlight
)

// goErrors are the errors of Go, pgx and database/sql by a part of their text, the more special ones first.
var goErrors = []struct {
	text string // in lower case
	when when
	err  error
}{
	{"connection refused", atConnect, dial(syscall.ECONNREFUSED)},
	{"connection reset by peer", anytime, syscall.ECONNRESET},
	{"broken pipe", inFlight, syscall.EPIPE},
	{"connection timed out", anytime, syscall.ETIMEDOUT},
	{"no route to host", anytime, syscall.EHOSTUNREACH},
	{"network is unreachable", anytime, syscall.ENETUNREACH},
	{"no such host", atConnect, &net.DNSError{Err: "no such host", IsNotFound: true}},
	{"server misbehaving", atConnect, &net.DNSError{Err: "server misbehaving", IsTemporary: true}},
	{"connect: no such file or directory", atConnect, dial(syscall.ENOENT)},
	{"connect: permission denied", atConnect, dial(syscall.EACCES)},
	{"server refused tls connection", atConnect, errorText("server refused TLS connection")},
	{"x509: certificate", atConnect, x509.UnknownAuthorityError{}},
	{"read only connection", atConnect, pgconn.ErrReadOnlyConnection},
	{"standby connection", atConnect, pgconn.ErrStandbyConnection},
	{"primary connection", atConnect, pgconn.ErrPrimaryConnection},
	{"read write connection", atConnect, pgconn.ErrReadWriteConnection},
	{"unexpected eof", anytime, io.ErrUnexpectedEOF},
	{"use of closed network connection", anytime, net.ErrClosed},
	{"i/o timeout", anytime, os.ErrDeadlineExceeded},
	{"context deadline exceeded", anytime, context.DeadlineExceeded},
	{"context canceled", anytime, context.Canceled},
	{"conn closed", inFlight, pgconn.ErrConnClosed},
	{"driver: bad connection", inFlight, driver.ErrBadConn},
	{"sql: connection is already closed", inFlight, sql.ErrConnDone},
	{"sql: transaction has already been committed or rolled back", inFlight, sql.ErrTxDone},
	{"tx is closed", inFlight, pgx.ErrTxClosed},
	{"commit unexpectedly resulted in rollback", inFlight, pgx.ErrTxCommitRollback},
	{"no rows in result set", inFlight, sql.ErrNoRows},
	{"commit outcome unknown", inFlight, &retrypg.CommitUnknownError{Err: io.ErrUnexpectedEOF}},
}

func dial(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
}

// byGoError looks up the text of an error of Go, pgx or database/sql.
func byGoError(text string) (Result, bool) {
	lower := strings.ToLower(text)
	for _, g := range goErrors {
		if !strings.Contains(lower, g.text) {
			continue
		}
		when := g.when
		r := Result{Known: true, Note: "known as an error of Go or pgx, which retrypg knows by its type or value"}
		switch {
		case when == anytime && (strings.Contains(lower, "failed to connect") || strings.Contains(lower, "dial ")):
			when = atConnect
		case when == anytime:
			r.Note += "; the text does not tell when it arose"
		}
		if when&inFlight != 0 {
			c := retrypg.Classify(g.err)
			r.Verdicts = append(r.Verdicts, Verdict{As: "on a connection over which a statement may have been sent", Retry: c.Retry.String(), Outcome: c.Outcome.String(), Reason: c.Reason, Actions: actions(sent{}, c)})
		}
		if when&atConnect != 0 {
			c := retrypg.Classify(whileConnecting(g.err))
			r.Verdicts = append(r.Verdicts, Verdict{As: "while connecting", Retry: c.Retry.String(), Outcome: c.Outcome.String(), Reason: c.Reason, Actions: Actions{Connecting: connecting(c)}})
		}
		return r, true
	}
	return Result{}, false
}
