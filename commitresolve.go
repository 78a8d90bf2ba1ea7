package retrypg

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/outcome"
)

// ResolveCommit asks again what became of a transaction whose COMMIT ended with unknown: an error of [WithTx] or of
// Commit, or one made from its exported fields by a program that has kept them. db leads to the server: a handle of
// retrypg's own, of any connector for the same cluster and, with Ledger, the same database.
//
// With a nil error the answer is certain. It does not change any more: committed false means that the transaction never
// will be. Otherwise the error is a *CommitUnknownError with what is known now. It says so if there is nothing to ask: the
// check was off, the server has no transaction ids, db is another driver's. It is safe for concurrent use, and blocks for as
// long as a commit check may take, also if ctx has ended: 3 s. Hooks and metrics are told as by any check.
func ResolveCommit(ctx context.Context, db TxBeginner, unknown *CommitUnknownError) (committed bool, err error) {
	if isNil(db) {
		return false, ErrNilDB
	}
	c, err := coreOf(ctx, db)
	if err != nil {
		return false, err
	}
	return c.resolveAgain(ctx, unknown)
}

// ResolvePgxCommit is ResolveCommit for pgx.
func ResolvePgxCommit(ctx context.Context, db PgxTxBeginner, unknown *CommitUnknownError) (committed bool, err error) {
	if isNil(db) {
		return false, ErrNilDB
	}
	c, err := pgxCoreOf(ctx, db)
	if err != nil {
		return false, err
	}
	if conn := connOf(db); conn != nil && c.dial == nil {
		asker, done, err := c.asker(conn)
		if err != nil {
			return false, err
		}
		defer done()
		c = asker
	}
	return c.resolveAgain(ctx, unknown)
}

// connOf returns the connection that db is, or nil.
func connOf(db any) *pgx.Conn {
	switch db := db.(type) {
	case *pgx.Conn:
		return db
	case interface{ Conn() *pgx.Conn }: // *pgxpool.Conn
		return db.Conn()
	}
	return nil
}

var errNothingToAsk = errors.New("retrypg: nothing can be asked about this commit")

func (c *core) resolveAgain(ctx context.Context, unknown *CommitUnknownError) (committed bool, err error) {
	if unknown == nil {
		return false, errors.New("retrypg: ResolveCommit needs a *CommitUnknownError, got nil")
	}
	again := *unknown
	switch {
	case again.question() == nil:
		again.asking = errNothingToAsk
		return false, &again
	case c.dial == nil:
		again.asking = errForeignResolve
		return false, &again
	}
	ctx, cancel := c.checkContext(ctx)
	defer cancel()
	switch c.check(ctx, &again, txWishes{}) {
	case outcome.Committed:
		return true, nil
	case outcome.NotApplied:
		return false, nil
	}
	return false, &again
}

var errForeignResolve = errors.New("retrypg: this database handle is not one of retrypg's or pgx's, which could be asked")
