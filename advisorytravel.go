package retrypg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/retrypg/retrypg/internal/outcome"
	"github.com/retrypg/retrypg/internal/piggyback"
)

// travel lets the locks travel with a BEGIN that waits for the first statement of the transaction, which then costs no round trip
// more. Where the wait for them is to end before that of a statement would, they are taken now. If that fails, the connection is
// closed. latest says that each statement of the transaction has a snapshot of its own.
func (a *advisoryLocks) travel(c *core, conn *pgx.Conn, l *link, latest bool) error {
	n := len(a.keys)
	locks := &piggyback.Locks{Refused: l.refusedLocks}
	if latest && n == 1 {
		locks.Within = a.messages(l, takeForTransaction)
	} else {
		locks.First, locks.Within = a.messages(l, takeForSession), a.messages(l, takeOver)
	}
	locks.Taken = func(waited time.Duration) {
		a.waited += waited
		if locks.First == nil {
			l.hasLockQuery(takeForTransaction, n)
			return
		}
		l.hasLockQuery(takeForSession, n)
		l.hasLockQuery(takeOver, n)
	}
	l.rider.Lock(locks)
	_, timed := a.ctx.Deadline()
	if a.until.IsZero() && (timed || c.tuned.Load().set.statementTimeout <= 0) {
		return nil
	}
	return a.wait(a.ctx, conn, l.beginAlone)
}

// lockFirst takes the locks in a flight of their own where the first statement, whose context is ctx, has another one than the
// transaction: the wait ends with the first of the two that does.
func (l *link) lockFirst(ctx context.Context, conn *pgx.Conn) error {
	a := l.tx.wishes.locks
	if a == nil || !l.waits() || ctx.Done() == a.ctx.Done() {
		return nil
	}
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	err := a.wait(both, conn, l.beginAlone)
	if ended := a.ctx.Err(); err != nil && ended != nil && !errors.Is(err, ended) {
		err = errors.Join(ended, err)
	}
	return err
}

// beginContext returns the context of a BEGIN that is sent by itself as the caller wants the connection: that of the transaction if it
// waits for locks.
func (l *link) beginContext(ctx context.Context) (_ context.Context, cancel context.CancelFunc) {
	if a := l.tx.wishes.locks; a != nil {
		return withoutRecord(a.ctx), nil
	}
	return l.core.answersWithin(ctx)
}

// messages are those that run a query, and prepare it if that is due.
func (a *advisoryLocks) messages(l *link, q lockQuery) []byte {
	n := len(a.keys)
	if !l.preparesLocks(n) {
		return outcome.Statement("", q.text(a.keys))
	}
	name := q.name(n)
	run := outcome.Execution(name, parameters(a.keys)...)
	if l.lockQueries[q].has(n) {
		return run
	}
	return append(outcome.Preparation(name, q.prepared(n)), run...)
}

// refusedLocks returns what the first statement fails with where the server has refused, with msg, what takes the locks. Which of
// them the session has then nobody knows: with that error pgx closes the connection. As a rule the statement was not run; it was where
// the session has all the locks and was canceled right then, and is rolled back with the connection.
func (l *link) refusedLocks(msg []byte) error {
	const header = 5
	var response pgproto3.ErrorResponse
	if err := response.Decode(msg[header:]); err != nil {
		return &lockError{err: fmt.Errorf("the server's error cannot be read: %w", err)}
	}
	err := pgconn.ErrorResponseToPgError(&response)
	switch {
	case err.Code == invalidStatementName:
		l.core.lockTexts.Store(true) // by DISCARD or DEALLOCATE, which will come again
	case strings.Contains(err.Message, notTakenOver):
		l.core.lockPooled.Store(true)
		return &lockError{err: errOtherSession}
	}
	return &lockError{err: err}
}

// lockError says that the server has refused what takes advisory locks, so that the transaction is given up.
type lockError struct{ err error }

func (e *lockError) Error() string {
	return "retrypg: the advisory locks of the transaction could not be taken, so it is rolled back: " + e.err.Error()
}

func (e *lockError) Unwrap() error { return e.err }

// again reports whether the locks can be had over another connection: what was prepared for them was dropped from this one.
func (e *lockError) again() bool { return SQLState(e.err) == invalidStatementName }

// refusedLock returns why the connection was given up, if that is as locks were refused; else nil.
func (l *link) refusedLock() *lockError {
	if l.rider == nil {
		return nil
	}
	var e *lockError
	errors.As(l.rider.Failed(), &e)
	return e
}
