package retrypg

import (
	"context"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connTx is an open transaction on a connection of pgx: what pgx's own is, of which the BEGIN cannot be had without its
// dropping what the server answered. pgxTx around it ends it.
type connTx struct {
	conn       *pgx.Conn
	link       *link
	closed     bool
	savepoints int64
	release    context.CancelFunc // of the context of the last query, whose rows may be read yet; may be nil
	textTag    string             // the tag of the statement that ended the transaction, COMMIT or ROLLBACK sent as text
	large      pgx.Tx             // pgx's own, for its large objects
	// move begins the transaction on another connection, if no statement has had an effect; nil where there is none
	move func(context.Context) error

	// Of the transaction of a closure, with which COMMIT may go with a statement; else nil.
	ctx    context.Context
	core   *core
	nested int // how many savepoints are open, or were left by what must not be committed
}

var (
	_ pgx.Tx = (*connTx)(nil)
	_ pgx.Tx = (*savepointTx)(nil)
)

// Exec implements pgx.Tx. It sees a transaction that is ended by text.
func (t *connTx) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	if err := t.touch(ctx, sql, args, false); err != nil {
		return pgconn.CommandTag{}, err
	}
	if !t.link.waits() || t.closed {
		return t.exec(ctx, sql, args...)
	}
	err = t.first(ctx, func() bool { return repeatableFirst(sql, args) }, func() error {
		tag, err = t.exec(ctx, sql, args...)
		return err
	})
	return tag, err
}

func (t *connTx) exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if t.closed {
		return pgconn.CommandTag{}, pgx.ErrTxClosed
	}
	last := t.core != nil && t.nested == 0 && t.link.commitsWith(ctx, sql, args)
	if err := t.sending(ctx, sql, len(args) > 0); err != nil {
		return pgconn.CommandTag{}, err
	}
	ctx, cancel := t.link.core.bounded(ctx)
	defer release(cancel)
	if last {
		return t.execLast(ctx, sql, args)
	}
	was := t.link.status()
	tag, err := t.conn.Exec(ctx, sql, args...)
	if err == nil {
		t.link.sent(tag)
		if was != 'I' && t.link.status() == 'I' {
			t.textTag = textEnd(was, sql, tag.String())
		}
	}
	return tag, timedOut(ctx, err)
}

// execLast is exec for a statement with which COMMIT goes.
func (t *connTx) execLast(ctx context.Context, sql string, args []any) (pgconn.CommandTag, error) {
	tag, err := t.link.sendLast(ctx, t.ctx, t.core, t.conn, func(ctx context.Context) (pgconn.CommandTag, error) {
		return t.conn.Exec(ctx, sql, args...)
	})
	switch {
	case t.link.tx.last.sent:
		t.closeLarge()
		return tag, err
	case err == nil:
		t.link.sent(tag)
	}
	return tag, timedOut(ctx, err)
}

// sending tells the link of a text that is about to be sent.
func (t *connTx) sending(ctx context.Context, sql string, args bool) error {
	if t.conn.IsClosed() {
		return nil
	}
	return t.link.sending(ctx, t.conn, sql, args)
}

// bounded returns the context of a query, and whether retry_statement_timeout ends it. That of the one before is of no use any
// more: its rows have been read.
func (t *connTx) bounded(ctx context.Context) (_ context.Context, limited bool) {
	if t.conn.PgConn().IsBusy() {
		return ctx, false // rows are open: pgx will say so
	}
	release(t.release)
	ctx, t.release = t.link.core.bounded(ctx)
	return ctx, t.release != nil
}

// Query implements pgx.Tx.
func (t *connTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := t.touch(ctx, sql, args, true); err != nil {
		return failedRows{err}, err
	}
	if !t.link.waits() || t.closed {
		return t.query(ctx, sql, args...)
	}
	return t.queryFirst(ctx, sql, args)
}

