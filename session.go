package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// stdConn is pgx's database/sql connection under a name that does not hide its promoted method Conn() *pgx.Conn.
type stdConn = stdlib.Conn

// session is one physical connection: pgx's own database/sql connection with honest errors. It makes one attempt of
// everything; otelsql, where spans are recorded, sits right above it, so that each attempt has its own span.
type session struct {
	*stdConn
	core *core
	pgx  *pgx.Conn
	link *link

	release  context.CancelFunc // of the context of the last query, whose rows may be read yet; may be nil
	prepared bool               // statements may be prepared under their text: without arguments pgx takes the extended protocol for those, else the simple one
	fresh    bool               // its holder has sent nothing yet: database/sql may exchange it for another
	handed   uint64             // what had been sent when it was handed out, for link.sentSince
	leaving  bool               // the statement that failed last may be sent again over another connection
	lastUsed instant            // when it was checked out last
	tx       *sessionTx         // the transaction that BeginTx opened on it
}

func newSession(c *core, std *stdlib.Conn) *session {
	conn := std.Conn()
	l := ensureLink(conn.PgConn())
	l.belongs(c)
	return &session{stdConn: std, core: c, pgx: conn, link: l}
}

// handOut makes the session one that nothing was sent on by its holder.
func (s *session) handOut(now instant) {
	s.lastUsed, s.fresh, s.tx, s.handed = now, true, nil, s.link.mark()
}

// inTx reports whether a transaction is open, be it by BeginTx or by the user's own BEGIN.
func (s *session) inTx() bool { return s.tx != nil || s.pgx.PgConn().TxStatus() != 'I' }

// use marks the session as used and returns whether it could have been exchanged for another one until now.
func (s *session) use() (fresh bool) {
	if s.release != nil && !s.pgx.PgConn().IsBusy() { // else rows are open, and the new statement is the mistake
		s.release()
		s.release = nil
	}
	fresh = s.fresh && s.tx == nil
	s.fresh = false
	return fresh
}

// untouched reports whether the holder of the session has sent nothing on it, be it through sql.Conn.Raw: then there is no
// state of the holder's on it, and another connection is as good.
func (s *session) untouched() bool { return s.fresh && s.tx == nil && !s.link.sentSince(s.handed) }

// sending tells the link of a text that is about to be sent, if a transaction of BeginTx is open.
func (s *session) sending(ctx context.Context, query string, args bool) error {
	if s.tx == nil || s.pgx.IsClosed() {
		return nil
	}
	return s.link.sending(ctx, s.pgx, query, args)
}

// ExecContext implements driver.ExecerContext.
func (s *session) ExecContext(ctx context.Context, query string, argsV []driver.NamedValue) (driver.Result, error) {
	untouched := s.untouched()
	fresh := s.use()
	if s.pgx.IsClosed() {
		return nil, s.failed(ctx, driver.ErrBadConn, fresh, false)
	}
	args := valuesOf(argsV)
	last := s.tx.commitsWith(ctx, query, args)
	mark, was := s.link.mark(), s.link.status()
	if err := s.sending(ctx, query, len(args) > 0); err != nil {
		return nil, s.failed(ctx, err, fresh, true)
	}
	bounded, cancel := s.core.bounded(ctx)
	defer release(cancel)
	var tag pgconn.CommandTag
	var err error
	if last {
		tag, err = s.execLast(bounded, query, args)
	} else {
		tag, err = s.pgx.Exec(bounded, query, args...)
	}
	switch {
	case last && s.link.tx.last.sent && err != nil:
		return nil, err
	case last && s.link.tx.last.sent:
		return driver.RowsAffected(tag.RowsAffected()), nil
	case err != nil:
		err = timedOut(bounded, s.failed(bounded, err, fresh, s.link.sentSince(mark)))
		s.leaving = untouched && s.link.elsewhere(ctx, err, query, args, len(args) == 0 && !s.prepared, tag)
		return nil, err
	}
	if s.tx != nil {
		s.link.sent(tag)
		if was != 'I' && s.link.status() == 'I' {
			s.tx.textTag = textEnd(was, query, tag.String())
		}
	}
	return driver.RowsAffected(tag.RowsAffected()), nil
}

