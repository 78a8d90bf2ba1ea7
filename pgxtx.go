package retrypg

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg/policy"
)

// pgxTx is a transaction over pgx: that of Pool.BeginTx, and the attempt of WithPgxTx, which its closure gets.
type pgxTx struct {
	pgx.Tx          // a *connTx, or that of a type of the user's
	own     *connTx // the former; nil with the latter
	core    *core
	conn    *pgx.Conn // nil for a test double
	link    *link
	pooled  *pgxpool.Conn                                // to be given back; nil where the connection is the caller's
	acquire func(context.Context) (*pgxpool.Conn, error) // takes another one
	fn      func(context.Context, pgx.Tx) error          // of WithPgxTx
	wishes  txWishes

	commitQuery string // of pgx.TxOptions; empty means commit
	ending
}

// begin takes a connection where db has any to give, so that COMMIT can be judged by its tag: pgx's own Commit drops it.
func (t *pgxTx) begin(ctx context.Context, db PgxTxBeginner, o pgx.TxOptions) error {
	switch db := db.(type) {
	case *Pool:
		return t.beginOn(ctx, db.Acquire, o)
	case *pgxpool.Pool:
		return t.beginOn(ctx, db.Acquire, o)
	case *pgxpool.Conn:
		return t.beginPinned(ctx, db.Conn(), o)
	case *pgx.Conn:
		return t.beginPinned(ctx, db, o)
	}
	tx, err := db.BeginTx(withWishes(ctx, &t.wishes), o)
	if err != nil {
		return err
	}
	own, built := tx.(*pgxTx) // the type is built on a Pool
	if t.wishes.check == Ledger && (!built || own.wishes.check != Ledger) {
		_ = tx.Rollback(ctx) // the error below says why
		return policy.Permanent(errForeignLedger)
	}
	if built {
		fn, wishes := t.fn, t.wishes
		*t = *own
		t.fn, t.wishes, own.over = fn, wishes, true
		t.own.move = t.move
		t.forClosure(ctx)
		t.link.tx.wishes.verify, t.link.tx.wishes.name, t.link.tx.wishes.print = wishes.verify, wishes.name, wishes.print
		return nil
	}
	t.Tx, t.conn = tx, tx.Conn()
	if t.conn != nil {
		t.link = ensureLink(t.conn.PgConn())
		t.link.txErr = nil // the rest belongs to the Pool that may be below
	}
	return nil
}

type txWishesKey struct{}

// withWishes lets Pool.BeginTx know what WithPgxTx wants, through a type of the user's in between.
func withWishes(ctx context.Context, w *txWishes) context.Context {
	return context.WithValue(ctx, txWishesKey{}, w)
}

// wishesFrom returns what ctx says, and ctx without it, for what is not that transaction: hooks of connecting may begin others.
func wishesFrom(ctx context.Context) (txWishes, context.Context) {
	w, ok := ctx.Value(txWishesKey{}).(*txWishes)
	if !ok || w == nil {
		return txWishes{}, ctx
	}
	return *w, withWishes(ctx, nil)
}

// beginOn begins on a connection of a pool. BEGIN has no effect that outlives its connection, so one that meets a dead
// connection is sent on another; it ends, as each failure has used up one connection of the pool.
func (t *pgxTx) beginOn(ctx context.Context, acquire func(context.Context) (*pgxpool.Conn, error), o pgx.TxOptions) error {
	for {
		pooled, err := acquire(ctx)
		if err != nil {
			return err
		}
		l := ensureLink(pooled.Conn().PgConn())
		reused := l.used
		if err = t.beginConn(ctx, pooled.Conn(), o); err == nil {
			t.pooled, t.acquire, t.own.move = pooled, acquire, t.move
			return nil
		}
		closed := pooled.Conn().IsClosed()
		pooled.Release()
		if !closed || !reused || ctx.Err() != nil || errors.Is(err, errLocksLate) {
			return err
		}
	}
}

// beginPinned begins on the caller's own connection: where that is lost, nothing can take its place.
func (t *pgxTx) beginPinned(ctx context.Context, conn *pgx.Conn, o pgx.TxOptions) error {
	if conn.IsClosed() {
		return policy.Permanent(pgconn.ErrConnClosed)
	}
	t.wishes.pinned = true
	err := t.beginConn(ctx, conn, o)
	if err != nil && conn.IsClosed() {
		return policy.Permanent(err)
	}
	return err
}

