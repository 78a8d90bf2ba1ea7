package retrypg

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/contention"
)

// Kinds of advisory locks: what stands between try and lock, and the name of the function.
const (
	sessionLock     = "advisory_lock"
	transactionLock = "advisory_xact_lock"
)

// taking is the query that takes the locks, one after another. Its row tells of each whether it was to be had at once. Who asks
// with pg_try gets none that others wait for already.
func (a *advisoryLocks) taking(kind string) string {
	return a.each(func(key string) string {
		return "case when pg_catalog.pg_try_" + kind + "(" + key + ") then true else pg_catalog.pg_" + kind + "(" + key + ") is null end"
	})
}

// takingOver is the query that makes locks of the session those of the transaction. It waits for none: what the session has, the
// transaction gets, and what the session has not it must not wait for with a snapshot. Its row tells of each whether that was so.
func (a *advisoryLocks) takingOver() string {
	return a.each(func(key string) string {
		return "pg_catalog.pg_try_" + transactionLock + "(" + key + ") and pg_catalog.pg_advisory_unlock(" + key + ")"
	})
}

// each returns a query with a column for each lock.
func (a *advisoryLocks) each(column func(key string) string) string {
	columns := make([]string, len(a.keys))
	for i, key := range a.keys {
		columns[i] = column(strconv.FormatInt(key, 10))
	}
	return "select " + strings.Join(columns, ", ")
}

// take takes the locks in a flight of its own. If that fails, the connection is closed: nobody knows which locks its session has, and
// the next user of the connection must not have any.
func (a *advisoryLocks) take(ctx context.Context, conn *pgx.Conn, kind string) error {
	return a.wait(ctx, conn, func(ctx context.Context) (bool, error) {
		return allTrue(ctx, conn, a.taking(kind))
	})
}

// takeOver makes locks of the session those of the transaction. If that fails, the connection is closed.
func (a *advisoryLocks) takeOver(ctx context.Context, conn *pgx.Conn) error {
	all, err := allTrue(ctx, conn, a.takingOver())
	if err == nil && !all {
		err = errOtherSession
	}
	if err != nil {
		closeNow(conn)
	}
	return err
}

// beginWith takes the locks for the session, begins the transaction, of which BEGIN waits for its first statement, and takes them over, all
// in one flight. The first Sync ends the statement that waits, and with it the snapshot that it has waited with. If anything fails, the connection is closed.
func (a *advisoryLocks) beginWith(ctx context.Context, conn *pgx.Conn, l *link) error {
	l.rider.Reset()
	return a.wait(ctx, conn, func(ctx context.Context) (atOnce bool, err error) {
		p := conn.PgConn().StartPipeline(ctx)
		p.SendQueryParams(a.taking(sessionLock), nil, nil, nil, nil)
		p.SendPipelineSync()
		p.SendQueryParams(beginStatement(l.tx.options), nil, nil, nil, nil)
		p.SendQueryParams(a.takingOver(), nil, nil, nil, nil)
		err = p.Sync()
		var answers [4]bool // to the locks, the first Sync, BEGIN, and the take-over
		for i := range answers {
			if err == nil {
				answers[i], err = nextTrue(p)
			}
		}
		if closed := p.Close(); err == nil {
			err = closed
		}
		if err == nil && !answers[3] {
			err = errOtherSession
		}
		return answers[0], err
	})
}

// errOtherSession says that a lock of the session was not there in the transaction.
var errOtherSession = errors.New("retrypg: the advisory lock that was taken before BEGIN is not one of the session that the transaction is in, " +
	"so a pooler that pools by transaction is in between, which keeps it: use sql.LevelReadCommitted there, or no advisory locks (retry_advisory_locks=off)")

// nextTrue reads the next result of a pipeline, and reports whether all values of its row are true.
func nextTrue(p *pgconn.Pipeline) (bool, error) {
	next, err := p.GetResults()
	if err != nil {
		return false, err
	}
	rows, ok := next.(*pgconn.ResultReader)
	if !ok {
		return true, nil
	}
	result := rows.Read()
	return isTrue(result), result.Err
}

// allTrue runs a query, and reports whether all values of its row are true.
func allTrue(ctx context.Context, conn *pgx.Conn, query string) (bool, error) {
	results, err := conn.PgConn().Exec(ctx, query).ReadAll()
	all := true
	for _, result := range results {
		all = all && isTrue(result)
	}
	return all, err
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
	return fmt.Sprintf("retrypg: somebody else had the advisory locks of the transaction's keys until MaxElapsed was over: %v", e.err)
}

func (e *lateLocksError) Unwrap() error { return e.err }