// execLast executes a statement that COMMIT goes with.
func (s *session) execLast(ctx context.Context, query string, args []any) (pgconn.CommandTag, error) {
	return s.link.sendLast(ctx, s.tx.ctx, s.core, s.pgx, func(ctx context.Context) (pgconn.CommandTag, error) {
		return s.pgx.Exec(ctx, query, args...)
	})
}

// QueryContext implements driver.QueryerContext.
func (s *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	untouched := s.untouched()
	fresh := s.use()
	mark := s.link.mark()
	if err := s.sending(ctx, query, len(args) > 0); err != nil {
		return nil, s.failed(ctx, err, fresh, true)
	}
	open := s.release // of rows that are open: the query is a mistake then
	bounded, cancel := s.core.bounded(ctx)
	s.release = cancel
	rows, err := s.stdConn.QueryContext(bounded, query, args)
	if err != nil { // pgx has looked for the first row, and there was none
		err = timedOut(bounded, s.failed(bounded, err, fresh, s.link.sentSince(mark)))
		s.leaving = untouched && s.link.elsewhere(ctx, err, query, valuesOf(args), false, pgconn.CommandTag{})
		release(cancel)
		s.release = open
		return nil, err
	}
	return rows, nil
}

// PrepareContext implements driver.ConnPrepareContext. Preparing has no effect on data, so a lost connection means
// another one.
func (s *session) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	untouched := s.untouched()
	fresh := s.use()
	if s.pgx.IsClosed() {
		return nil, s.failed(ctx, driver.ErrBadConn, fresh, false)
	}
	if err := s.sending(ctx, query, false); err != nil { // its executions are of the same text
		return nil, s.failed(ctx, err, fresh, true)
	}
	s.prepared = true
	stmt, err := s.stdConn.PrepareContext(ctx, query)
	s.link.collect() // what was to travel with it is for statements that are executed
	if err != nil {
		return nil, s.failed(ctx, err, fresh, !s.pgx.IsClosed())
	}
	if untouched { // a prepared statement is no state of the holder's: where it is executed elsewhere, it is prepared there
		s.fresh, s.handed = true, s.link.mark()
	}
	std, ok := stmt.(*stdlib.Stmt)
	if !ok {
		return stmt, nil
	}
	return &statement{Stmt: std, session: s, query: query}, nil
}

// failed returns the error that database/sql is to see: the original, but never one that makes it send again what may
// have run, and never driver.ErrBadConn in place of the reason.
func (s *session) failed(ctx context.Context, err error, fresh, sent bool) error {
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr):
		return err
	case ctx.Err() != nil:
		if errors.Is(err, driver.ErrBadConn) {
			return ctx.Err()
		}
		return err
	case sent:
		if s.pgx.IsClosed() {
			return s.link.trueError(err)
		}
		if errors.Is(err, driver.ErrBadConn) {
			return errBusy
		}
		return err
	case !s.pgx.IsClosed():
		// Nothing sent on a connection that is alive: an argument that cannot be encoded, or a busy connection.
		if errors.Is(err, driver.ErrBadConn) {
			return errBusy
		}
		return err
	}
	err = s.link.unsentError(err)
	if fresh {
		return &discardedError{err: err}
	}
	return err
}

func valuesOf(args []driver.NamedValue) []any {
	values := make([]any, len(args))
	for i := range args {
		values[i] = args[i].Value
	}
	return values
}

// Begin implements driver.Conn.
func (s *session) Begin() (driver.Tx, error) {
	return s.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx implements driver.ConnBeginTx. BEGIN has no effect that outlives its connection: when it meets a dead one,
// database/sql gets another.
func (s *session) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	untouched := s.untouched()
	fresh := s.use()
	o, err := pgxTxOptions(sql.IsolationLevel(opts.Isolation), opts.ReadOnly)
	if err != nil {
		return nil, fmt.Errorf("unsupported isolation: %v", opts.Isolation) // in pgx's words
	}
	record := recordFrom(ctx)
	if record.wantsDeferrable() {
		o.DeferrableMode = pgx.Deferrable
	}
	if s.pgx.IsClosed() {
		return nil, s.failed(ctx, driver.ErrBadConn, fresh, false)
	}
	if err := s.core.beginLocked(ctx, s.pgx, s.link, o, record.wanted()); err != nil {
		if s.pgx.IsClosed() && ctx.Err() == nil && fresh && !errors.Is(err, errLocksLate) {
			return nil, &discardedError{err: s.link.trueError(err)}
		}
		return nil, s.failed(ctx, err, fresh, true)
	}
	record.begun(s)
	// Without the record: hooks get the context, and may begin a transaction of their own with it.
	s.tx = &sessionTx{session: s, ctx: withoutRecord(ctx), record: record, movable: untouched}
	return s.tx, nil
}

