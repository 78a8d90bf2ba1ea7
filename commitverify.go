package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/outcome"
)

// verifyCommit asks TxOptions.Verify about a transaction of which the server could not tell, which err is about. It is
// called when the connection of the transaction was given back: the user's code may do what it likes, and panic.
func (c *core) verifyCommit(ctx context.Context, db any, opts TxOptions, err error) (verdict, error) {
	var unknown *CommitUnknownError
	if !errors.As(err, &unknown) || !unknown.untold {
		return verdictUnknown, err // it may be in progress
	}
	outer := ctx
	ctx, cancel := c.checkContext(ctx)
	defer cancel()
	began := time.Now()
	committed, failure := c.verify(ctx, db, opts.Verify)
	unknown.askedFor += time.Since(began)
	unknown.untold = false
	answer := outcome.Answer{Verdict: outcome.NotApplied}
	switch {
	case failure != nil:
		answer.Verdict = outcome.Unknown
		unknown.asking = fmt.Errorf("TxOptions.Verify: %w", failure)
	case committed:
		answer.Verdict = outcome.Committed
	}
	c.tellChecked(outer, unknown, opts.Name, answer)
	switch answer.Verdict {
	case outcome.Committed:
		return verdictCommitted, nil
	case outcome.NotApplied:
		return verdictNotApplied, &notAppliedError{why: "TxOptions.Verify says so", err: unknown.Err}
	}
	return verdictUnknown, err
}

// verify calls verify with a connection of its own to a primary or, where none can be made, with the handle.
func (c *core) verify(ctx context.Context, db any, verify func(context.Context, Querier) (bool, error)) (bool, error) {
	if conn := connOf(db); conn != nil {
		asker, done, err := c.asker(conn)
		if err != nil {
			return false, err
		}
		defer done()
		c = asker
	}
	if c.dial != nil {
		conn, err := c.openPrimary(ctx)
		if err != nil {
			return false, err
		}
		defer closeGently(ctx, conn)
		return verify(ctx, conn)
	}
	switch db := db.(type) {
	case Querier:
		return verify(ctx, db)
	case rowQuerier:
		return verify(ctx, sqlQuerier{db})
	}
	return false, errors.New("the database has neither QueryRow nor QueryRowContext")
}

// rowQuerier is what *sql.DB and *sql.Conn are.
type rowQuerier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// sqlQuerier is a Querier over database/sql.
type sqlQuerier struct{ db rowQuerier }

func (q sqlQuerier) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	return q.db.QueryRowContext(ctx, query, args...)
}
