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

type (
	noRetryKey    struct{}
	idempotentKey struct{}
)

// noRetry and idempotent are asked only after something has failed: looking at a context costs time.
func noRetry(ctx context.Context) bool { return ctx.Value(noRetryKey{}) != nil }

func idempotent(ctx context.Context) bool { return ctx.Value(idempotentKey{}) != nil }
