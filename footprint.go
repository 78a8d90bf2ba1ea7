package retrypg

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/contention"
)

// txPrint is the footprint of an attempt, and what is needed to take its snapshot anew: where a statement must wait for another transaction,
// what a REPEATABLE READ or SERIALIZABLE transaction has seen before is too old. If that has done nothing but read, it is rolled back
// before the wait, and begun again behind it; what it has read is read again then, and if the answers are the same, the closure cannot tell
// the difference, and goes on. It is for one goroutine, as the transaction is.
type txPrint struct {
	*contention.Footprint
	core   *core
	waited func(context.Context, time.Duration)
	yields bool                  // the attempt may be given up where others wait for it, for one that knows what it touches
	spoilt atomic.Pointer[error] // why it must not commit; WithTx asks for it while a goroutine of the closure may still be at work

	begun bool     // a statement was sent that takes a snapshot
	done  bool     // one that cannot be repeated, or that cannot be told
	reads []txRead // what was read so far
}

// txRead is a statement; a query that only reads can be repeated.
type txRead struct {
	sql   string
	args  int
	again func(context.Context) error // sends it, and reads all of its rows; nil where it is not a query, or cannot be sent again
}

// maxReads bounds what is read again behind a wait. Chosen: more would take longer than what another attempt costs.
const maxReads = 16

// inTheWayError is the error of a statement that was not sent, because the transaction would have conflicted.
type inTheWayError struct{ changed bool }

func (e *inTheWayError) Error() string {
	if e.changed {
		return "retrypg: what the transaction had read was changed while it waited for another one: return the error, and it is run again"
	}
	return "retrypg: another transaction waits for what this one has, and has what this one would wait for: return the error, and it is run again in its turn"
}

// SQLState returns serialization_failure, which it would have been.
func (e *inTheWayError) SQLState() string { return "40001" }

// printOf returns the footprint of the next attempt of a transaction, where one is kept; else nil.
func (c *core) printOf(ctx context.Context, op *operation, opts TxOptions, turn *contention.Call) *txPrint {
	f := turn.Footprint()
	if f == nil || noRetry(ctx) {
		return nil
	}
	set := c.tuned.Load().set
	return &txPrint{
		Footprint: f, core: c,
		waited: func(ctx context.Context, waited time.Duration) { op.admitted(ctx, op.attempts, waited) },
		yields: op.attempts == 1 && set.backoff == nil && orDefault(opts.MaxAttempts, set.maxAttempts) > 1,
	}
}

// spoil notes that the attempt must not commit, and why.
func (p *txPrint) spoil(err error) error {
	p.spoilt.Store(&err)
	return err
}

// broken returns why the attempt must not commit, whatever its closure returns; nil where it may. p may be nil.
func (p *txPrint) broken() error {
	if p != nil {
		if err := p.spoilt.Load(); err != nil {
			return *err
		}
	}
	return nil
}

// prepares is told that a statement is about to be prepared, for which the server takes a snapshot. It stays prepared whatever becomes of the
// transaction. p may be nil.
func (p *txPrint) prepares() error {
	if p == nil {
		return nil
	}
	p.begun = true
	return p.broken()
}

// touch is called before a statement with these marks is sent in a transaction whose footprint is kept. It waits for the transactions
// that are in its way.
func (p *txPrint) touch(ctx context.Context, conn *pgx.Conn, l *link, marks []contention.Mark, s txRead) error {
	if err := p.broken(); err != nil {
		return err
	}
	if conn.IsClosed() || l.pg.IsBusy() || l.status() != 'T' {
		p.done = true
		return nil // which pgx or the server has something to say about
	}
	if !p.Touch(marks) {
		if err := p.await(ctx, conn, l); err != nil {
			return err
		}
	}
	switch {
	case s.again != nil && len(p.reads) < maxReads && pureRead(s.sql):
		p.begun = true
		p.reads = append(p.reads, s)
	case takesNoSnapshot(s.sql) && !p.begun:
		p.done = true
	default:
		p.begun, p.done = true, true
	}
	return nil
}

// takesNoSnapshot reports whether a text is one of the statements that come before the first snapshot of a transaction.
func takesNoSnapshot(sql string) bool { return repeatableFirst(sql, nil) && !rerunnable(sql) }

// await waits for what Touch has said.
func (p *txPrint) await(ctx context.Context, conn *pgx.Conn, l *link) error {
	// Where the snapshot is kept that cannot be taken anew, there is a conflict unless the other one rolls back; but it is known then, and who waits
	// in a circle knows at once.
	anew := p.begun && l.keepsSnapshot() && !p.done && !l.tx.shared && l.hasRead()
	var seen uint64
	if anew {
		seen, _ = l.rider.Sum()
		if err := p.restart(ctx, conn, l); err != nil {
			return p.spoil(err)
		}
	}
	waited, err := p.Await(ctx)
	p.waited(ctx, waited)
	switch {
	case err == nil:
	case !errors.Is(err, contention.ErrCircle):
		return p.spoil(err) // as where a context ends while the server is at work: the transaction does not outlive it
	case p.yields:
		return p.spoil(&inTheWayError{})
	default:
		p.Pass()
	}
	if !anew {
		return nil
	}
	if err := p.repeat(ctx, conn, l); err != nil {
		return p.spoil(err)
	}
	if sum, _ := l.rider.Sum(); sum != seen {
		return p.spoil(&inTheWayError{changed: true})
	}
	return nil
}

