package retrypg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/contention"
)

// take takes the locks in a flight of its own, with a BEGIN that waits ahead of it. If that fails, the connection is closed: nobody knows
// which locks its session has, and the next user of the connection must not have any.
func (a *advisoryLocks) take(ctx context.Context, conn *pgx.Conn, l *link, q lockQuery) error {
	return a.wait(ctx, conn, func(ctx context.Context) (atOnce bool, err error) {
		return a.run(ctx, l, q)
	})
}

// takeOver makes locks of the session those of the transaction. If that fails, the connection is closed.
func (a *advisoryLocks) takeOver(ctx context.Context, conn *pgx.Conn, l *link) error {
	over, err := a.run(ctx, l, takeOver)
	if err == nil && !over {
		err = errOtherSession
	}
	if err != nil {
		closeNow(conn)
	}
	return err
}

// beginWith takes the locks for the session, begins the transaction, of which BEGIN waits for its first statement, and takes them over, all
// in one flight. The first Sync ends the statement that waits, and with it the snapshot that it has waited with. What is behind that is
// run also where the locks could not be had, and waits for nothing then. If anything fails, the connection is closed.
func (a *advisoryLocks) beginWith(ctx context.Context, conn *pgx.Conn, l *link) error {
	l.rider.Reset()
	return a.wait(ctx, conn, func(ctx context.Context) (atOnce bool, err error) {
		p := l.pg.StartPipeline(ctx)
		a.send(p, l, takeForSession)
		p.SendPipelineSync()
		p.SendQueryParams(beginStatement(l.tx.options), nil, nil, nil, nil)
		a.send(p, l, takeOver)
		answers, err := l.answers(p)
		switch {
		case err != nil:
			return false, err
		case !answers[2]: // BEGIN is the second
			return false, errOtherSession
		}
		l.hasLockQuery(takeForSession, len(a.keys))
		l.hasLockQuery(takeOver, len(a.keys))
		return answers[0], nil
	})
}

// errOtherSession says that a lock of the session was not there in the transaction.
var errOtherSession = errors.New("retrypg: the advisory lock that was taken before BEGIN is not one of the session that the transaction is in, " +
	"so a pooler that pools by transaction is in between, which keeps it: use sql.LevelReadCommitted there, or no advisory locks (retry_advisory_locks=off)")

// run runs a query, and reports whether all values of its row are true.
func (a *advisoryLocks) run(ctx context.Context, l *link, q lockQuery) (bool, error) {
	if !l.preparesLocks(len(a.keys)) {
		results, err := l.pg.Exec(ctx, q.text(a.keys)).ReadAll()
		if err != nil {
			return false, err
		}
		return isTrue(results[len(results)-1]), nil
	}
	p := l.pg.StartPipeline(ctx)
	a.send(p, l, q)
	answers, err := l.answers(p)
	if err != nil {
		return false, err
	}
	l.hasLockQuery(q, len(a.keys))
	return answers[0], nil
}

// send lets a query go with a flight, and its preparation if that is due.
func (a *advisoryLocks) send(p *pgconn.Pipeline, l *link, q lockQuery) {
	n := len(a.keys)
	if !l.preparesLocks(n) {
		p.SendQueryParams(q.text(a.keys), nil, nil, nil, nil)
		return
	}
	name := q.name(n)
	if !l.lockQueries[q].has(n) {
		p.SendPrepare(name, q.prepared(n), nil)
	}
	p.SendQueryPrepared(name, parameters(a.keys), nil, nil)
}

// answers ends a flight and reads what answers it: of each query whether all values of its row are true.
func (l *link) answers(p *pgconn.Pipeline) (answers []bool, err error) {
	err = p.Sync()
	for err == nil {
		var next any
		if next, err = p.GetResults(); next == nil {
			break
		}
		if rows, ok := next.(*pgconn.ResultReader); ok {
			result := rows.Read()
			answers, err = append(answers, isTrue(result)), result.Err
		}
	}
	if closed := p.Close(); err == nil {
		err = closed
	}
	if SQLState(err) == invalidStatementName && l.core != nil {
		l.core.lockTexts.Store(true) // by DISCARD or DEALLOCATE, which will come again
	}
	return answers, err
}

func isTrue(result *pgconn.Result) bool {
	for _, row := range result.Rows {
		for _, value := range row {
			if string(value) != "t" {
				return false
			}
		}
	}
	return true
}

// wait runs what may wait for locks, for no longer than the attempts of the transaction may take. take returns whether all locks were to
// be had at once. If it fails, the connection is closed.
func (a *advisoryLocks) wait(ctx context.Context, conn *pgx.Conn, take func(context.Context) (atOnce bool, err error)) error {
	bounded, cancel := ctx, context.CancelFunc(nil)
	if !a.until.IsZero() {
		bounded, cancel = context.WithDeadline(ctx, a.until)
	}
	began := time.Now()
	atOnce, err := take(bounded)
	late := err != nil && ctx.Err() == nil && bounded.Err() != nil
	release(cancel)
	if late || err == nil && !atOnce {
		a.waited = max(time.Since(began), 1)
	}
	if err == nil {
		return nil
	}
	closeNow(conn)
	if late {
		return fmt.Errorf("%w: %w", errLocksLate, err)
	}
	return err
}

// errLocksLate says that the time for attempts was over before an attempt had its advisory locks.
var errLocksLate = fmt.Errorf("advisory locks: %w", contention.ErrLate)

// lateLocksError ends a transaction of which an attempt did not get its advisory locks in time.
type lateLocksError struct{ err error }

func (e *lateLocksError) Error() string {
	return fmt.Sprintf("retrypg: the transaction waited for its advisory locks, which somebody else had, until MaxElapsed was over: %v", e.err)
}

func (e *lateLocksError) Unwrap() error { return e.err }
