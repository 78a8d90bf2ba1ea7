package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg/internal/contention"
	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/metrics"
	"github.com/retrypg/retrypg/policy"
)

// TxOptions say how WithTx and its kin run a transaction. The zero value is right for most: the server's default
// isolation, read-write, the retry settings of the connector.
type TxOptions struct {
	// Isolation is the isolation level of every attempt; sql.LevelDefault leaves it to the server's
	// default_transaction_isolation.
	Isolation sql.IsolationLevel
	// ReadOnly makes every attempt READ ONLY.
	ReadOnly bool
	// Deferrable makes every attempt DEFERRABLE, which PostgreSQL heeds if it is SERIALIZABLE and READ ONLY: it waits
	// at its start for a snapshot that cannot conflict.
	Deferrable bool
	// Name names the transaction in spans and hooks, as in "transfer". It is not sent to the server. 64 bytes are kept.
	// Transactions of one name that conflict are admitted together, and what is learned of their statements is of one name: names are meant to be few.
	// Beyond 256 of a handle, they share one limit.
	Name string
	// MaxAttempts bounds the attempts of this transaction, the first included. Zero means the connector's setting.
	MaxAttempts int
	// MaxElapsed bounds the time after which no further attempt begins. Zero means the connector's setting, Off none.
	MaxElapsed time.Duration
	// Commit is how the outcome of a COMMIT whose answer was lost is found out: XID, Ledger or NoCheck. Zero means the
	// connector's setting. A nested WithTx has that of the outermost.
	Commit CommitCheck
	// Keys name what the transaction will change, as in "account:3", for contention control: while transactions with keys
	// conflict, no two of this handle run at a time that have a key in common. Each waits for its turn before it takes a
	// connection. Of a transaction with keys the arguments are not looked at, and nothing is read twice. Keys that are missing, or too many, cost conflicts
	// or waits and nothing else. They are not sent to the server but as a hash, for the locks of ContentionOptions.AdvisoryLocks, which exclude other
	// processes too. A nested WithTx has those of the outermost.
	Keys []string
	// Verify, if not nil, is asked whether the transaction committed where the server cannot tell: after a crash or a
	// failover with XID, with NoCheck, on servers without transaction ids, and with other drivers. It should look for the
	// transaction's effect by a key that the program chose itself. db is a connection of its own to a primary; with other
	// drivers the handle that WithTx was called with. With true WithTx returns nil, with false the transaction is run
	// again: false must mean that it has not committed and never will. With NoCheck, without transaction ids and with
	// other drivers the server may still be committing for a while, so that Verify must wait for that itself, as by
	// inserting the same key. With an error the outcome stays unknown. It runs within the bounds of the check.
	Verify func(ctx context.Context, db Querier) (committed bool, err error)
}

func (o *TxOptions) wishes() txWishes {
	return txWishes{name: o.Name, check: o.Commit, verify: o.Verify != nil}
}

// AttemptFromContext returns the number, from 1, of the attempt that runs the closure of WithTx whose context this is,
// and 0 outside of one.
func AttemptFromContext(ctx context.Context) int {
	if s := scopeFrom(ctx); s != nil {
		return s.attempt
	}
	return 0
}

// transaction is what the loop needs of one attempt, over database/sql or pgx.
type transaction interface {
	// run calls the closure.
	run(ctx context.Context) error
	// state tells what is known of the attempt; it is asked before and after it ends.
	state() txState
	// commit commits; the error is nil if and only if the verdict is verdictCommitted.
	commit(ctx context.Context) (verdict, error)
	// abandon rolls back and gives the connection back, also after ctx has ended. It reports whether there was nothing
	// to roll back because the closure had ended the transaction, where state could not tell that before.
	abandon(ctx context.Context) (ended bool)
	// exec runs a statement without arguments in the transaction.
	exec(ctx context.Context, sql string) error
	// nest is told of savepoints that are opened (1) and closed (-1): while one is open COMMIT does not go with a statement.
	nest(by int)
}

// txState is what is known of an attempt besides the error of its closure. All is false of a foreign driver's.
type txState struct {
	ended      bool  // the closure ended the transaction itself
	rolledBack bool  // and did so by rolling back
	sound      bool  // the connection works and the transaction is not aborted: an error has its cause elsewhere
	lost       bool  // the connection is gone
	final      bool  // no other server would do better where it failed as on a standby
	refused    bool  // a question of ours has aborted it, and will not be asked again
	aborted    error // what aborted the transaction
	last       bool  // COMMIT went with its last statement
	failed     bool  // whose caller got an error
	gaveUp     bool  // and had ended its context
}

