package retrypg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/outcome"
	"github.com/retrypg/retrypg/internal/piggyback"
	"github.com/retrypg/retrypg/policy"
)

// lastFacts is what is known of a COMMIT that went with the last statement of a transaction.
type lastFacts struct {
	travels bool // it is being answered
	sent    bool // it was sent, and may have taken effect or has ended the transaction: no other is sent
	failed  bool // the caller got an error of the statement
	gaveUp  bool // whose context had ended
	verdict verdict
	err     error // as of a COMMIT; nil if and only if the verdict is verdictCommitted
}

var (
	commitMsgs = outcome.Statement("", plainCommit)

	errCommitSent = fmt.Errorf("retrypg: nothing can be sent in the transaction after its LastStatement: %w", ErrTxEnded)

	// errLastPanicked is in place of the answer where what is called while a statement is sent has panicked: a function for notices, say.
	errLastPanicked = errors.New("panic while the last statement of the transaction was executed")
)

// commitsWith reports whether COMMIT may go with a statement: the caller says that it is the last one, and what the verdict needs is known,
// or would not be asked. The transaction's id must have come with an earlier flight: were it lost with this one, nothing could be asked.
func (l *link) commitsWith(ctx context.Context, sql string, args []any) bool {
	if !isLast(ctx) || !l.tx.lazy || l.wire == nil || ctx.Err() != nil || l.pg.IsClosed() || l.pg.IsBusy() {
		return false
	}
	if l.tracer != nil { // which may send something of its own first
		return false
	}
	texts := &l.tx.texts
	if l.pooled || l.status() != 'T' || texts.switched || texts.over {
		return false
	}
	// pgx sends a text with arguments as several statements, too, in the simple protocol.
	if rewritten(args) || !takesSnapshot(sql) {
		return false
	}
	if l.waits() && (l.tx.mute != muteReadOnly || l.tx.wishes.locks != nil) { // lost with BEGIN, the statement could be sent over another connection
		return false // and a wait for locks is to end with its context, which COMMIT goes on after
	}
	l.collect()
	return (l.tx.begun.XID != 0 || l.tx.mute != "") && !l.dead()
}

// sendLast lets COMMIT go with the statement that exec executes, and returns what the caller of the statement is to see. Where COMMIT was
// sent, the verdict is kept for settle: a lost answer is asked about here, before somebody ends the transaction by a rollback. Else
// l.tx.last.sent is false, and the result is that of any statement. outer is the context of the transaction, whose deadline bounds the asking.
func (l *link) sendLast(ctx, outer context.Context, c *core, conn *pgx.Conn, exec func(context.Context) (pgconn.CommandTag, error)) (tag pgconn.CommandTag, err error) {
	mark := l.mark()
	l.tx.last.travels = true
	l.rider.Behind(commitMsgs)
	err = errLastPanicked
	defer func() {
		tag, err = l.settleLast(ctx, outer, c, conn, mark, tag, err)
		l.tx.last.travels = false
		l.rider.Behind(nil) // a flight that executed nothing has left it
	}()
	return l.sendCommit(ctx, conn, exec)
}

// settleLast is settle for a COMMIT that was to go with a statement.
func (l *link) settleLast(ctx, outer context.Context, c *core, conn *pgx.Conn, mark uint64, tag pgconn.CommandTag, err error) (pgconn.CommandTag, error) {
	v, verr := l.lastVerdict(ctx, conn, mark, tag, err)
	if v == verdictNone {
		return tag, err
	}
	last := &l.tx.last
	last.sent, last.failed, last.verdict, last.err = true, true, v, verr
	var tooLong *statementTimeoutError
	last.gaveUp = ctx.Err() != nil && !errors.As(context.Cause(ctx), &tooLong)
	switch v {
	case verdictCommitted:
		if n := l.answer.unreplicated; n != nil {
			c.tellUnreplicated(outer, n)
		}
		if tag.String() != "" { // the statement was answered, before COMMIT was
			last.failed = false
			return tag, nil
		}
	case verdictNotApplied:
		if l.suspect != nil {
			l.demoted(outer) // before the connection is given back: whether another server would do
		}
		if err == nil {
			err = verr
		}
		return tag, l.trueError(err)
	case verdictUnknown:
		l.giveUp(conn)
		last.verdict, last.err = c.settleLost(outer, conn, l, plainCommit, timedOut(ctx, verr))
	}
	if last.err != nil {
		return pgconn.CommandTag{}, last.err
	}
	return pgconn.CommandTag{}, &committedError{lost: true, err: l.trueError(err)}
}

