package retrypg

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/outcome"
)

// beginLate begins a transaction that is asked before its COMMIT.
func (c *core) beginLate(ctx context.Context, conn *pgx.Conn, l *link) error {
	l.tx.late = true
	if l.tx.wishes.check == Ledger && !l.onStandby() {
		if err := c.haveLedger(ctx, conn, l); err != nil { // which is too late within the transaction
			return err
		}
	}
	return l.beginPlainly(ctx, conn)
}

// programLimitExceeded is the SQLSTATE of a server that is about to run out of transaction ids and hands out no more.
// Transactions that only read go on (src/backend/access/transam/varsup.c, GetNewTransactionId).
const programLimitExceeded = "54000"

// lackingIDs is how long a server that handed out no more transaction ids is not asked for one on the same connection. Chosen: until it
// does again, each question costs a transaction.
const lackingIDs = 30 * time.Second

// lacksIDs reports whether the server has handed out no more transaction ids a short time ago.
func (l *link) lacksIDs() bool { return !l.outOfIDs.IsZero() && time.Since(l.outOfIDs) < lackingIDs }

// ledgerSavepoint is what a token is written in, so that a refusal does not abort the transaction.
const ledgerSavepoint = "retrypg_ledger"

// askLate asks what BEGIN was not asked, now that COMMIT is due and the transaction has the snapshot that its statements
// wanted. An error means that COMMIT must not be sent.
func (c *core) askLate(ctx context.Context, conn *pgx.Conn, l *link) error {
	l.collect()
	if !l.tx.late || l.status() != 'T' { // one that is aborted has nothing to be asked about
		return nil
	}
	l.tx.late = false
	if l.tx.wishes.check == Ledger {
		if err := c.tokenLate(ctx, conn, l); err != nil {
			return err
		}
	} else {
		err := l.question(ctx, conn, outcome.VersionOf(l.pg).XIDQuery(l.pooled), "SELECT 1", false)
		if SQLState(err) == programLimitExceeded {
			l.outOfIDs = time.Now()
			return &notAppliedError{err: err} // and may be run again, without a question
		}
		if err != nil {
			return err
		}
		l.readXID()
	}
	if level := l.tx.begun.Isolation; level != "" && l.tx.options.IsoLevel == "" && !keepsSnapshot(pgx.TxIsoLevel(level)) {
		l.lateByDefault = false
	}
	return nil
}

func (c *core) tokenLate(ctx context.Context, conn *pgx.Conn, l *link) error {
	token, insert := c.newTokenFor(l)
	sql := "savepoint " + ledgerSavepoint + "; " + insert + "; release savepoint " + ledgerSavepoint
	err := l.question(ctx, conn, sql, "RELEASE", true)
	if err == nil {
		l.wrote(token)
		return nil
	}
	l.tx.begun, l.ledger = outcome.Begun{}, false
	if SQLState(err) != readOnlyTransaction || conn.IsClosed() {
		return c.ledgerError(err)
	}
	// READ ONLY by a statement of the caller's, or by default.
	if _, rerr := conn.Exec(ctx, "rollback to savepoint "+ledgerSavepoint+"; release savepoint "+ledgerSavepoint); rerr != nil {
		return rerr
	}
	l.tx.readOnly, l.tx.mute = true, muteReadOnly
	return nil
}
