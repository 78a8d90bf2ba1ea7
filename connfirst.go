package retrypg

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
)

// runFirst runs the first statement of a transaction, which carries BEGIN. Where the connection is lost with it, the transaction is
// begun on another connection, as where a BEGIN by itself meets a dead one: nothing of it can have taken effect. again says
// whether the statement may be sent a second time although it may have run, and was rolled back.
func runFirst[T any](ctx context.Context, c *Conn, again func() bool, attempt func(context.Context) (T, error)) (result T, err error) {
	permit, err := c.connector.core.breaker.Allow()
	if err != nil {
		return result, err
	}
	defer permit.Ignore() // of no effect once something was reported
	for losses := 0; ; losses++ {
		s := c.session
		mark := s.link.mark()
		if err = s.link.lockFirst(ctx, s.pgx); err == nil {
			result, err = attempt(ctx)
		}
		if err == nil || !s.tx.movable || !s.link.lostFirst(ctx, err, mark, losses, again) {
			break
		}
		if err = c.moveTx(ctx); err != nil {
			break
		}
	}
	report(ctx, &permit, err)
	return result, err
}

// maxMoves bounds how many connections a transaction is begun on in all. Chosen: as many as a statement is attempted.
const maxMoves = DefaultMaxAttempts

// lostFirst reports whether the connection was lost with the first statement of a transaction, before which mark was taken, so that the
// transaction may be begun on another one. A statement that may have run is sent again only where the connection had been idle, and may
// have been dead for long: a new one is not lost for that. Nor is one on which it took too long.
func (l *link) lostFirst(ctx context.Context, err error, mark uint64, losses int, again func() bool) bool {
	if !l.pg.IsClosed() || l.tx.last.sent || ctx.Err() != nil || noRetry(ctx) || losses >= maxMoves-1 {
		return false
	}
	if refused := l.refusedLock(); refused != nil {
		return refused.again() && !l.lostEnd() // the statement was run if the session had the locks all the same
	}
	var tooLong *statementTimeoutError
	return !l.sentSince(mark) || l.rider.Refused() || l.used && !errors.As(err, &tooLong) && again()
}

// repeatableFirst reports whether the first statement of a transaction may be sent again although it may have run, and was rolled back.
func repeatableFirst(sql string, args []any) bool {
	if rerunnable(sql) {
		return !rewritten(args)
	}
	t := sqlText{s: sql}
	if several(sql) || !t.skipBlank() {
		return false
	}
	switch strings.ToLower(t.word()) {
	case "set", "reset", "savepoint", "lock":
		return true
	}
	return false
}

// moveTx begins the transaction of c anew on a new connection, which takes the place of what is below c.
func (c *Conn) moveTx(ctx context.Context) error {
	tx, old := c.session.tx, c.session.link
	if err := c.move(ctx); err != nil {
		return err
	}
	s := c.session
	s.fresh, s.tx = false, tx
	err := s.core.beginLocked(ctx, s.pgx, s.link, old.tx.options, old.tx.wishes)
	if err != nil {
		closeNow(s.pgx) // what follows in the transaction must not run outside of one
	}
	tx.record.lock()
	defer tx.record.unlock()
	tx.session = s
	tx.record.begun(s)
	return err
}

// Conn returns the connection of pgx below c. Where a transaction is open whose BEGIN waits for its first statement, it is sent
// first, which blocks until the server has answered: what is done with the connection is to find a transaction. Where that fails the
// connection is closed.
func (c *Conn) Conn() *pgx.Conn {
	if l := c.session.link; l.waits() {
		ctx, cancel := l.beginContext(c.session.tx.ctx)
		defer release(cancel)
		_, err := runFirst(ctx, c, func() bool { return true }, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, c.session.link.beginNow(ctx)
		})
		if err != nil {
			closeNow(c.session.pgx) // what is sent over it must not run outside of the transaction
		}
	}
	if c.session.tx != nil {
		c.session.link.share()
	}
	return c.session.pgx
}
