package retrypg

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// verdict is what is known of the end of a transaction.
type verdict uint8

const (
	verdictNone       verdict = iota // COMMIT was not tried
	verdictCommitted                 // it took effect
	verdictNotApplied                // it did not, and never will
	verdictUnknown                   // nothing is known
	verdictEnded                     // a statement of the user had ended the transaction: its fate is not known here
)

// unsendable returns why COMMIT is not to be sent, if it is not.
func unsendable(ctx context.Context, conn *pgx.Conn, l *link) (verdict, error) {
	if err := ctx.Err(); err != nil {
		return verdictNotApplied, &notAppliedError{err: err}
	}
	if l.status() == 'I' || l.lostEnd() {
		// Outside of a transaction COMMIT is answered with its tag and a mere warning. A closed connection keeps the
		// last status that the server told.
		return verdictEnded, endedError(nil)
	}
	if conn.IsClosed() {
		return verdictNotApplied, &notAppliedError{err: l.readError()}
	}
	if l.dead() {
		closeNow(conn) // nothing was sent, and nothing will be
		return verdictNotApplied, &notAppliedError{err: l.readError()}
	}
	return verdictNone, nil
}

// commit sends query, which is COMMIT or a variant of it, on conn and says what became of it, by evidence: the command tag,
// what was sent, the server's ReadyForQuery; never by the kind of error alone. The error is nil if and only if the
// transaction committed; with verdictUnknown it is what came in place of an answer.
func commit(ctx context.Context, conn *pgx.Conn, l *link, query string) (verdict, error) {
	mark, aborted := l.mark(), l.status() == 'E'
	tag, err := l.sendCommit(ctx, conn, func(ctx context.Context) (pgconn.CommandTag, error) { return conn.Exec(ctx, query) })
	switch tag.String() {
	case "COMMIT":
		// The tag is sent after the commit record is written: whatever followed it, the transaction is there.
		return verdictCommitted, nil
	case "ROLLBACK":
		if err == nil {
			err = pgx.ErrTxCommitRollback
		}
		return verdictNotApplied, err
	}
	switch {
	case l.answer.unreplicated != nil:
		return verdictCommitted, nil // and then the server ended the connection
	case err == nil && query != plainCommit && aborted:
		return verdictNotApplied, pgx.ErrTxCommitRollback
	case err == nil && query != plainCommit:
		return verdictCommitted, nil // the user's own, whose last tag may be another's: PREPARE TRANSACTION, SELECT
	case err == nil:
		err = errors.New("no command tag in the answer to COMMIT")
	case !strings.Contains(query, ";") && commitRefused(conn, err):
		return verdictNotApplied, err
	case !l.sentSince(mark):
		return verdictNotApplied, &notAppliedError{err: err}
	}
	return verdictUnknown, l.lostAnswer(ctx, err)
}

// lostAnswer is what came in place of the answer to COMMIT, where pgx says err.
func (l *link) lostAnswer(ctx context.Context, err error) error {
	err = l.trueError(err)
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = errors.Join(ctx.Err(), err)
	}
	return err
}

// plainCommit is what commits unless pgx.TxOptions say otherwise.
const plainCommit = "commit"

// commitRefused reports whether the server's answer to COMMIT proves that the transaction was rolled back: an ERROR that
// says so and was followed by ReadyForQuery (without it the error may have come after the commit record), or a FATAL that
// PostgreSQL itself (Routine is set) can only send before that record: CommitTransaction (xact.c) holds interrupts from
// before it until the tag is queued.
func commitRefused(conn *pgx.Conn, err error) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Routine == "" {
		return false
	}
	switch severityOf(pgErr) {
	case "ERROR":
		// CockroachDB has codes that say "ambiguous", and one that says "committed".
		return !conn.IsClosed() && conn.PgConn().TxStatus() == 'I' && Classify(pgErr).Outcome == OutcomeRolledBack
	case "FATAL":
		switch pgErr.Code {
		case "57P01", "25P03", "25P04": // admin_shutdown, idle_in_transaction_session_timeout, transaction_timeout
			return true
		}
	}
	return false
}

