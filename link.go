package retrypg

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/internal/outcome"
	"github.com/retrypg/retrypg/internal/piggyback"
	"github.com/retrypg/retrypg/internal/transport"
)

// linkKey is where a connection's link is kept in pgconn's CustomData.
const linkKey = "retrypg"

// link is what is known of one physical connection beyond what pgx tells: what was really handed to the kernel, what
// really ended it, and why its transaction was aborted. It is used by one goroutine at a time, as the connection is.
type link struct {
	pg        *pgconn.PgConn
	core      *core           // of the pool that the connection belongs to; nil if it is not ours
	host      *endpoint.Host  // that it leads to; nil if it is not ours
	born      uint64          // the host's generation when the connection was made
	toStandby bool            // the server was a standby then, as it said
	left      bool            // it was found to have the wrong role over this connection
	wire      *transport.Conn // nil where the connection was not dialled by us: nothing is known then
	rider     *piggyback.Conn // nil where nothing can travel with what pgx sends

	txErr   *pgconn.PgError // the error that aborted the transaction, if one did
	suspect *pgconn.PgError // an error as of a standby, of a server that has not shown to be one; see demoted
	used    bool            // it was in use before: it may have died since

	known      bool             // its configuration was looked at
	identified bool             // the server was asked who it is
	server     outcome.Identity // what it said
	pooled     bool             // a pooler is in between: the server behind it may be another one each time
	tracer     pgx.QueryTracer  // of the connection; nil if it has none
	tx         txFacts          // of the open transaction
	beginText  string           // the last BEGIN with the question for the id, which most transactions share
	beginFor   pgx.TxOptions    // what beginText is for

	lateByDefault bool      // default_transaction_isolation is a level whose transactions keep their snapshot
	ledger        bool      // the table of the tokens was there
	outOfIDs      time.Time // when the server handed out no more transaction ids; zero if it always did

	preparable bool              // statements may be prepared on it
	begins     int               // transactions that were begun, or asked, with text
	prepared   *outcome.Prepared // BEGIN with the question; nil if it is not prepared

	beginMsgs    []byte        // the last BEGIN that waited for a statement
	beginMsgsFor pgx.TxOptions // what it is for
	questionMsgs []byte        // the question for the id, as it travels with a statement
	named        named         // whether it is prepared

	lockQueries [lockQueries]preparedLocks // that are prepared

	answer committing // to COMMIT
}

// newLink makes the link of a connection and leaves it where OnPgError finds it.
func newLink(pc *pgconn.PgConn) *link {
	l := &link{pg: pc, wire: transport.From(pc.Conn())}
	l.rider = riderOf(l.wire)
	pc.CustomData()[linkKey] = l
	return l
}

// linkOf returns the link of a connection, or nil if it has none (yet).
func linkOf(pc *pgconn.PgConn) *link {
	l, _ := pc.CustomData()[linkKey].(*link)
	return l
}

// ensureLink returns the link of a connection, made now where the connection is not of a pool of ours.
func ensureLink(pc *pgconn.PgConn) *link {
	if l := linkOf(pc); l != nil {
		return l
	}
	return newLink(pc)
}

// begin forgets the last transaction.
func (l *link) begin() {
	l.txErr, l.tx = nil, txFacts{}
	if l.rider != nil {
		l.rider.Reset()
	}
}

// note keeps the last error of a transaction that does not merely say that it is aborted already: should the transaction
// be found aborted, that error is why.
func (l *link) note(err *pgconn.PgError) {
	if l == nil {
		return
	}
	if err.Code != "25P02" && l.status() != 'I' {
		l.txErr = err
		if l.tx.lazy && !l.tx.last.travels {
			if answer, _ := l.rider.Answer(); answer == piggyback.Failed {
				l.refusedQuestion(err.Code)
			}
		}
	}
	if l.host != nil && Classify(err).Retry == RetryFailover {
		switch on, sure := l.hotStandby(); {
		case !sure:
			l.suspect = err
		case on && l.content():
			l.tx.final = true
		case on:
			l.fence(err)
		}
	}
}

// content reports whether a standby is what the handle has asked for, so that an error as of one is the caller's.
func (l *link) content() bool {
	return l.core.role == "standby" || l.core.role == "read-only" || l.core.role == "prefer-standby"
}

// refenceAfter is how long a host that was fenced, and turned out to be a standby again, is not fenced anew. Chosen: an address that
// leads to a standby for a moment leads elsewhere by then; where a standby is what it stands for, writes by mistake must not cost
// all others their connections.
const refenceAfter = 30 * time.Second

// fence makes the connection unfit for use, and all others to the server, as err shows that it has lost its role.
func (l *link) fence(err *pgconn.PgError) {
	l.left = true
	if l.toStandby && l.host.FencedWithin(refenceAfter) {
		return
	}
	if l.host.Fence(l.born) {
		l.core.order.Avoid(dialled(l.pg))
		l.core.fenced(err)
	}
}

// belongs makes the link one of a core's connections.
func (l *link) belongs(c *core) {
	l.core, l.tracer = c, c.tracer
	l.host = c.hosts.At(dialled(l.pg))
	l.born = l.host.Generation()
	l.toStandby = l.pg.ParameterStatus("in_hot_standby") == "on"
}

// stale reports whether the server behind the connection was found to have the wrong role, be it by another connection.
func (l *link) stale() bool { return l.left || l.host != nil && l.host.Generation() != l.born }

