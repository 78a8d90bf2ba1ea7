package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"reflect"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/endpoint"
)

// txScope is the transaction that a closure's context belongs to.
type txScope struct {
	core    *core
	db      any // what WithTx was called with
	tx      transaction
	attempt int
	locks   *advisoryLocks // that it begins with, if any
	print   *txPrint       // what it touches; nil where nobody looks
	outer   *txScope       // of another database, around this one

	savepoints int   // how many were made: their names differ within a transaction
	poison     error // why the transaction as a whole must not commit, whatever closures return
}

type scopeKey struct{}

func withScope(ctx context.Context, s *txScope) context.Context {
	return context.WithValue(ctx, scopeKey{}, s)
}

// scopeFrom returns the innermost scope of ctx, or nil.
func scopeFrom(ctx context.Context) *txScope {
	s, _ := ctx.Value(scopeKey{}).(*txScope)
	return s
}

// scopeOf returns the scope of the transaction that is open on db in ctx, or nil.
func scopeOf(ctx context.Context, db any) *txScope {
	s := scopeFrom(ctx)
	if s == nil || !reflect.ValueOf(db).Comparable() {
		return nil
	}
	for ; s != nil; s = s.outer {
		if reflect.ValueOf(s.db).Comparable() && s.db == db {
			return s
		}
	}
	return nil
}

// nested runs a closure inside the transaction of s, as a savepoint. It is never run again by itself: a conflict ends
// the whole transaction, which the outermost WithTx alone runs again.
func (s *txScope) nested(ctx context.Context, opts TxOptions, begin begin) error {
	if opts.Isolation != sql.LevelDefault || opts.ReadOnly || opts.Deferrable {
		return ErrNestedOptions
	}
	if err := s.poisoned(); err != nil {
		return err
	}
	s.tx.nest(1)
	defer func() {
		if s.poison == nil { // else the transaction must not commit, whatever statements follow
			s.tx.nest(-1)
		}
	}()
	s.savepoints++
	name := "retrypg_" + strconv.Itoa(s.savepoints)
	if err := s.tx.exec(ctx, "savepoint "+name); err != nil {
		if cause := s.tx.state().aborted; cause != nil {
			err = &abortedError{cause: cause, err: err}
		}
		return s.escape(err)
	}
	inner, err := begin(ctx, s)
	if err != nil {
		return err
	}
	err = s.runNested(ctx, inner)
	st := s.tx.state()
	switch {
	case s.poisoned() != nil:
		return s.poisoned()
	case st.ended && st.rolledBack && ctx.Err() != nil: // database/sql did, because the context ended
		if err == nil {
			err = endpoint.Causes(ctx)
		}
		return s.escape(err)
	case st.ended:
		return s.escape(endedError(err))
	case err == nil:
		if err = s.tx.exec(ctx, "release savepoint "+name); err == nil {
			return nil
		}
		// Aborted: the closure swallowed the error of a statement.
		if errors.Is(err, sql.ErrTxDone) || errors.Is(err, pgx.ErrTxClosed) || SQLState(err) == noActiveTransaction {
			return s.escape(endedError(nil)) // a foreign driver's: its state told nothing
		}
		err = &abortedError{swallowed: true, cause: s.tx.state().aborted, err: err}
	}
	if decideTransaction(err).Retry {
		return s.escape(err)
	}
	if rerr := s.tx.exec(ctx, "rollback to savepoint "+name+"; release savepoint "+name); rerr != nil {
		s.poison = errors.Join(err, rerr)
	}
	return err
}

// noActiveTransaction is the SQLSTATE of a savepoint statement outside of a transaction.
const noActiveTransaction = "25P01"

// errNestedPanic is why a transaction must not commit in which a nested closure panicked, should an outer closure recover.
var errNestedPanic = errors.New("retrypg: a nested closure panicked, so the transaction was rolled back")

// runNested calls the closure. If that panics, its part can no longer be told from the rest.
func (s *txScope) runNested(ctx context.Context, inner transaction) error {
	returned := false
	defer func() {
		if !returned {
			_ = s.escape(errNestedPanic) // kept in the scope; the panic goes on
		}
	}()
	err := inner.run(ctx)
	returned = true
	return err
}

// poisoned returns why the transaction must not commit.
func (s *txScope) poisoned() error {
	if s.poison == nil {
		return s.print.broken()
	}
	return s.poison
}

// escape makes an error the fate of the whole transaction where only running that again can heal it, or where the
// savepoint can no longer be rolled back to.
func (s *txScope) escape(err error) error {
	if s.poison == nil {
		s.poison = err
	}
	return err
}