// settle commits, finds out what became of a COMMIT whose answer was lost, and leaves the connection closed or ready for
// other work. With strict a transaction that a text of the user's has begun, after it ended the one that is to be committed, is
// rolled back, as if none were open.
func settle(ctx context.Context, c *core, conn *pgx.Conn, l *link, query string, strict bool) (verdict, error) {
	defer l.leave()
	if last := &l.tx.last; last.sent { // COMMIT went with the last statement
		return last.verdict, last.err
	}
	l.collect()
	if l.waits() && l.pg.TxStatus() != 'I' {
		if err := l.rollbackWaiting(ctx, conn); err != nil {
			return verdictNotApplied, l.notSent(err)
		}
		return verdictNotApplied, pgx.ErrTxCommitRollback
	}
	if l.waits() && query == plainCommit { // the server has heard nothing, so there is nothing that could be lost
		if err := ctx.Err(); err != nil {
			return verdictNotApplied, &notAppliedError{err: err}
		}
		return verdictCommitted, nil
	}
	if l.refused() {
		if !conn.IsClosed() && l.pg.TxStatus() != 'I' { // what was to be rolled back with BEGIN is still there
			_ = l.rollbackWaiting(ctx, conn)
		}
		return verdictNotApplied, pgx.ErrTxCommitRollback
	}
	v, err := unsendable(ctx, conn, l)
	if v == verdictNone && strict && l.endedByText(ctx) {
		v, err = verdictEnded, endedError(nil)
	}
	if v == verdictNone && l.tx.wishes.print.broken() != nil {
		v, err = verdictNotApplied, pgx.ErrTxCommitRollback
	}
	if v == verdictNone {
		if err = c.askLate(ctx, conn, l); err != nil {
			v, err = verdictNotApplied, l.notSent(err)
		}
	}
	if v == verdictNone {
		bounded, cancel := c.bounded(ctx)
		v, err = commit(bounded, conn, l, query)
		err = timedOut(bounded, err)
		release(cancel)
	}
	if n := l.answer.unreplicated; n != nil && v == verdictCommitted {
		c.tellUnreplicated(ctx, n)
	}
	switch {
	case v == verdictUnknown:
		l.giveUp(conn)
		return c.settleLost(ctx, conn, l, query, err)
	case v != verdictCommitted && !conn.IsClosed() && conn.PgConn().TxStatus() != 'I':
		_ = rollback(ctx, conn) // COMMIT was not sent; err says why
	case v == verdictCommitted && l.tx.token != nil:
		c.cleanUp(ctx, conn)
	}
	return v, err
}

// notSent is the error of a COMMIT that was not sent because of err: that of the server as it is.
func (l *link) notSent(err error) error {
	var notApplied *notAppliedError
	if SQLState(err) != "" || errors.As(err, &notApplied) {
		return err
	}
	return &notAppliedError{err: l.trueError(err)}
}

// unsettle rolls back. The verdict is verdictEnded if there was nothing to roll back, or with strict something else.
func unsettle(ctx context.Context, conn *pgx.Conn, l *link, strict bool) (verdict, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if last := &l.tx.last; last.sent { // COMMIT went with the last statement: there is nothing to roll back
		return last.verdict, errCommitSent
	}
	l.collect()
	v, err := verdictNone, error(nil)
	if l.waits() && l.pg.TxStatus() != 'I' {
		err = l.rollbackWaiting(ctx, conn)
	} else if !l.waits() && (!l.refused() || conn.IsClosed() || l.pg.TxStatus() != 'I') { // else the server has no transaction
		if l.status() == 'I' || l.lostEnd() || strict && l.endedByText(ctx) {
			v = verdictEnded
		}
		err = rollback(ctx, conn)
	}
	l.leave()
	if l.suspect != nil {
		l.demoted(ctx) // before the connection is given back: whether another server would do
	}
	return v, err
}

// rollbackWaiting rolls back a transaction that was to be, with the first statement of the next one. Nothing may be committed then.
func (l *link) rollbackWaiting(ctx context.Context, conn *pgx.Conn) error {
	l.leave()
	return rollback(ctx, conn)
}

// rollbackTimeout bounds a ROLLBACK whose context has ended: it is sent all the same, so that the connection can be used
// again, but nobody waits for it for long. Where it fails the connection is closed, which rolls back too. It is the time
// that pgx's database/sql layer gives to closing a connection.
const rollbackTimeout = 5 * time.Second

// rollback rolls back, also when ctx has ended, and closes the connection where that fails.
func rollback(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_, err := conn.Exec(ctx, "rollback")
	if err != nil {
		closeNow(conn)
	}
	return err
}

// closeNow closes a connection of which nothing good is expected, without waiting for the server.
func closeNow(conn *pgx.Conn) {
	_ = conn.Close(ended) // it is being given up: there is no use for its error
}

// ended is a context that has ended.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
