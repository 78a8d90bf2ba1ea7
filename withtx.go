package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"reflect"

	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/policy"
)

// TxBeginner is a database or a connection of database/sql: *sql.DB, *sql.Conn, or what embeds one of them.
type TxBeginner interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

// WithTx runs fn in a transaction and commits it. It returns nil if and only if the transaction committed, once.
//
// A transaction that was certainly not applied is run again from its BEGIN, after a backoff, when that can succeed: after
// a serialization failure or deadlock, a lost connection, a failover. So fn may run several times: it must work on its
// transaction only, set what it captures anew each time, and return the errors of its statements, wrapped with %w if at
// all. Each run has a fresh transaction with the same options on a connection of its own, which is given back before the
// backoff. AttemptFromContext tells fn which attempt it is.
//
// While many transactions conflict with each other, an attempt waits for its turn before it begins, without a connection and
// for no longer than ctx and MaxElapsed allow: see TxOptions.Keys and ContentionOptions. One without keys may also wait before it sends a statement, as
// the arguments of that are those of another transaction in progress with which it would conflict. What a REPEATABLE READ or SERIALIZABLE transaction has read
// before is out of date then. If it has done nothing else, it is rolled back and begun again below fn, and reads the same once more, the statements being plain
// SELECTs without locks and without functions but a few common ones; fn goes on where all of the answers are the same, and is run again where they are not.
//
// fn must leave Commit and Rollback to WithTx, else the error matches ErrTxEnded, also where fn has sent them as text. Only
// the error of an fn that has called Rollback, on a handle of ours, is taken as if WithTx had done so. If fn panics, the
// transaction is rolled back and the panic goes on. If ctx ends, the transaction is rolled back.
//
// The error of a transaction that was tried once and cannot be tried again is that of fn or of COMMIT itself; that of
// several attempts is an *ExhaustedError. All of them say that the transaction was not applied, but two: one that matches
// ErrCommitUnknown says that COMMIT was sent and its answer lost, and one that matches ErrTxEnded that fn ended the
// transaction itself. With LastStatement fn lets COMMIT go with its last statement.
//
// Called with the context that fn was given, and the same db, WithTx runs its closure in the open transaction, as a
// savepoint: its error rolls back to the savepoint, but a conflict ends the whole transaction, which the outermost
// WithTx runs again, even if closures in between swallow the error. A transaction, nested calls included, is for one
// goroutine at a time. The context belongs to the attempt: a WithTx that is called with it and the same db after fn
// has returned fails, as its transaction is over.
//
// db may belong to any driver. With retrypg's own, verdicts rest on what was sent and answered; with others, on the error
// alone, and a COMMIT that failed in any other way than by an answer of the server is unknown; a COMMIT or ROLLBACK that fn
// sends as text is not noticed then, so that a transaction which fn rolled back in that way counts as committed. They have
// the default settings, and each *sql.DB its own retry budget.
func WithTx(ctx context.Context, db TxBeginner, opts TxOptions, fn func(ctx context.Context, tx *sql.Tx) error) error {
	if fn == nil {
		return ErrNilFunc
	}
	if isNil(db) {
		return ErrNilDB
	}
	core, err := coreOf(ctx, db)
	if err != nil {
		return err
	}
	return core.transact(ctx, db, opts, beginSQL(core, db, opts, fn))
}

// WithTxResult is WithTx for a closure with a result, which is that of the attempt that committed. With an error the
// result is the zero value. The result of a nested call is of an attempt that the outer transaction may still roll back.
func WithTxResult[T any](ctx context.Context, db TxBeginner, opts TxOptions, fn func(ctx context.Context, tx *sql.Tx) (T, error)) (T, error) {
	var result, zero T
	var failed error
	if fn == nil {
		return zero, ErrNilFunc
	}
	err := WithTx(ctx, db, opts, func(ctx context.Context, tx *sql.Tx) error {
		result, failed = fn(ctx, tx)
		return failed
	})
	if err == nil {
		err = resultOf(failed)
	}
	if err != nil {
		return zero, err
	}
	return result, nil
}

// isNil reports whether db is nil or a nil pointer in an interface.
func isNil(db any) bool {
	v := reflect.ValueOf(db)
	return db == nil || v.Kind() == reflect.Pointer && v.IsNil()
}

