package retrypg

import (
	"context"
	"database/sql/driver"
)

// Conn is the connection that database/sql uses. It embeds pgx's own *stdlib.Conn, so that everything that can do is
// there: Conn() returns the *pgx.Conn for COPY, LISTEN and the rest. In sql.Conn.Raw assert
//
//	driverConn.(interface{ Conn() *pgx.Conn })
//
// which holds for *stdlib.Conn too. A Conn is used by one goroutine at a time.
type Conn struct {
	*stdConn
	connector *Connector
	session   *session
	traced    tracedConn // otelsql around session; nil where it is not used
}

// tracedConn is what otelsql's connection implements and Conn calls.
type tracedConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
}

var (
	_ tracedConn               = (*Conn)(nil)
	_ tracedConn               = (*session)(nil)
	_ driver.Validator         = (*Conn)(nil)
	_ driver.NamedValueChecker = (*Conn)(nil)
)

// ExecContext implements driver.ExecerContext: a statement that was provably not applied is sent again, see the package
// documentation. Where that takes another connection, the Conn goes on with that one, if nothing was sent on the old one
// before.
func (c *Conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	var first firstAttempt
	if c.alone(&first) {
		if first.metered() {
			defer first.ended(ctx)
		}
		result, err := c.session.ExecContext(ctx, query, args)
		if first.done(ctx, err) {
			return result, nil
		}
	}
	return run(ctx, c, query, args, first, func(ctx context.Context) (driver.Result, error) { return c.exec(ctx, query, args) })
}

// QueryContext implements driver.QueryerContext; see ExecContext. A query is never sent again once it has delivered a
// row: errors that come with later rows are the caller's.
func (c *Conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	var first firstAttempt
	if c.alone(&first) {
		if first.metered() {
			defer first.ended(ctx)
		}
		rows, err := c.session.QueryContext(ctx, query, args)
		if first.done(ctx, err) {
			return rows, nil
		}
	}
	return run(ctx, c, query, args, first, func(ctx context.Context) (driver.Rows, error) { return c.query(ctx, query, args) })
}

// alone begins the first attempt of a statement outside of a transaction, if that is one that is made by itself. ExecContext and
// QueryContext make it with no function between them and the session: processors predict where the innermost few functions return
// to, 16 or 32 of them, and below database/sql and above pgx each one more costs a wrong guess for each statement.
func (c *Conn) alone(first *firstAttempt) bool {
	if c.traced != nil || c.session.inTx() || !first.begin(c.connector.core) {
		return false
	}
	c.session.leaving = false // what was said of an earlier statement
	return true
}

func (c *Conn) exec(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.traced != nil {
		return c.traced.ExecContext(ctx, query, args)
	}
	return c.session.ExecContext(ctx, query, args)
}

func (c *Conn) query(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.traced != nil {
		return c.traced.QueryContext(ctx, query, args)
	}
	return c.session.QueryContext(ctx, query, args)
}

// repeatable reports whether a statement outside of a transaction, which failed with err, may be sent again: over another
// connection, or because it was provably rolled back and may succeed on the same one, which the server has declared ready for
// the next statement.
func (c *Conn) repeatable(err error, query string, args []driver.NamedValue) bool {
	if c.session.leaving {
		return true
	}
	if c.session.pgx.IsClosed() || c.session.inTx() {
		return false
	}
	return conflictOf(err, query, valuesOf(args))
}

// run runs a statement by the rules of the core. Inside a transaction there is one attempt: only the whole transaction
// could be run again. The first attempt may have been made already, and have failed.
func run[T any](ctx context.Context, c *Conn, query string, args []driver.NamedValue, first firstAttempt,
	attempt func(context.Context) (T, error),
) (T, error) {
	repeatable := func(err error) bool { return c.repeatable(err, query, args) }
	anywhere := func(ctx context.Context) (T, error) {
		if c.session.leaving {
			if err := c.move(ctx); err != nil {
				var none T
				return none, err
			}
		}
		return attempt(ctx)
	}
	switch {
	case first.err != nil:
		var none T
		return afterFirst(ctx, first, none, repeatable, anywhere)
	case c.session.inTx():
		return inTransaction(ctx, c, query, args, attempt)
	}
	c.session.leaving = false // what was said of an earlier statement
	return runStatement(ctx, c.connector.core, true, repeatable, anywhere)
}