// begin starts an attempt: a fresh transaction on a connection of its own.
type begin func(ctx context.Context, s *txScope) (transaction, error)

// transact runs a transaction until it has committed once, or cannot or must not be run again. It is the one loop under
// WithTx, WithPgxTx and their variants.
func (c *core) transact(ctx context.Context, db any, opts TxOptions, begin begin) error {
	if outer := scopeOf(ctx, db); outer != nil {
		return outer.nested(ctx, opts, begin)
	}
	retrier, err := c.retrierFor(opts)
	if err != nil {
		return err
	}
	op, ctx, err := c.start(ctx, metrics.OpTransaction, opts.Name, false)
	if err != nil {
		return err
	}
	turn := c.turnOf(ctx, opts)
	err = c.repeat(ctx, &op, retrier, &turn, func(ctx context.Context) error {
		locks := c.locksOf(opts, &turn)
		scope := &txScope{core: c, db: db, attempt: op.attempts, locks: locks, print: c.printOf(ctx, &op, opts, &turn), outer: scopeFrom(ctx)}
		err := c.attempt(ctx, scope, opts, begin)
		locks.tell(ctx, &op, &turn)
		return err
	})
	op.end(ctx, err)
	return err
}

// repeat makes attempts, each in its turn, until one succeeds or none may follow.
func (c *core) repeat(ctx context.Context, op *operation, retrier *policy.Retrier, turn *contention.Call, attempt func(context.Context) error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("retrypg: transaction not begun: %w", endpoint.Causes(ctx))
	}
	loop := retrier.Start(ctx, string(metrics.OpTransaction))
	var this try
	returned := true
	defer func() {
		if !returned {
			turn.Leave(contention.Other)
			op.panicked(ctx, this)
		}
	}()
	for {
		if err := c.admit(ctx, op, &loop, turn); err != nil {
			return err
		}
		this = op.attempt(ctx)
		returned = false
		last := attempt(this.ctx)
		returned = true
		turn.Leave(outcomeOf(last))
		if last == nil {
			op.attemptEnd(this, nil, false)
			return nil
		}
		if errors.Is(last, errLocksLate) {
			op.attemptWithdrawn(this)
			return &lateLocksError{loop.Stop(ctx, policy.StopMaxElapsed)}
		}
		if noRetry(ctx) {
			last = policy.Permanent(last)
		}
		err := loop.WaitAs(withOperation(ctx, op), last, c.decide(last, op.attempts, turn))
		op.attemptEnd(this, last, err == nil)
		if err != nil {
			return err
		}
	}
}

// retrierFor returns the retrier of a transaction with these options.
func (c *core) retrierFor(opts TxOptions) (*policy.Retrier, error) {
	if opts.MaxAttempts < 0 || opts.MaxElapsed < 0 && opts.MaxElapsed != Off {
		return nil, fmt.Errorf("retrypg: TxOptions: MaxAttempts %d and MaxElapsed %v must not be negative", opts.MaxAttempts, opts.MaxElapsed)
	}
	if opts.Commit > NoCheck {
		return nil, fmt.Errorf("retrypg: TxOptions.Commit %d: XID, Ledger or NoCheck is needed", opts.Commit)
	}
	t := c.tuned.Load()
	if opts.MaxAttempts == 0 && opts.MaxElapsed == 0 {
		return t.transactions, nil
	}
	p, err := limited(t.backoff, orDefault(opts.MaxAttempts, t.set.maxAttempts), orDefault(opts.MaxElapsed, t.set.maxElapsed))
	if err != nil {
		return nil, fmt.Errorf("retrypg: TxOptions: %w", err)
	}
	return c.transactionRetrier(p)
}

// attempt runs the transaction once. Whatever happens, the connection is given back before it returns, so that nobody
// waits with a transaction open. An error that must not lead to another attempt is marked with policy.Permanent.
func (c *core) attempt(ctx context.Context, scope *txScope, opts TxOptions, begin begin) (err error) {
	db := scope.db
	tx, err := begin(ctx, scope)
	if err != nil {
		return err
	}
	open := true
	defer func() {
		if open { // a panic, which goes on
			tx.abandon(ctx)
		}
	}()
	scope.tx = tx
	err = tx.run(withScope(ctx, scope))
	st := tx.state()
	switch {
	case scope.poisoned() != nil:
		err = scope.poisoned()
	case err == nil && ctx.Err() != nil && !st.last:
		err = endpoint.Causes(ctx)
	}
	open = false
	switch {
	case st.last:
		err = c.commitLast(ctx, db, opts, tx, st, err)
	case err == nil && !st.ended:
		_, err = c.commit(ctx, db, opts, tx)
	default:
		err = c.abandon(ctx, tx, st, err)
	}
	if err != nil && pinned(db) && tx.state().lost {
		return policy.Permanent(err) // no other connection can take the place of the caller's own
	}
	return err
}

