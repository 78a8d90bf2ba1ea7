package retrypg

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// poolStatement is a statement of a Pool: what decides whether it is run again.
type poolStatement struct {
	sql       string
	args      []any
	elsewhere bool // the last attempt may be repeated over another connection
}

// on is Pool.onConn for an attempt of the statement.
func (s *poolStatement) on(ctx context.Context, p *Pool, f func(*pgxpool.Conn) error) (*pgxpool.Conn, error) {
	s.elsewhere = false
	conn, err := p.onConn(ctx, f)
	if conn == nil {
		s.elsewhere = false // the error is none of the statement's: it had no connection
	}
	return conn, err
}

// ended notes how an attempt ended.
func (s *poolStatement) ended(ctx context.Context, conn *pgxpool.Conn, err error, simple bool, tag pgconn.CommandTag) {
	s.elsewhere = err != nil && ensureLink(conn.Conn().PgConn()).elsewhere(ctx, err, s.sql, s.args, simple, tag)
}

func (s *poolStatement) repeatable(err error) bool {
	return s.elsewhere || conflictOf(err, s.sql, s.args)
}

// pooledRows gives the connection back when the rows are closed.
type pooledRows struct {
	pgx.Rows
	conn    *pgxpool.Conn
	waiting bool               // the first row was read, and Next not called yet
	release context.CancelFunc // of the context of the query; may be nil
}

// first reads the first row. Its error is that of the statement.
func (r *pooledRows) first() error {
	if r.waiting = r.Rows.Next(); r.waiting {
		return nil
	}
	return r.Rows.Err()
}

func (r *pooledRows) Close() {
	r.Rows.Close()
	release(r.release)
	if r.conn != nil {
		r.conn.Release()
		r.conn = nil
	}
}

func (r *pooledRows) Next() bool {
	if r.waiting {
		r.waiting = false
		return true
	}
	more := r.Rows.Next()
	if !more {
		r.Close()
	}
	return more
}

func (r *pooledRows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.Close()
	}
	return err
}

func (r *pooledRows) Values() ([]any, error) {
	values, err := r.Rows.Values()
	if err != nil {
		r.Close()
	}
	return values, err
}

// failedRows are the rows of a query that failed before its first row.
type failedRows struct{ err error }

func (failedRows) Close()                                       {}
func (r failedRows) Err() error                                 { return r.err }
func (failedRows) CommandTag() pgconn.CommandTag                { return pgconn.CommandTag{} }
func (failedRows) FieldDescriptions() []pgconn.FieldDescription { return nil }
func (failedRows) Next() bool                                   { return false }
func (r failedRows) Scan(...any) error                          { return r.err }
func (r failedRows) Values() ([]any, error)                     { return nil, r.err }
func (failedRows) RawValues() [][]byte                          { return nil }
func (failedRows) Conn() *pgx.Conn                              { return nil }
func (failedRows) TypeMap() *pgtype.Map                         { return nil }

// pooledRow is a query that is sent when it is scanned, so that it can be sent again there.
type pooledRow struct {
	p       *Pool
	ctx     context.Context // of QueryRow: Scan has none
	sql     string
	args    []any
	scanned bool
}

var errScanned = errors.New("retrypg: the row was scanned already: keep what Scan gave")

func (r *pooledRow) Scan(dest ...any) error {
	if r.scanned {
		return errScanned
	}
	r.scanned = true
	s := poolStatement{sql: r.sql, args: r.args}
	empty, err := runStatement(r.ctx, r.p.core, false, s.repeatable, func(ctx context.Context) (empty bool, err error) {
		conn, err := s.on(ctx, r.p, func(conn *pgxpool.Conn) error {
			bounded, cancel := r.p.core.bounded(ctx)
			defer release(cancel)
			err := timedOut(bounded, conn.QueryRow(bounded, r.sql, r.args...).Scan(dest...))
			if empty = errors.Is(err, pgx.ErrNoRows); empty {
				return nil // the statement worked
			}
			s.ended(ctx, conn, err, false, pgconn.CommandTag{})
			return err
		})
		if err == nil {
			conn.Release()
		}
		return empty, err
	})
	if err == nil && empty {
		return pgx.ErrNoRows
	}
	return err
}

// pooledBatch gives the connection back when the batch is closed.
type pooledBatch struct {
	pgx.BatchResults
	conn *pgxpool.Conn
}

func (b *pooledBatch) Close() error {
	err := b.BatchResults.Close()
	if b.conn != nil {
		b.conn.Release()
		b.conn = nil
	}
	return err
}