// coreOf returns the core of the connector behind db, or that of foreign databases.
func coreOf(ctx context.Context, db any) (*core, error) {
	switch db := db.(type) {
	case interface{ Driver() driver.Driver }: // *sql.DB and what embeds it
		if d, ok := db.Driver().(*Driver); ok && d.core != nil {
			return d.core, nil
		}
	case *sql.Conn:
		if s := scopeOf(ctx, db); s != nil {
			return s.core, nil // the connection is busy with the transaction: Raw would wait for it for ever
		}
		var c *core
		err := db.Raw(func(dc any) error {
			if conn, ok := dc.(*Conn); ok {
				c = conn.connector.core
			}
			return nil
		})
		if err == nil && c != nil {
			return c, nil
		}
	}
	if db, ok := db.(*sql.DB); ok {
		return foreignDB(db)
	}
	return sharedForeignCore()
}

// sqlTx is an attempt over database/sql.
type sqlTx struct {
	core   *core
	tx     *sql.Tx
	record *txRecord
	fn     func(context.Context, *sql.Tx) error
}

func beginSQL(c *core, db TxBeginner, opts TxOptions, fn func(context.Context, *sql.Tx) error) begin {
	return func(ctx context.Context, scope *txScope) (transaction, error) {
		if outer, ok := scope.tx.(*sqlTx); ok {
			return &sqlTx{core: c, tx: outer.tx, record: outer.record, fn: fn}, nil
		}
		record := &txRecord{deferrable: opts.Deferrable, wishes: opts.wishes()}
		record.wishes.locks, record.wishes.print = scope.locks, scope.print
		tx, err := db.BeginTx(withRecord(ctx, record), &sql.TxOptions{Isolation: opts.Isolation, ReadOnly: opts.ReadOnly})
		switch {
		case err == nil:
		case pinned(db) && (errors.Is(err, sql.ErrConnDone) || errors.Is(err, driver.ErrBadConn)):
			return nil, policy.Permanent(err) // nothing can take the place of the caller's own connection
		default:
			return nil, err
		}
		t := &sqlTx{core: c, tx: tx, record: record, fn: fn}
		if opts.Commit == Ledger && record.session == nil {
			t.abandon(ctx)
			return nil, policy.Permanent(errForeignLedger)
		}
		if opts.Deferrable && record.session == nil {
			if err := t.exec(ctx, "set transaction deferrable"); err != nil {
				t.abandon(ctx)
				return nil, err
			}
		}
		return t, nil
	}
}

func (t *sqlTx) run(ctx context.Context) error { return t.fn(ctx, t.tx) }

func (t *sqlTx) state() txState { return t.record.state() }

func (t *sqlTx) exec(ctx context.Context, query string) error {
	_, err := t.tx.ExecContext(ctx, query)
	return err
}

func (t *sqlTx) nest(by int) { t.record.nested += by }

func (t *sqlTx) commit(ctx context.Context) (verdict, error) {
	err := t.tx.Commit()
	t.record.awaitEnd()
	t.record.lock()
	defer t.record.unlock()
	switch last := t.record.sentLast(); {
	case last.sent: // the driver may have been asked for a rollback, because the context had ended
		return last.verdict, last.err
	case t.record.session == nil:
		return foreignVerdict(ctx, t.core, err, t.record.wishes)
	case t.record.verdict != verdictNone:
		return t.record.verdict, err
	}
	// The driver was not asked: the context had ended, and database/sql rolls back.
	if ctx.Err() != nil {
		err = endpoint.Causes(ctx)
	}
	return verdictNotApplied, err
}

func (t *sqlTx) abandon(ctx context.Context) (ended bool) {
	err := t.tx.Rollback()
	t.record.awaitEnd()
	t.record.lock()
	defer t.record.unlock()
	if t.record.session != nil {
		return t.record.over && t.record.verdict == verdictEnded
	}
	return errors.Is(err, sql.ErrTxDone) && ctx.Err() == nil
}

var errForeignLedger = errors.New("retrypg: TxOptions.Commit is Ledger, which needs a database of retrypg's own driver, a retrypg.Pool or one of pgx's pools and connections")

// foreignVerdict judges the error of another driver's COMMIT. Only an answer of the server proves anything: a driver's
// own words about a broken connection do not, whatever they say of being safe to retry.
func foreignVerdict(ctx context.Context, c *core, err error, w txWishes) (verdict, error) {
	switch {
	case err == nil:
		return verdictCommitted, nil
	case errors.Is(err, ErrCommitUnknown):
		return verdictUnknown, err // of a transaction of ours below, which has told
	case !errors.Is(err, sql.ErrTxDone):
	case ctx.Err() != nil:
		return verdictNotApplied, endpoint.Causes(ctx)
	default:
		return verdictEnded, endedError(nil)
	}
	switch Classify(err).Outcome {
	case OutcomeRolledBack, OutcomeNotStarted:
		return verdictNotApplied, err
	}
	unknown := &CommitUnknownError{Err: err, Check: NoCheck, Reason: muteForeign}
	c.check(ctx, unknown, w)
	return verdictUnknown, unknown
}
