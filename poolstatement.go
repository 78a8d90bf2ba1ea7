package retrypg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// poolStatement is a statement of a Pool with all its attempts. It has no functions of its caller, so that it need not be on the heap
// where the first attempt succeeds.
type poolStatement struct {
	pool *Pool
	way  poolWay
	sql  string
	args []any
	dest []any // of byScan

	elsewhere bool // the last attempt may be repeated over another connection
	asked     bool // the server has got the query, and its error is an answer
	tag       pgconn.CommandTag
	rows      *pooledRows
	empty     bool // byScan has found no row
}

// poolWay is the method of Pool that a statement is run by.
type poolWay uint8

const (
	byExec poolWay = iota
	byQuery
	byScan
)

// run makes attempts until one succeeds or none may follow.
func (s *poolStatement) run(ctx context.Context) error {
	var first firstAttempt
	if first.begin(s.pool.core) {
		if first.metered() {
			defer first.ended(ctx)
		}
		if first.done(ctx, s.attempt(ctx)) {
			return nil
		}
	}
	rest := *s // which is on the heap, as functions of it are handed on
	var err error
	if first.err != nil {
		_, err = afterFirst(ctx, first, struct{}{}, rest.repeatable, rest.next)
	} else {
		_, err = runStatement(ctx, s.pool.core, false, rest.repeatable, rest.next)
	}
	*s = rest
	return err
}

func (s *poolStatement) next(ctx context.Context) (struct{}, error) {
	return struct{}{}, s.attempt(ctx)
}

// attempt sends the statement over a connection, and again over another one as long as that failed before anything was sent. It ends:
// each failure has used up one of the pool's stale connections.
func (s *poolStatement) attempt(ctx context.Context) error {
	var last error
	s.elsewhere, s.asked = false, false
	for range s.pool.maxConns + 1 {
		conn, err := s.pool.Acquire(ctx)
		if err != nil {
			s.elsewhere = false // the error is none of the statement's: it had no connection
			return err
		}
		again, err := s.try(ctx, conn)
		if !again {
			return err
		}
		last = err
	}
	s.elsewhere = false
	return fmt.Errorf("retrypg: every connection of the pool was found dead before anything was sent: %w", last)
}

// try sends the statement over conn, and gives that back, unless there are rows to be read. again says that another connection is to be taken.
func (s *poolStatement) try(ctx context.Context, conn *pgxpool.Conn) (again bool, err error) {
	keep := false
	defer func() {
		if !keep {
			conn.Release()
		}
	}()
	permit, err := s.pool.core.breaker.Allow()
	if err != nil {
		return false, err
	}
	defer permit.Ignore() // of no effect once something was reported
	l := ensureLink(conn.Conn().PgConn())
	mark := l.mark()
	simple := false
	switch s.way {
	case byExec:
		err = s.exec(ctx, conn)
		simple = len(s.args) == 0 // pgx then takes the simple protocol
	case byQuery:
		err = s.query(ctx, conn)
	case byScan:
		err = s.scan(ctx, conn)
	}
	s.elsewhere = err != nil && l.elsewhere(ctx, err, s.sql, s.args, simple, s.tag)
	l.used = true
	report(ctx, &permit, err)
	if err == nil {
		keep = s.way == byQuery
		return false, nil
	}
	sent, closed := l.sentSince(mark), conn.Conn().IsClosed()
	if sent && closed {
		err = l.trueError(err)
	}
	return !sent && closed && ctx.Err() == nil, err
}

func (s *poolStatement) exec(ctx context.Context, conn *pgxpool.Conn) (err error) {
	ctx, cancel := s.pool.core.bounded(ctx)
	defer release(cancel)
	s.tag, err = conn.Exec(ctx, s.sql, s.args...)
	return timedOut(ctx, err)
}

func (s *poolStatement) query(ctx context.Context, conn *pgxpool.Conn) (err error) {
	rows := rowsSlabs.next()
	ctx, rows.release = s.pool.core.bounded(ctx)
	rows.Rows, err = conn.Query(ctx, s.sql, s.args...)
	if s.asked = err == nil; s.asked {
		err = rows.first()
	}
	if rows.release != nil {
		rows.Rows = timedRows{rows.Rows, ctx}
	}
	if err != nil {
		err = timedOut(ctx, err)
		release(rows.release)
		return err
	}
	rows.conn, s.rows = conn, rows
	return nil
}

func (s *poolStatement) scan(ctx context.Context, conn *pgxpool.Conn) error {
	ctx, cancel := s.pool.core.bounded(ctx)
	defer release(cancel)
	err := timedOut(ctx, conn.QueryRow(ctx, s.sql, s.args...).Scan(s.dest...))
	if s.empty = errors.Is(err, pgx.ErrNoRows); s.empty {
		return nil // the statement worked
	}
	return err
}

func (s *poolStatement) repeatable(err error) bool {
	return s.elsewhere || conflictOf(err, s.sql, s.args)
}
