package retrypg

import (
	"context"

	"github.com/jackc/pgx/v5"
)

func always() bool { return true }

// first runs the first statement of a transaction, which carries BEGIN; see runFirst.
func (t *connTx) first(ctx context.Context, again func() bool, attempt func() error) error {
	for losses := 0; ; losses++ {
		l := t.link
		mark := l.mark()
		err := l.lockFirst(ctx, t.conn)
		if err == nil {
			err = attempt()
		}
		if err == nil || t.move == nil || !l.lostFirst(ctx, err, mark, losses, again) {
			if err != nil && l.pg.IsClosed() && ctx.Err() == nil {
				err = l.trueError(err)
			}
			return err
		}
		if err = t.move(ctx); err != nil {
			return err
		}
	}
}

// queryFirst is Query as the first statement: it waits for the first row, to know whether the connection was lost.
func (t *connTx) queryFirst(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	var rows *pooledRows
	asked := false // an error is the server's answer: as with pgx, its place is in the rows
	err := t.first(ctx, func() bool { return repeatableFirst(sql, args) }, func() error {
		asked = false
		sent, err := t.query(ctx, sql, args...)
		if err != nil {
			return err
		}
		asked, rows = true, &pooledRows{Rows: sent}
		return rows.first()
	})
	switch {
	case err != nil && asked:
		return failedRows{err}, nil
	case err != nil:
		return failedRows{err}, err
	}
	return rows, nil
}

// beginNow sends a BEGIN that waits, over another connection if need be.
func (t *connTx) beginNow(ctx context.Context) error {
	if !t.link.waits() {
		return nil
	}
	return t.first(ctx, always, func() error { return t.link.beginNow(ctx) })
}

// beginAny is beginNow for those that have no context and return no error, and give the connection to the caller: where it fails, the
// connection is closed, as what is sent over it must not run outside of the transaction.
func (t *connTx) beginAny() {
	if t.closed {
		return
	}
	if t.link.waits() {
		ctx, cancel := t.link.beginContext(context.Background())
		defer release(cancel)
		if t.beginNow(ctx) != nil {
			closeNow(t.conn)
		}
	}
	t.link.share()
}

// firstRow is the row of a query that was sent already.
type firstRow struct {
	rows pgx.Rows
	err  error
}

// Scan implements pgx.Row.
func (r *firstRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close() // an error may come behind the row
	return r.rows.Err()
}
