package retrypg

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/outcome"
)

// prepareAfter is how many transactions a connection has before BEGIN and its question are prepared on it, which costs a round
// trip. Chosen: a connection that is not kept does not pay it.
const prepareAfter = 10

// preparable reports whether statements may be prepared on a connection: pgx does, which programs switch off for poolers.
func preparable(conn *pgx.Conn) bool {
	cfg := conn.Config()
	return cfg.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement && cfg.StatementCacheCapacity > 0
}

// sendBegin sends BEGIN and the question for the transaction's id: as prepared statements, which the server need not plan
// anew, on a connection that is kept; else as text.
func (l *link) sendBegin(ctx context.Context, conn *pgx.Conn) error {
	if !l.preparable || l.pooled || l.tx.options != (pgx.TxOptions{}) {
		return l.question(ctx, conn, l.beginText, "BEGIN", false)
	}
	if l.prepared == nil {
		if l.begins++; l.begins <= prepareAfter {
			return l.question(ctx, conn, l.beginText, "BEGIN", false)
		}
		var err error
		if l.prepared, err = outcome.Prepare(ctx, l.pg); err != nil {
			l.preparable = false
			if conn.IsClosed() || ctx.Err() != nil {
				return err
			}
			return l.question(ctx, conn, l.beginText, "BEGIN", false)
		}
	}
	err := l.traced(ctx, conn, l.beginText, "BEGIN", func(ctx context.Context) (err error) {
		l.tx.begun, err = l.prepared.Begin(ctx, l.pg, &l.server)
		return err
	})
	if SQLState(err) == invalidStatementName && !conn.IsClosed() && ctx.Err() == nil {
		l.preparable, l.prepared = false, nil // by DISCARD or DEALLOCATE, which will come again
		if l.pg.TxStatus() != 'I' {
			if err := rollback(ctx, conn); err != nil {
				return err
			}
		}
		return l.question(ctx, conn, l.beginText, "BEGIN", false)
	}
	return err
}

// invalidStatementName is the SQLSTATE of a prepared statement that is not there.
const invalidStatementName = "26000"