// hotStandby reports what the server says of itself without being asked: PostgreSQL 14 and later report in_hot_standby. It is
// not sure where that is missing, and where a pooler may tell of another server.
func (l *link) hotStandby() (on, sure bool) {
	switch l.pg.ParameterStatus("in_hot_standby") {
	case "on":
		return true, !l.pooled
	case "off":
		return false, l.identified && !l.pooled
	}
	return true, false
}

// demoted reports whether the server turned out to be a standby. Where an error speaks for it that may have another cause, as
// the default_transaction_read_only of a role or a READ ONLY transaction, it asks the server, which takes a connection outside of a
// transaction; one that cannot answer is taken for what it seemed to be.
func (l *link) demoted(ctx context.Context) bool {
	if l.suspect == nil || l.stale() {
		return l.stale()
	}
	if l.pg.IsClosed() || l.status() != 'I' {
		return false
	}
	standby, err := l.asksRecovery(ctx)
	if err != nil && ctx.Err() != nil {
		return false // the question ended with its context, and the connection with it
	}
	content := standby && l.content()
	if standby && !content {
		l.fence(l.suspect)
	}
	l.suspect, l.tx.final = nil, content || !standby && !l.tx.standby
	return standby && !content
}

// inRecovery reports whether the server is a hot standby.
func (l *link) inRecovery(ctx context.Context) bool {
	if on, sure := l.hotStandby(); sure {
		return on
	}
	standby, _ := l.asksRecovery(ctx)
	return standby
}

// asksRecovery asks the server whether it is a hot standby. With an error standby is what it seems to be.
func (l *link) asksRecovery(ctx context.Context) (standby bool, err error) {
	ctx, cancel := l.core.answersWithin(ctx)
	defer release(cancel)
	if standby, err = outcome.InRecovery(ctx, l.pg); err != nil {
		standby, _ = l.hotStandby()
	}
	return standby, err
}

// mark returns how much was sent so far, for sentSince.
func (l *link) mark() uint64 {
	if l.wire == nil {
		return 0
	}
	return l.wire.BytesWritten()
}

// sentSince reports whether anything was handed to the kernel since mark. pgx's SafeToRetry says something similar and
// is not used: pgx 5.9 to 5.12 return true for statements that ran.
func (l *link) sentSince(mark uint64) bool { return l.wire == nil || l.wire.BytesWritten() != mark }

// dead reports whether the kernel knows already that the connection has ended. One look at the socket, and what would
// have been sent into nowhere, and then be unknown, is known not to have been sent.
func (l *link) dead() bool { return l.wire != nil && l.wire.Peek() == transport.Dead }

// trueError returns what really ended the connection where pgx only says that it is closed: since 5.9 pgx drops the
// read error of a simple-protocol statement and reports "conn closed" with SafeToRetry true, although the statement was
// sent and may have run.
func (l *link) trueError(err error) error {
	if err != nil && !errors.Is(err, pgconn.ErrConnClosed) && !errors.Is(err, driver.ErrBadConn) {
		return err
	}
	return l.readError()
}

// readError returns the error that reading from the server ended with.
func (l *link) readError() error {
	if l.rider != nil && l.rider.Failed() != nil {
		return l.rider.Failed()
	}
	if l.wire != nil {
		if err := l.wire.ReadErr(); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return io.ErrUnexpectedEOF
}

// unsentError returns why nothing of a statement could be sent.
func (l *link) unsentError(err error) error {
	if err != nil && !errors.Is(err, driver.ErrBadConn) {
		return err
	}
	if l.wire != nil {
		if werr := l.wire.WriteErr(); werr != nil {
			return werr
		}
		if rerr := l.wire.ReadErr(); rerr != nil && !errors.Is(rerr, io.EOF) {
			return rerr
		}
	}
	return pgconn.ErrConnClosed
}

// lives looks at an idle connection before it is used: at its generation, and at its socket, which costs no round trip and finds what the server
// has closed, and with a ping where that is asked for or where something unread waits, a FATAL or a notice. It tells the
// core of a connection that it finds dead.
func (l *link) lives(ctx context.Context, c *core, ping bool) bool {
	if l.stale() {
		c.evicted(ctx, "fenced")
		return false
	}
	if l.wire != nil {
		switch l.wire.Peek() {
		case transport.Dead:
			c.evicted(ctx, "dead")
			return false
		case transport.Pending:
			ping = true
		}
	}
	if l.suspect != nil {
		if l.demoted(ctx) {
			c.evicted(ctx, "fenced")
			return false
		}
		ping = l.suspect != nil // it has not answered
	}
	if ping && !l.answersPing(ctx, c) {
		c.evicted(ctx, "ping")
		return false
	}
	return true
}

// answersPing pings.
func (l *link) answersPing(ctx context.Context, c *core) bool {
	ctx, cancel := c.answersWithin(ctx)
	defer release(cancel)
	return l.pg.Ping(ctx) == nil
}

// answersWithin returns the context of a question to an idle connection. The server may take as long as for a new connection,
// which would take the place of this one.
func (c *core) answersWithin(ctx context.Context) (_ context.Context, cancel context.CancelFunc) {
	if c == nil || c.connectTimeout <= 0 {
		return ctx, nil
	}
	return context.WithTimeout(ctx, c.connectTimeout)
}