func (t *connTx) query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	err := pgx.ErrTxClosed
	if !t.closed {
		err = t.sending(ctx, sql, len(args) > 0)
	}
	if err != nil {
		return failedRows{err}, err
	}
	ctx, limited := t.bounded(ctx)
	rows, err := t.conn.Query(ctx, sql, args...)
	if !limited {
		return rows, err
	}
	return timedRows{rows, ctx}, timedOut(ctx, err)
}

// QueryRow implements pgx.Tx.
func (t *connTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := t.touch(ctx, sql, args, true); err != nil {
		return failedRows{err}
	}
	if t.link.waits() && !t.closed {
		rows, err := t.queryFirst(ctx, sql, args)
		return &firstRow{rows, err}
	}
	err := pgx.ErrTxClosed
	if !t.closed {
		err = t.sending(ctx, sql, len(args) > 0)
	}
	if err != nil {
		return failedRows{err}
	}
	ctx, limited := t.bounded(ctx)
	row := t.conn.QueryRow(ctx, sql, args...)
	if !limited {
		return row
	}
	return timedRow{row, ctx}
}

// Prepare implements pgx.Tx. The statement may be executed by its name, which says nothing of it.
func (t *connTx) Prepare(ctx context.Context, name, sql string) (d *pgconn.StatementDescription, err error) {
	if !t.closed {
		if err := t.link.tx.wishes.print.prepares(); err != nil {
			return nil, err
		}
	}
	if !t.link.waits() || t.closed {
		return t.prepare(ctx, name, sql)
	}
	err = t.first(ctx, always, func() error {
		d, err = t.prepare(ctx, name, sql)
		return err
	})
	return d, err
}

func (t *connTx) prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if t.closed {
		return nil, pgx.ErrTxClosed
	}
	if err := t.sending(ctx, sql, false); err != nil {
		return nil, err
	}
	if mayEndTransaction(sql) {
		t.link.tx.texts.switched = true
	}
	d, err := t.conn.Prepare(ctx, name, sql)
	t.link.collect() // what was to travel with it is for statements that are executed
	return d, err
}

// CopyFrom implements pgx.Tx.
func (t *connTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	if t.closed {
		return 0, pgx.ErrTxClosed
	}
	if err := t.touch(ctx, "copy", nil, false); err != nil {
		return 0, err
	}
	if err := t.beginNow(ctx); err != nil { // the source can be read once only
		return 0, err
	}
	if err := t.sending(ctx, "copy", false); err != nil {
		return 0, err
	}
	return t.conn.CopyFrom(ctx, table, columns, source)
}

var errBatchBegin = errors.New("retrypg: Batch.BeginTx cannot be used within a transaction")

// SendBatch implements pgx.Tx.
func (t *connTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if t.closed {
		return pgx.FailedBatchResults(b, pgx.ErrTxClosed)
	}
	if failed := pgx.FailedBatchResults(b, errBatchBegin); failed.Tx() != nil {
		return failed
	}
	if err := t.touchAll(ctx, b); err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	if err := t.beginNow(ctx); err != nil { // a batch is not sent twice
		return pgx.FailedBatchResults(b, err)
	}
	f := &t.link.tx.texts
	for _, q := range b.QueuedQueries {
		if err := t.sending(ctx, q.SQL, len(q.Arguments) > 0); err != nil {
			return pgx.FailedBatchResults(b, err)
		}
		if may, certain := endsTransaction(q.SQL); may { // and another query of the batch may begin one
			f.switched, f.surely = true, f.surely || certain
		}
	}
	return t.conn.SendBatch(ctx, b)
}

