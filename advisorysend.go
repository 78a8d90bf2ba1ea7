package retrypg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/contention"
)

// take takes the locks in a flight of its own. If that fails, the connection is closed: nobody knows which locks its session has, and
// the next user of the connection must not have any.
func (a *advisoryLocks) take(conn *pgx.Conn, l *link, q lockQuery) error {
	return a.wait(a.ctx, conn, func(ctx context.Context) error {
		began := time.Now()
		atOnce, err := a.run(ctx, l, q)
		if err == nil && !atOnce {
			a.waited += max(time.Since(began), 1)
		}
		return err
	})
}

// takeOver makes locks of the session those of the transaction. If that fails, the connection is closed.
func (a *advisoryLocks) takeOver(ctx context.Context, conn *pgx.Conn, l *link) error {
	_, err := a.run(ctx, l, takeOver)
	if err == nil {
		return nil
	}
	closeNow(conn)
	if strings.Contains(err.Error(), notTakenOver) {
		return errOtherSession
	}
	return err
}

// errOtherSession says that a lock of the session was not there in the transaction.
var errOtherSession = errors.New("retrypg: the advisory lock that was taken before BEGIN is not one of the session that the transaction is in, " +
	"so a pooler that pools by transaction is in between, which keeps it: use sql.LevelReadCommitted there, or no advisory locks (retry_advisory_locks=off)")

// run runs a query, and reports whether all values of its row are true.
func (a *advisoryLocks) run(ctx context.Context, l *link, q lockQuery) (bool, error) {
	n := len(a.keys)
	if !l.preparesLocks(n) {
		results, err := l.pg.Exec(ctx, q.text(a.keys)).ReadAll()
		if err != nil {
			return false, err
		}
		return isTrue(results[len(results)-1]), nil
	}
	if name := q.name(n); !l.lockQueries[q].has(n) {
		if _, err := l.pg.Prepare(ctx, name, q.prepared(n), nil); err != nil {
			return false, err
		}
		l.hasLockQuery(q, n)
	}
	result := l.pg.ExecPrepared(ctx, q.name(n), parameters(a.keys), nil, nil).Read()
	if SQLState(result.Err) == invalidStatementName {
		l.core.lockTexts.Store(true) // by DISCARD or DEALLOCATE, which will come again
	}
	return isTrue(result), result.Err
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

// wait runs what may wait for locks, for no longer than ctx and the attempts of the transaction may take. If it fails, the connection
// is closed.
func (a *advisoryLocks) wait(ctx context.Context, conn *pgx.Conn, take func(context.Context) error) error {
	bounded, cancel := ctx, context.CancelFunc(nil)
	if !a.until.IsZero() {
		bounded, cancel = context.WithDeadline(ctx, a.until)
	}
	defer release(cancel)
	began := time.Now()
	err := take(bounded)
	if err == nil {
		return nil
	}
	closeNow(conn)
	if ctx.Err() == nil && bounded.Err() != nil {
		a.waited += max(time.Since(began), 1)
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
