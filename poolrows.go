package retrypg

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

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
	pool    *Pool
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
	s, ctx := poolStatement{pool: r.pool, way: byScan, sql: r.sql, args: r.args, dest: dest}, r.ctx
	*r = pooledRow{scanned: true} // others may keep it from being freed
	err := s.run(ctx)
	if err == nil && s.empty {
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