// LargeObjects implements pgx.Tx. They can only be had from a transaction of pgx's own, and that only by beginning one:
// here in a batch that is not sent, as its context has ended.
func (t *connTx) LargeObjects() pgx.LargeObjects {
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{})
	if t.closed || t.link.tx.last.sent {
		return pgx.FailedBatchResults(b, pgx.ErrTxClosed).Tx().LargeObjects()
	}
	t.beginAny()
	t.link.tx.texts.early = false // they send their queries past us
	if t.large == nil {
		t.large = t.conn.SendBatch(ended, b).Tx()
	}
	return t.large.LargeObjects()
}

// Conn implements pgx.Tx. What is sent over it is not seen here; a BEGIN that waits for the first statement is sent first, and the
// answer waited for.
func (t *connTx) Conn() *pgx.Conn {
	t.beginAny()
	t.link.tx.texts.early = false
	return t.conn
}

// Begin implements pgx.Tx: it makes a savepoint.
func (t *connTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if t.closed {
		return nil, pgx.ErrTxClosed
	}
	t.savepoints++
	name := "sp_" + strconv.FormatInt(t.savepoints, 10)
	if _, err := t.Exec(ctx, "savepoint "+name); err != nil {
		return nil, err
	}
	return &savepointTx{connTx: t, name: name}, nil
}

// Commit implements pgx.Tx. pgxTx commits.
func (t *connTx) Commit(context.Context) error { return pgx.ErrTxClosed }

// Rollback implements pgx.Tx. pgxTx rolls back.
func (t *connTx) Rollback(context.Context) error { return pgx.ErrTxClosed }

// close makes everything that was made of the transaction refuse to work: the connection is somebody else's. It sends
// nothing.
func (t *connTx) close() {
	t.closed = true
	t.closeLarge()
}

func (t *connTx) closeLarge() {
	if t.large != nil {
		_ = t.large.Commit(ended) // a context that has ended keeps it from being sent
	}
}

// savepointTx is a savepoint.
type savepointTx struct {
	*connTx
	name string
	over bool
}

func (s *savepointTx) end(ctx context.Context, sql string) error {
	if s.over {
		return pgx.ErrTxClosed
	}
	_, err := s.connTx.Exec(ctx, sql+s.name)
	s.over = true
	return err
}

// Commit releases the savepoint.
func (s *savepointTx) Commit(ctx context.Context) error { return s.end(ctx, "release savepoint ") }

// Rollback rolls back to the savepoint.
func (s *savepointTx) Rollback(ctx context.Context) error {
	return s.end(ctx, "rollback to savepoint ")
}

// Exec implements pgx.Tx.
func (s *savepointTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if s.over {
		return pgconn.CommandTag{}, pgx.ErrTxClosed
	}
	s.nested++ // COMMIT does not go with a statement that the savepoint can take back
	defer func() { s.nested-- }()
	return s.connTx.Exec(ctx, sql, args...)
}

// Query implements pgx.Tx.
func (s *savepointTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if s.over {
		return failedRows{pgx.ErrTxClosed}, pgx.ErrTxClosed
	}
	return s.connTx.Query(ctx, sql, args...)
}

// QueryRow implements pgx.Tx.
func (s *savepointTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if s.over {
		return failedRows{pgx.ErrTxClosed}
	}
	return s.connTx.QueryRow(ctx, sql, args...)
}

// Prepare implements pgx.Tx.
func (s *savepointTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if s.over {
		return nil, pgx.ErrTxClosed
	}
	return s.connTx.Prepare(ctx, name, sql)
}

// CopyFrom implements pgx.Tx.
func (s *savepointTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	if s.over {
		return 0, pgx.ErrTxClosed
	}
	return s.connTx.CopyFrom(ctx, table, columns, source)
}

// SendBatch implements pgx.Tx.
func (s *savepointTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if s.over {
		return pgx.FailedBatchResults(b, pgx.ErrTxClosed)
	}
	return s.connTx.SendBatch(ctx, b)
}

// Begin implements pgx.Tx.
func (s *savepointTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if s.over {
		return nil, pgx.ErrTxClosed
	}
	return s.connTx.Begin(ctx)
}
