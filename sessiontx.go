package retrypg

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
)

// sessionTx is the transaction of database/sql on a session.
type sessionTx struct {
	session *session
	ctx     context.Context // of BeginTx: database/sql gives Commit and Rollback none
	record  *txRecord       // of WithTx; nil for a plain BeginTx
	textTag string          // the tag of the statement that ended the transaction, COMMIT or ROLLBACK sent as text
	movable bool            // nothing was sent on the connection before by its holder, so that another one is as good
	done    bool
}

var _ driver.Tx = (*sessionTx)(nil)

// Commit implements driver.Tx. It returns nil if and only if the transaction committed, the original error if it did not,
// and a *CommitUnknownError if nothing is known.
func (t *sessionTx) Commit() error {
	if t.done {
		return pgx.ErrTxClosed
	}
	// Not under the record's lock: the user's hooks are called.
	v, err := settle(t.ctx, t.session.core, t.session.pgx, t.session.link, plainCommit, t.record != nil)
	if v == verdictEnded && t.textTag == "COMMIT" {
		err = nil // scripts end with it, and it did what was asked for
	}
	t.record.lock()
	defer t.record.unlock()
	t.end(v)
	return err
}

// commitsWith reports whether COMMIT may go with a statement. It works on a nil transaction.
func (t *sessionTx) commitsWith(ctx context.Context, query string, args []any) bool {
	return t != nil && t.record != nil && t.record.nested == 0 && t.session.link.commitsWith(ctx, query, args)
}

// Rollback implements driver.Tx. It works after the context of BeginTx has ended.
func (t *sessionTx) Rollback() error {
	t.record.lock()
	defer t.record.unlock()
	if t.done {
		return pgx.ErrTxClosed
	}
	v, err := unsettle(t.ctx, t.session.pgx, t.session.link, t.record != nil)
	t.end(v)
	return err
}

// end notes that the transaction is over. The session belongs to somebody else once its method has returned.
func (t *sessionTx) end(v verdict) {
	t.done = true
	t.session.tx = nil
	t.session.link.tx.wishes.print = nil // the caller may begin one by text next
	if t.record != nil {
		t.record.end(v, t.session.pgx, t.session.link)
	}
}