// restart rolls back and begins again: what is sent next is in a transaction in any case.
func (p *txPrint) restart(ctx context.Context, conn *pgx.Conn, l *link) error {
	l.collect()
	if !p.core.lazy(l) || !l.tx.lazy || !l.identified { // else ROLLBACK travels with BEGIN
		if err := rollback(ctx, conn); err != nil {
			return l.trueError(err)
		}
	}
	options, wishes := l.tx.options, l.tx.wishes
	wishes.anew = l.pg.TxStatus() != 'I'
	if err := p.core.beginTx(ctx, conn, l, options, wishes); err != nil {
		closeNow(conn) // what follows in the transaction must not run outside of one
		return err
	}
	return nil
}

// repeat reads what was read before.
func (p *txPrint) repeat(ctx context.Context, conn *pgx.Conn, l *link) error {
	for _, read := range p.reads {
		if err := l.sending(ctx, conn, read.sql, read.args > 0); err != nil {
			return err
		}
		bounded, cancel := p.core.bounded(ctx)
		err := timedOut(bounded, read.again(bounded))
		release(cancel)
		var tooLong *statementTimeoutError
		switch {
		case err == nil:
		case ctx.Err() != nil, SQLState(err) != "", errors.As(err, &tooLong):
			return err
		case conn.IsClosed():
			return l.trueError(err)
		default: // it has failed before, on this side, and the closure has gone on
			return &inTheWayError{changed: true}
		}
	}
	return l.beginNow(ctx) // where nothing was read: COMMIT is to find a transaction
}

// hasRead reports whether it is known what the user of the connection has read in the transaction.
func (l *link) hasRead() bool {
	if l.rider == nil {
		return false
	}
	_, known := l.rider.Sum()
	return known
}

// keepsSnapshot reports whether all statements of the transaction see the same, as far as that is known.
func (l *link) keepsSnapshot() bool {
	l.collect()
	switch {
	case l.tx.options.IsoLevel != "":
		return keepsSnapshot(l.tx.options.IsoLevel)
	case l.tx.begun.Isolation != "":
		return keepsSnapshot(pgx.TxIsoLevel(l.tx.begun.Isolation))
	}
	return l.lateByDefault
}

// touch is that of the footprint, if one is kept. reads says that the statement is sent by Query.
func (t *connTx) touch(ctx context.Context, sql string, args []any, reads bool) error {
	p := t.link.tx.wishes.print
	if p == nil || t.closed {
		return nil
	}
	s := txRead{sql: sql, args: len(args)}
	if kept, plain := copied(args); reads && plain && !rewritten(args) {
		s.again = func(ctx context.Context) error {
			rows, err := t.conn.Query(ctx, sql, kept...)
			if err != nil {
				return err
			}
			for rows.Next() {
			}
			return rows.Err()
		}
	}
	return p.touch(ctx, t.conn, t.link, marksOf(sql, args), s)
}

// touchAll is touch for the statements of a batch, of which none is sent before the others.
func (t *connTx) touchAll(ctx context.Context, b *pgx.Batch) error {
	p := t.link.tx.wishes.print
	if p == nil {
		return nil
	}
	var marks []contention.Mark
	for _, q := range b.QueuedQueries {
		marks = append(marks, marksOf(q.SQL, q.Arguments)...)
	}
	return p.touch(ctx, t.conn, t.link, marks, txRead{})
}

// touch is that of the footprint p. reads says that the statement is one for QueryContext.
func (c *Conn) touch(ctx context.Context, p *txPrint, query string, args []driver.NamedValue, reads bool) error {
	values := valuesOf(args)
	s := txRead{sql: query, args: len(args)}
	if kept, plain := copied(values); reads && plain && !rewritten(values) {
		s.again = func(ctx context.Context) error { return c.readAgain(ctx, query, args, kept) }
	}
	return p.touch(ctx, c.session.pgx, c.session.link, marksOf(query, values), s)
}

// readAgain sends a query once more, with the values that its arguments had, and reads all of its rows.
func (c *Conn) readAgain(ctx context.Context, query string, args []driver.NamedValue, values []any) error {
	args = slices.Clone(args)
	for i := range args {
		args[i].Value = values[i]
	}
	rows, err := c.session.stdConn.QueryContext(ctx, query, args)
	if err != nil {
		return err
	}
	defer rows.Close()
	row := make([]driver.Value, len(rows.Columns()))
	for err == nil {
		err = rows.Next(row)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