// commit commits and gives the connection back.
func (c *core) commit(ctx context.Context, db any, opts TxOptions, tx transaction) (verdict, error) {
	v, err := tx.commit(ctx)
	if v == verdictUnknown && opts.Verify != nil {
		v, err = c.verifyCommit(ctx, db, opts, err)
	}
	switch {
	case v == verdictUnknown, errors.Is(err, ErrTxEnded):
		err = policy.Permanent(err)
	case errors.Is(err, pgx.ErrTxCommitRollback):
		err = &abortedError{swallowed: true, cause: tx.state().aborted, err: err}
	}
	return v, err
}

// abandon rolls back a transaction whose closure failed with err, or ended it, and gives the connection back.
func (c *core) abandon(ctx context.Context, tx transaction, st txState, err error) error {
	st.ended = tx.abandon(ctx) || st.ended
	st.final = st.final || tx.state().final
	code := SQLState(err)
	switch {
	case st.ended && (err == nil || !st.rolledBack):
		return policy.Permanent(endedError(err))
	case st.sound && code == "":
		return policy.Permanent(err)
	case st.final && code == readOnlyTransaction:
		return policy.Permanent(err)
	case st.refused:
		return &notAppliedError{err: err}
	case st.aborted != nil && code == inFailedTransaction:
		return &abortedError{cause: st.aborted, err: err}
	}
	return err
}

const (
	inFailedTransaction = "25P02" // says no more than that an earlier statement failed
	readOnlyTransaction = "25006" // of a READ ONLY transaction, or of a standby
)

// pinned reports whether db is one connection, which cannot be exchanged for another.
func pinned(db any) bool {
	switch db.(type) {
	case *sql.Conn, *pgx.Conn, *pgxpool.Conn:
		return true
	}
	return false
}

// endedError is the error of a closure that ended its transaction itself.
func endedError(err error) error {
	if err == nil {
		return fmt.Errorf("retrypg: %w", ErrTxEnded)
	}
	return fmt.Errorf("retrypg: %w (its error: %w)", ErrTxEnded, err)
}

// abortedError is the error of a transaction that an earlier statement had aborted: its closure returned nil, or the
// error of a later statement. Its class is that of the statement that failed first.
type abortedError struct {
	swallowed bool  // the closure returned nil
	cause     error // what aborted the transaction; nil where that is not known
	err       error // what came of it: from COMMIT, the release of a savepoint, or a later statement
}

func (e *abortedError) Error() string {
	switch {
	case !e.swallowed:
		return fmt.Sprintf("%v; what aborted the transaction: %v", e.err, e.cause)
	case e.cause == nil:
		return fmt.Sprintf("the closure returned nil after a failed statement, so the transaction was rolled back (%v): return the statement's error", e.err)
	}
	return fmt.Sprintf("the closure returned nil after a failed statement, so the transaction was rolled back: return the statement's error: %v", e.cause)
}

func (e *abortedError) Unwrap() []error {
	if e.cause == nil {
		return []error{e.err}
	}
	return []error{e.cause, e.err}
}

// decideTransaction is the rule for a transaction that was certainly not applied. Conflicts are bounded by attempts and
// time and not charged to the budget; what speaks of a server in trouble is charged.
func decideTransaction(err error) policy.Decision {
	var exhausted *ExhaustedError
	if errors.Is(err, ErrCommitUnknown) || errors.Is(err, ErrTxEnded) || errors.As(err, &exhausted) {
		return policy.Decision{}
	}
	var aborted *abortedError
	if errors.As(err, &aborted) {
		if aborted.cause == nil {
			// It may have been a conflict, and running a transaction again that was rolled back is always safe.
			return policy.Decision{Retry: true, Free: true}
		}
		err = aborted.cause
	}
	switch Classify(err).Retry {
	case RetryTransaction, RetryStatement:
		return policy.Decision{Retry: true, Free: true}
	case RetryReconnect, RetryWait, RetryFailover:
		return policy.Decision{Retry: true}
	}
	return policy.Decision{}
}
