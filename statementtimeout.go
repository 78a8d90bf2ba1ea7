package retrypg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// statementTimeoutError says that the answer to a statement of a caller without a deadline took longer than
// retry_statement_timeout. It matches context.DeadlineExceeded.
type statementTimeoutError struct{ limit time.Duration }

func (e *statementTimeoutError) Error() string {
	return fmt.Sprintf("no answer within retry_statement_timeout (%v)", e.limit)
}

// Is reports whether target is context.DeadlineExceeded.
func (*statementTimeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// bounded returns the context of a statement: that of the caller, or one that ends by retry_statement_timeout where the
// caller's has no deadline. cancel, which is nil where it is the caller's, releases it once the rows have been read.
func (c *core) bounded(ctx context.Context) (_ context.Context, cancel context.CancelFunc) {
	if c == nil {
		return ctx, nil
	}
	limit := c.tuned.Load().set.statementTimeout
	if limit <= 0 {
		return ctx, nil
	}
	if _, ok := ctx.Deadline(); ok {
		return ctx, nil
	}
	return context.WithTimeoutCause(ctx, limit, &statementTimeoutError{limit: limit})
}

// timedOut tells of retry_statement_timeout in the error of a statement that it ended.
func timedOut(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	var cause *statementTimeoutError
	if errors.As(context.Cause(ctx), &cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// timedRows are rows whose errors tell of retry_statement_timeout.
type timedRows struct {
	pgx.Rows
	ctx context.Context // that it bounds
}

func (r timedRows) Err() error { return timedOut(r.ctx, r.Rows.Err()) }

func (r timedRows) Scan(dest ...any) error { return timedOut(r.ctx, r.Rows.Scan(dest...)) }

func (r timedRows) Values() ([]any, error) {
	values, err := r.Rows.Values()
	return values, timedOut(r.ctx, err)
}

// timedRow is a row whose error tells of retry_statement_timeout.
type timedRow struct {
	pgx.Row
	ctx context.Context // that it bounds
}

func (r timedRow) Scan(dest ...any) error { return timedOut(r.ctx, r.Row.Scan(dest...)) }

// release calls cancel if there is something to be released.
func release(cancel context.CancelFunc) {
	if cancel != nil {
		cancel()
	}
}
