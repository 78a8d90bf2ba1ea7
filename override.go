package retrypg

import "context"

// NoRetry returns a context whose calls are tried once: a statement or transaction that fails is not run again, and
// connecting is tried once, or not at all where somebody is looking for the server's return already (a pool of ConfigurePool goes
// through its hosts twice). It is for health checks, for
// work that somebody else repeats, and for callers who would rather have the error now. What is not a retry stays: a pooled
// connection that was found dead before anything was sent on it is exchanged for another, and a lost COMMIT is asked about.
//
// Where all connections of a *sql.DB are in use, database/sql opens further ones for its waiting callers without their
// contexts: those wait as other callers do.
func NoRetry(ctx context.Context) context.Context {
	return context.WithValue(ctx, noRetryKey{}, true)
}

// Idempotent returns a context whose autocommit statements may be sent again, over another connection, when their
// connection was lost and nobody knows whether they took effect: the caller says that running them twice is as good as once,
// as with a SELECT without side effects, an upsert that sets values, or a DELETE by key. Such a retry is charged to the budget.
// A rows-returning statement is not sent again once it has delivered a row. A statement that has lost three connections is not
// sent a fourth time: it may be what ends them. With database/sql it holds for statements of a *sql.DB, and for the first one of
// a *sql.Conn; with Pool for Exec, Query and QueryRow; whatever the text of the statement, also CALL and several statements. It has no effect in a transaction, nor on WithTx and COMMIT, whose
// outcome is found out.
//
// Where the statement fails in the end after an attempt that may have taken effect, its error says so, and its
// Class.Outcome is OutcomeUnknown, whatever the last attempt failed with.
func Idempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotentKey{}, true)
}

// LastStatement returns a context with which the closure of WithTx, WithPgxTx or one of their variants executes the last statement of its
// transaction: COMMIT goes with it, in the same flight, so that it costs no round trip of its own. A transaction of two statements takes two
// round trips then, and a READ ONLY one of a single statement one.
//
// It is for ExecContext of a *sql.Tx or of a statement that was prepared, and Exec of a pgx.Tx. It is an optimisation only: where COMMIT cannot go with
// the statement, and what became of it be known as surely as else, it has no effect, and COMMIT is sent afterwards. That is so
//
//   - with the first statement of a transaction, unless that is READ ONLY and takes no advisory locks, and, unless it is that or runs with NoCheck, with its first SELECT, INSERT
//     or the like: the transaction's id, by which the server is asked about a lost answer, must have come with an earlier one;
//   - with a text that is not one plain SELECT, INSERT, UPDATE, DELETE, MERGE, WITH, VALUES or TABLE;
//   - in a nested WithTx and in a savepoint, in a transaction that is aborted, or that a text may have ended;
//   - where a pgx.QueryTracer is set, which may send something of its own first;
//   - with Ledger, with retry_lazy_begin=off, behind a pooler, and with connections that retrypg has not dialled.
//
// What must be known of it:
//
//   - The closure must not ask for anything else in the transaction: it fails with an error that matches ErrTxEnded, and is not sent. What it sends over
//     tx.Conn() or sql.Conn.Raw is not seen, and runs outside of the transaction.
//   - An error that the closure returns after the statement has succeeded cannot roll back any more: where COMMIT went with the
//     statement, WithTx returns an error that matches ErrTxEnded. So look at the number of rows before, or let the statement fail by itself. A
//     closure that panics then has committed.
//   - Where the answer was lost, the server is asked at once, so that the call takes as long as that does, and fails also where the transaction turns out to be
//     committed: what the statement returned is not known. WithTx then returns nil, whatever error the closure returns. WithTxResult and WithPgxTxResult have no
//     result then, and return an error that matches ErrTxEnded.
//   - Like COMMIT, the statement is not cancelled on the server when its context ends: the connection is given up, and the server asked what became of the
//     transaction. So it is not for a statement that may take long. With NoCheck, which asks nothing, a connection that is lost in the statement leaves
//     the outcome unknown, where without the mark the transaction would be run again.
//   - An error of the statement may be that of COMMIT: of a deferred constraint, or a serialization failure. A statement without arguments that fails has ended the
//     transaction, which then cannot go on from a savepoint.
func LastStatement(ctx context.Context) context.Context {
	return context.WithValue(ctx, lastStatementKey{}, true)
}

type (
	noRetryKey       struct{}
	idempotentKey    struct{}
	lastStatementKey struct{}
)

// noRetry and idempotent are asked only after something has failed: looking at a context costs time.
func noRetry(ctx context.Context) bool { return ctx.Value(noRetryKey{}) != nil }

func idempotent(ctx context.Context) bool { return ctx.Value(idempotentKey{}) != nil }

func isLast(ctx context.Context) bool { return ctx.Value(lastStatementKey{}) != nil }