func (t *pgxTx) beginConn(ctx context.Context, conn *pgx.Conn, o pgx.TxOptions) error {
	t.conn, t.commitQuery = conn, o.CommitQuery
	t.link = ensureLink(conn.PgConn())
	if err := t.core.beginLocked(ctx, conn, t.link, o, t.wishes); err != nil {
		if conn.IsClosed() {
			return t.link.trueError(err)
		}
		return err
	}
	t.own = &connTx{conn: conn, link: t.link}
	t.Tx = t.own
	t.forClosure(ctx)
	return nil
}

// forClosure lets COMMIT go with a statement, if the transaction is that of a closure.
func (t *pgxTx) forClosure(ctx context.Context) {
	if t.fn != nil && t.commitQuery == "" {
		t.own.ctx, t.own.core = ctx, t.core
	}
}

// move begins the transaction on another connection of its pool.
func (t *pgxTx) move(ctx context.Context) error {
	options, wishes := t.link.tx.options, t.link.tx.wishes
	t.pooled.Release()
	t.pooled = nil
	pooled, err := t.acquire(ctx)
	if err != nil {
		return err
	}
	t.pooled, t.conn = pooled, pooled.Conn()
	t.link = ensureLink(t.conn.PgConn())
	t.own.conn, t.own.link = t.conn, t.link
	if err := t.core.beginLocked(ctx, t.conn, t.link, options, wishes); err != nil {
		closeNow(t.conn) // what follows in the transaction must not run outside of one
		return err
	}
	return nil
}

// Commit returns nil if and only if the transaction committed; see Pool.BeginTx. It is not for the closure of WithPgxTx,
// which then says that it must not have been called.
func (t *pgxTx) Commit(ctx context.Context) error {
	if t.over {
		return pgx.ErrTxClosed
	}
	v, err := t.commit(ctx)
	if v == verdictEnded && t.own != nil && t.own.textTag == "COMMIT" {
		return nil // scripts end with it, and it did what was asked for
	}
	return err
}

// Rollback rolls back, also after ctx has ended; a closure that calls it must return an error.
func (t *pgxTx) Rollback(ctx context.Context) error {
	if t.over {
		return pgx.ErrTxClosed
	}
	v := verdictNone
	defer func() { t.end(v) }()
	if t.own != nil {
		var err error
		v, err = unsettle(ctx, t.conn, t.link, t.fn != nil)
		return err
	}
	if t.conn != nil && t.conn.PgConn().TxStatus() == 'I' {
		v = verdictEnded
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	return t.Tx.Rollback(ctx)
}

// end notes that the transaction is over and gives the connection back, which is somebody else's from then on.
func (t *pgxTx) end(v verdict) {
	if t.over {
		return
	}
	t.ending.end(v, t.conn, t.link)
	if t.link != nil {
		t.link.tx.wishes.print = nil
	}
	if t.own != nil {
		t.own.close()
	}
	if t.pooled != nil {
		t.link.used = true
		t.pooled.Release()
		t.pooled = nil
	}
}

func (t *pgxTx) run(ctx context.Context) error { return t.fn(ctx, t) }

func (t *pgxTx) exec(ctx context.Context, query string) error {
	_, err := t.Tx.Exec(ctx, query)
	return err
}

func (t *pgxTx) nest(by int) {
	if t.own != nil {
		t.own.nested += by
	}
}

func (t *pgxTx) state() txState {
	switch {
	case t.over:
		return t.ending.state()
	case t.conn == nil:
		return txState{}
	}
	return stateOf(t.conn, t.link)
}

func (t *pgxTx) commit(ctx context.Context) (v verdict, err error) {
	defer func() { t.end(v) }()
	if t.own == nil {
		return foreignVerdict(ctx, t.core, t.Tx.Commit(ctx), t.wishes)
	}
	return settle(ctx, t.core, t.conn, t.link, orDefault(t.commitQuery, plainCommit), t.fn != nil)
}

func (t *pgxTx) abandon(ctx context.Context) (ended bool) {
	if t.over {
		return false
	}
	err := t.Rollback(ctx)
	return t.verdict == verdictEnded || t.own == nil && errors.Is(err, pgx.ErrTxClosed)
}

// pgxNested is a closure inside the transaction of an outer one.
type pgxNested struct {
	*pgxTx
	fn func(context.Context, pgx.Tx) error
}

func (t *pgxNested) run(ctx context.Context) error { return t.fn(ctx, t.pgxTx) }