// inTransaction runs a statement in a transaction, whose BEGIN may wait for it.
func inTransaction[T any](ctx context.Context, c *Conn, query string, args []driver.NamedValue, attempt func(context.Context) (T, error)) (T, error) {
	if p := c.session.link.tx.wishes.print; p != nil {
		_, reads := any((*T)(nil)).(*driver.Rows)
		if err := c.touch(ctx, p, query, args, reads); err != nil {
			var none T
			return none, err
		}
	}
	if c.session.link.waits() {
		return runFirst(ctx, c, func() bool { return repeatableFirst(query, valuesOf(args)) }, attempt)
	}
	return attempt(ctx)
}

// move exchanges what is below c for a new connection.
func (c *Conn) move(ctx context.Context) error {
	c.session.leaving = false
	closeNow(c.session.pgx) // first: the server may have no room for another one
	// The breaker was asked for the statement: its one probe may be this statement's.
	other, err := c.connector.connect(ctx, false)
	if err != nil {
		return err
	}
	*c = *other
	return nil
}

// Prepare implements driver.Conn.
func (c *Conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *Conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.session.link.tx.wishes.print.prepares(); err != nil {
		return nil, err
	}
	attempt := func(ctx context.Context) (driver.Stmt, error) { return c.prepare(ctx, query) }
	var stmt driver.Stmt
	var err error
	if c.session.link.waits() {
		stmt, err = runFirst(ctx, c, func() bool { return true }, attempt) // it has no effect
	} else {
		stmt, err = attempt(ctx)
	}
	if err != nil {
		return nil, err
	}
	return &preparedStmt{Stmt: stmt, conn: c, on: c.session, query: query}, nil
}

func (c *Conn) prepare(ctx context.Context, query string) (driver.Stmt, error) {
	if c.traced != nil {
		return c.traced.PrepareContext(ctx, query)
	}
	return c.session.PrepareContext(ctx, query)
}

// Begin implements driver.Conn.
func (c *Conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx implements driver.ConnBeginTx.
func (c *Conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	permit, err := c.connector.core.breaker.Allow()
	if err != nil {
		return nil, err
	}
	var tx driver.Tx
	if c.traced != nil {
		tx, err = c.traced.BeginTx(ctx, opts)
	} else {
		tx, err = c.session.BeginTx(ctx, opts)
	}
	if err == nil && c.session.link.waits() {
		permit.Ignore() // nothing was sent yet: the first statement asks, and tells
		return tx, nil
	}
	report(ctx, &permit, err)
	return tx, err
}

// Ping implements driver.Pinger.
func (c *Conn) Ping(ctx context.Context) error {
	if c.traced != nil {
		return c.traced.Ping(ctx)
	}
	return c.session.Ping(ctx)
}

// ResetSession implements driver.SessionResetter.
func (c *Conn) ResetSession(ctx context.Context) error {
	if c.traced != nil {
		return c.traced.ResetSession(ctx)
	}
	return c.session.ResetSession(ctx)
}

// IsValid implements driver.Validator.
func (c *Conn) IsValid() bool { return c.session.IsValid() }

// preparedStmt is a prepared statement with the rules of Conn.ExecContext and Conn.QueryContext.
type preparedStmt struct {
	driver.Stmt
	conn  *Conn
	on    *session // that it is prepared on
	query string
}

var (
	_ driver.StmtExecContext  = (*preparedStmt)(nil)
	_ driver.StmtQueryContext = (*preparedStmt)(nil)
)

// follow prepares the statement again where its connection was exchanged for another one.
func (p *preparedStmt) follow(ctx context.Context) error {
	if p.on == p.conn.session {
		return nil
	}
	stmt, err := p.conn.prepare(ctx, p.query)
	if err != nil {
		return err
	}
	p.Stmt, p.on = stmt, p.conn.session
	return nil
}

// Close implements driver.Stmt. With a connection that was exchanged the statement has gone, too.
func (p *preparedStmt) Close() error {
	if p.on != p.conn.session {
		return nil
	}
	return p.Stmt.Close()
}

// ExecContext implements driver.StmtExecContext.
func (p *preparedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return run(ctx, p.conn, p.query, args, firstAttempt{}, func(ctx context.Context) (driver.Result, error) {
		if err := p.follow(ctx); err != nil {
			return nil, err
		}
		return p.Stmt.(driver.StmtExecContext).ExecContext(ctx, args) // session's and otelsql's both are
	})
}

// QueryContext implements driver.StmtQueryContext.
func (p *preparedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return run(ctx, p.conn, p.query, args, firstAttempt{}, func(ctx context.Context) (driver.Rows, error) {
		if err := p.follow(ctx); err != nil {
			return nil, err
		}
		return p.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	})
}