// pgxTxOptions translates what database/sql asks for.
func pgxTxOptions(level sql.IsolationLevel, readOnly bool) (o pgx.TxOptions, err error) {
	switch level {
	case sql.LevelDefault:
	case sql.LevelReadUncommitted:
		o.IsoLevel = pgx.ReadUncommitted
	case sql.LevelReadCommitted:
		o.IsoLevel = pgx.ReadCommitted
	case sql.LevelRepeatableRead, sql.LevelSnapshot:
		o.IsoLevel = pgx.RepeatableRead
	case sql.LevelSerializable:
		o.IsoLevel = pgx.Serializable
	default:
		return o, fmt.Errorf("retrypg: isolation level %v is not one of PostgreSQL: use sql.LevelReadCommitted, LevelRepeatableRead or LevelSerializable", level)
	}
	if readOnly {
		o.AccessMode = pgx.ReadOnly
	}
	return o, nil
}

// Ping implements driver.Pinger.
func (s *session) Ping(ctx context.Context) error {
	fresh := s.use()
	if s.pgx.IsClosed() {
		return s.failed(ctx, driver.ErrBadConn, fresh, false)
	}
	err := s.pgx.Ping(ctx)
	if err == nil {
		return nil
	}
	// A ping that failed says that the connection is finished, and has done nothing. database/sql drops the connection
	// and does not ping another one; the next ping does.
	_ = s.Close() // the reason is err
	if ctx.Err() != nil || !fresh {
		return err
	}
	return &discardedError{err: err}
}

// IsValid implements driver.Validator: database/sql asks before it puts the connection back into its pool.
func (s *session) IsValid() bool { return !s.pgx.IsClosed() && !s.link.stale() }

// ResetSession implements driver.SessionResetter: database/sql calls it when it takes the connection out of its pool. A
// look at the socket, which costs no round trip, finds a connection that the server has closed.
func (s *session) ResetSession(ctx context.Context) error {
	if s.pgx.IsClosed() || s.pgx.PgConn().TxStatus() != 'I' {
		return driver.ErrBadConn
	}
	now := readClock()
	after := s.core.tuned.Load().set.pingAfter
	if !s.link.lives(ctx, s.core, after != Off && now.sub(s.lastUsed) > after) {
		return driver.ErrBadConn
	}
	s.link.used = true
	s.handOut(now)
	return nil
}

// statement is a prepared statement whose executions go through the session.
type statement struct {
	*stdlib.Stmt
	session *session
	query   string
}

// ExecContext implements driver.StmtExecContext.
func (t *statement) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	res, err := t.session.ExecContext(ctx, t.query, args)
	t.refresh(ctx, err)
	return res, err
}

// QueryContext implements driver.StmtQueryContext.
func (t *statement) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := t.session.QueryContext(ctx, t.query, args)
	t.refresh(ctx, err)
	return rows, err
}

// refresh makes pgx forget a statement that the server no longer has, or whose plan is stale, and prepares it again, so
// that the next attempt works: of its own accord pgx does that only for the statements of its cache. In an aborted
// transaction it can be forgotten but not prepared; the next run then sends it as a query.
func (t *statement) refresh(ctx context.Context, err error) {
	s := t.session
	if err == nil || Classify(err).Retry != RetryStatement || s.pgx.IsClosed() {
		return
	}
	if s.pgx.Deallocate(ctx, t.query) == nil && !s.inTx() {
		_, _ = s.pgx.Prepare(ctx, t.query, t.query) // should this fail, the next attempt says why
	}
}
