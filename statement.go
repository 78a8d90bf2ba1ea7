package retrypg

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/metrics"
	"github.com/retrypg/retrypg/policy"
)

// conflictOf reports whether a statement outside of a transaction was rolled back by err and may succeed when it is sent again.
// An ERROR of the server means that; and the text must be one plain statement, which cannot have committed a part of its work.
func conflictOf(err error, sql string, args []any) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && severityOf(pgErr) == "ERROR" && conflicted(err) && rerunnable(sql) && !rewritten(args)
}

// conflicted reports whether a statement outside of a transaction was rolled back by a conflict (SQLSTATE class 40), or
// because its prepared form was stale. Other codes for which a transaction may be run again are the caller's: who writes
// NOWAIT does not want to wait.
func conflicted(err error) bool {
	class := Classify(err)
	return class.Outcome == OutcomeRolledBack &&
		(class.Retry == RetryTransaction && strings.HasPrefix(class.SQLState, "40") || class.Retry == RetryStatement)
}

// decideStatement says how a statement that may be sent again is. What the server has rolled back is bounded by attempts and
// time, not charged to the budget: it says nothing about the health of the server. That of a lost connection does.
func decideStatement(err error) policy.Decision {
	class := Classify(err)
	d := policy.Decision{Retry: true, Free: class.Outcome == OutcomeRolledBack}
	switch class.Retry {
	case RetryStatement, RetryReconnect:
		d.NoWait = true // connecting waits where there is need
	}
	return d
}

// elsewhere reports whether a statement outside of a transaction, which failed with err on the connection of l, may be sent
// again over another connection: it was certainly rolled back, or the caller has said that it may run twice. tag is what
// the server said that it did before it failed, if it said so, and known only if it was sent by the simple protocol: pgx
// drops the tag of the extended one when an error follows it.
func (l *link) elsewhere(ctx context.Context, err error, sql string, args []any, simple bool, tag pgconn.CommandTag) bool {
	if ctx.Err() != nil || noRetry(ctx) {
		return false
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && (l.leftRole(ctx, pgErr) || simple && terminated(pgErr) && tag.String() == "") {
		return rerunnable(sql) && !rewritten(args)
	}
	return l.pg.IsClosed() && Classify(err).Retry == RetryReconnect && idempotent(ctx)
}

// leftRole reports whether an ERROR comes from a server that turned out to be a standby, where a statement outside of a
// transaction has had no effect; it may have been promoted since.
func (l *link) leftRole(ctx context.Context, err *pgconn.PgError) bool {
	class := Classify(err)
	return severityOf(err) == "ERROR" && class.Retry == RetryFailover && class.Outcome == OutcomeRolledBack && l.demoted(ctx)
}

// terminated reports whether a FATAL, that the server process is to end, came before the statement that it answers was
// committed: PostgreSQL (Routine is set) holds interrupts from before the commit record until the command tag is queued
// (CommitTransaction in xact.c).
func terminated(err *pgconn.PgError) bool {
	return severityOf(err) == "FATAL" && err.Code == "57P01" && err.Routine != ""
}

// rewritten reports whether pgx is to send another text than the one given: only named arguments leave it a statement of
// the same kind. pgx looks for a rewriter among the first arguments.
func rewritten(args []any) bool {
	for _, arg := range args {
		switch arg.(type) {
		case pgx.NamedArgs, pgx.StrictNamedArgs:
			return false
		case pgx.QueryRewriter:
			return true
		}
	}
	return false
}

// runStatement makes attempts of an autocommit statement until one succeeds or none may follow. repeatable says whether a
// failed one may be sent again, and succeed then. The error is the last attempt's own, not wrapped: callers of a driver compare
// values. connected says that attempts have their connection already.
func runStatement[T any](ctx context.Context, c *core, connected bool, repeatable func(error) bool,
	attempt func(context.Context) (T, error),
) (T, error) {
	var alone firstAttempt
	if alone.begin(c) {
		if alone.metered() {
			defer alone.ended(ctx)
		}
		result, err := attempt(ctx)
		if alone.done(ctx, err) {
			return result, nil
		}
		return afterFirst(ctx, alone, result, repeatable, attempt)
	}
	op, ctx, err := c.start(ctx, metrics.OpStatement, "", connected)
	if err != nil {
		var none T
		return none, err
	}
	first, returned := op.attempt(ctx), false
	defer func() {
		if !returned {
			op.panicked(ctx, first)
		}
	}()
	result, err := attempt(first.ctx)
	returned = true
	if err == nil || !repeatable(err) || noRetry(ctx) {
		op.attemptEnd(first, err, false)
		op.end(ctx, err)
		return result, err
	}
	return rerunStatement(ctx, op, first, err, repeatable, attempt)
}

// afterFirst goes on with a statement whose first attempt failed, with that result.
func afterFirst[T any](ctx context.Context, first firstAttempt, result T, repeatable func(error) bool,
	attempt func(context.Context) (T, error),
) (T, error) {
	op, last, err := first.operation(), try{ctx: ctx}, first.err
	if repeatable(err) && !noRetry(ctx) {
		return rerunStatement(ctx, op, last, err, repeatable, attempt)
	}
	op.attemptEnd(last, err, false)
	op.end(ctx, err)
	return result, err
}

// maxRefreshes is how often a statement is sent again at once because its prepared form was stale. Once is enough; twice
// allows for a schema that is changing right now. What then still fails is not healed by sending it again.
const maxRefreshes = 2

// maxLost is how many attempts of one statement may lose their connection without a word before it counts as the cause: one that
// crashes its server process makes PostgreSQL end all others with it. Chosen: as many as database/sql makes.
const maxLost = 3

// rerunStatement goes on with a statement whose first attempt failed with err. It is apart from runStatement so that
// the operation stays off the heap where nothing fails.
func rerunStatement[T any](ctx context.Context, op operation, last try, err error, repeatable func(error) bool,
	attempt func(context.Context) (T, error),
) (result T, _ error) {
	loop := op.core.tuned.Load().statements.Start(ctx, string(metrics.OpStatement))
	waitCtx := withOperation(ctx, &op)
	refreshes, losses, returned := 0, 0, true
	var lost error // of the first attempt that may have taken effect
	defer func() {
		if !returned {
			op.panicked(ctx, last)
		}
	}()
	for {
		switch class := Classify(err); {
		case err == nil:
		case class.Retry == RetryStatement:
			refreshes++
		case class.Outcome == OutcomeUnknown:
			if losses++; lost == nil {
				lost = err
			}
		}
		again, reason := false, stopReason(err)
		if err != nil && refreshes <= maxRefreshes && losses < maxLost && repeatable(err) {
			stop := loop.Wait(waitCtx, err) // for the telemetry only: the caller gets err as it is
			again, reason = stop == nil, stopReason(stop)
		}
		op.attemptEnd(last, err, again)
		if !again {
			if err != nil && lost != nil && Classify(err).Outcome != OutcomeUnknown {
				err = newSentAgainError(err, lost)
			}
			op.endStopped(ctx, err, reason)
			return result, err
		}
		last, returned = op.attempt(ctx), false
		result, err = attempt(last.ctx)
		returned = true
	}
}
