package retrypg

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"slices"
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
	yields bool // the attempt may be given up where others wait for it, for one that knows what it touches
	broken error

	begun bool     // a statement was sent that takes a snapshot
	done  bool     // one that cannot be repeated, or that cannot be told
	reads []txRead // what was read so far
}

// txRead is a query that only reads, to be repeated.
type txRead struct {
	sql   string
	args  int
	again func(context.Context) error // sends it, and reads all of its rows
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
		Footprint: f, core: c, waited: op.delayed,
		yields: op.attempts == 1 && set.backoff == nil && orDefault(opts.MaxAttempts, set.maxAttempts) > 1,
	}
}

// touch is called before a statement is sent in a transaction whose footprint is kept. It waits for the transactions that are in its way. again sends
// the statement once more; it is nil for one that is not a query.
func (p *txPrint) touch(ctx context.Context, conn *pgx.Conn, l *link, sql string, args []any, again func(context.Context) error) error {
	if p.broken != nil {
		return p.broken
	}
	if conn.IsClosed() || l.pg.IsBusy() || l.status() != 'T' {
		p.done = true
		return nil // which pgx or the server has something to say about
	}
	if !p.Touch(marksOf(sql, args)) {
		if err := p.await(ctx, conn, l); err != nil {
			return err
		}
	}
	switch {
	case again != nil && pureRead(sql) && len(p.reads) < maxReads:
		p.begun = true
		p.reads = append(p.reads, txRead{sql: sql, args: len(args), again: again})
	case takesNoSnapshot(sql) && !p.begun:
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
	anew := p.begun && l.keepsSnapshot()
	if anew && (p.done || l.tx.shared || !l.hasRead()) {
		p.Pass(false) // waiting would not help: it would still see what was before
		return nil
	}
	var seen uint64
	if anew {
		seen, _ = l.rider.Sum()
		if err := p.restart(ctx, conn, l); err != nil {
			p.broken = err
			return err
		}
	}
	waited, err := p.Await(ctx)
	p.waited(ctx, waited)
	switch {
	case err == nil:
	case !errors.Is(err, contention.ErrCircle):
		if anew {
			p.broken = err
		}
		return err
	case p.yields:
		p.broken = &inTheWayError{}
		return p.broken
	default:
		p.Pass(!anew)
	}
	if !anew {
		return nil
	}
	if err := p.repeat(ctx, conn, l); err != nil {
		p.broken = err
		return err
	}
	if sum, _ := l.rider.Sum(); sum != seen {
		p.broken = &inTheWayError{changed: true}
		return p.broken
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
		switch {
		case err == nil:
		case conn.IsClosed() && ctx.Err() == nil:
			return l.trueError(err)
		default:
			return err
		}
	}
	return nil
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
	if !reads {
		return p.touch(ctx, t.conn, t.link, sql, args, nil)
	}
	kept, plain := copied(args)
	if !plain || rewritten(args) {
		return p.touch(ctx, t.conn, t.link, sql, args, nil)
	}
	return p.touch(ctx, t.conn, t.link, sql, args, func(ctx context.Context) error {
		rows, err := t.conn.Query(ctx, sql, kept...)
		if err != nil {
			return err
		}
		for rows.Next() {
		}
		return rows.Err()
	})
}

// touch is that of the footprint p. reads says that the statement is one for QueryContext.
func (c *Conn) touch(ctx context.Context, p *txPrint, query string, args []driver.NamedValue, reads bool) error {
	s := c.session
	values := valuesOf(args)
	kept, plain := copied(values)
	if !reads || !plain {
		return p.touch(ctx, s.pgx, s.link, query, values, nil)
	}
	return p.touch(ctx, s.pgx, s.link, query, values, func(ctx context.Context) error {
		again := slices.Clone(args)
		for i := range again {
			again[i].Value = kept[i]
		}
		rows, err := c.session.stdConn.QueryContext(ctx, query, again)
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
	})
}