// lastVerdict is what is known of a COMMIT that was to go with a statement, by the evidence that commit goes by. It is verdictNone where the
// server has not got to it: then the statement is one like others.
func (l *link) lastVerdict(ctx context.Context, conn *pgx.Conn, mark uint64, tag pgconn.CommandTag, err error) (verdict, error) {
	ended := tag.String() == "COMMIT" || tag.String() == "ROLLBACK" // by the statement, which was prepared under another text
	switch l.rider.End() {
	case piggyback.Committed:
		if !ended {
			return verdictCommitted, nil
		}
	case piggyback.RolledBack:
		return verdictNotApplied, pgx.ErrTxCommitRollback
	}
	switch {
	case !l.rider.Sent(), !l.sentSince(mark), l.rider.Refused():
		return verdictNone, nil
	case l.answer.unreplicated != nil:
		return verdictCommitted, nil // and then the server ended the connection
	case err == nil:
		err = errors.New("no command tag of its own in the answer to COMMIT")
	case !conn.IsClosed() && l.status() == 'E':
		return verdictNone, nil // the statement has failed, and the server has skipped what was behind it
	case commitRefused(conn, err):
		return verdictNotApplied, err
	}
	return verdictUnknown, l.lostAnswer(ctx, err)
}

// committedError is an error in spite of which the transaction is committed, once: COMMIT went with its last statement.
type committedError struct {
	lost bool  // what the statement returned is not known; else the closure failed behind it
	err  error // what came in place of the answer, or the closure's
}

func (e *committedError) Error() string {
	if e.lost {
		return fmt.Sprintf("retrypg: the transaction is committed, but what its last statement returned was lost with the answer: %v", e.err)
	}
	return fmt.Sprintf("retrypg: the transaction was committed with its LastStatement, before the closure failed: %v", e.err)
}

func (e *committedError) Unwrap() error        { return e.err }
func (e *committedError) Is(target error) bool { return target == ErrTxEnded }

// resultOf returns the error of a call with a result where the transaction is committed and failed is the error of its closure.
func resultOf(failed error) error {
	if failed == nil {
		return nil
	}
	return &committedError{lost: true, err: failed}
}

// commitLast is commit for a transaction whose COMMIT went with its last statement. err is the error of its closure.
func (c *core) commitLast(ctx context.Context, db any, opts TxOptions, tx transaction, st txState, err error) error {
	ended := st.ended && ctx.Err() == nil // and not by database/sql, because the context has ended
	v, verr := c.commit(ctx, db, opts, tx)
	switch {
	case v == verdictCommitted && (st.failed || err == nil && !ended):
		return nil
	case v == verdictCommitted && err == nil:
		return policy.Permanent(endedError(nil))
	case v == verdictCommitted:
		return policy.Permanent(&committedError{err: err})
	case v != verdictNotApplied || err == nil || errors.Is(err, ErrTxEnded) || errors.Is(err, ErrCommitUnknown):
		err = verr // what the closure was told has been found out since
	}
	switch {
	case tx.state().final && SQLState(err) == readOnlyTransaction:
		return policy.Permanent(err)
	case st.gaveUp && ctx.Err() == nil: // a context of the closure's own
		return policy.Permanent(err)
	}
	return err
}
