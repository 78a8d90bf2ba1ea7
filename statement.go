package retrypg

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/metrics"
)

// conflictOf says of the errors of one statement outside of a transaction whether it was rolled back and may succeed when
// it is sent again. An ERROR of the server means that; and the text must be one plain statement, which cannot have
// committed a part of its work.
func conflictOf(sql string, args []any) func(error) bool {
	return func(err error) bool {
		var pgErr *pgconn.PgError
		return errors.As(err, &pgErr) && severityOf(pgErr) == "ERROR" && decideConflict(err).Retry &&
			rerunnable(sql) && !rewritten(args)
	}
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
// failed one was certainly not applied and may succeed when it is sent again. The error is the last attempt's own, not
// wrapped: callers of a driver compare values. connected says that attempts have their connection already.
func runStatement[T any](ctx context.Context, c *core, connected bool, repeatable func(error) bool,
	attempt func(context.Context) (T, error),
) (T, error) {
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
	if err == nil || !repeatable(err) {
		op.attemptEnd(first, err, false)
		op.end(ctx, err)
		return result, err
	}
	return rerunStatement(ctx, op, first, err, repeatable, attempt)
}

// maxRefreshes is how often a statement is sent again at once because its prepared form was stale. Once is enough; twice
// allows for a schema that is changing right now. What then still fails is not healed by sending it again.
const maxRefreshes = 2

// rerunStatement goes on with a statement whose first attempt failed with err. It is apart from runStatement so that
// the operation stays off the heap where nothing fails.
func rerunStatement[T any](ctx context.Context, op operation, last try, err error, repeatable func(error) bool,
	attempt func(context.Context) (T, error),
) (result T, _ error) {
	loop := op.core.statements.Start(ctx, string(metrics.OpStatement))
	waitCtx := withOperation(ctx, &op)
	refreshes, returned := 0, true
	defer func() {
		if !returned {
			op.panicked(ctx, last)
		}
	}()
	for {
		if err != nil && Classify(err).Retry == RetryStatement {
			refreshes++
		}
		again, reason := false, stopReason(err)
		if err != nil && refreshes <= maxRefreshes && repeatable(err) {
			stop := loop.Wait(waitCtx, err) // for the telemetry only: the caller gets err as it is
			again, reason = stop == nil, stopReason(stop)
		}
		op.attemptEnd(last, err, again)
		if !again {
			op.endStopped(ctx, err, reason)
			return result, err
		}
		last, returned = op.attempt(ctx), false
		result, err = attempt(last.ctx)
		returned = true
	}
}
