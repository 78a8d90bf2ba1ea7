//go:build linux && netns

package net_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
)

// limit ends what hangs. Nothing takes a fraction of it.
const limit = 60 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// handle is a database handle of each kind.
type handle struct {
	db   *sql.DB
	pool *retrypg.Pool
}

func open(t *testing.T, dsn string, opts ...retrypg.Option) *handle {
	t.Helper()
	db, err := retrypg.OpenDB(dsn, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	pool, err := retrypg.NewPool(t.Context(), dsn+"&pool_max_conns=16", opts...)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return &handle{db: db, pool: pool}
}

// perKind is how many idle connections fill makes of each kind: as many as there are callers at one moment.
const perKind = 4

// fill makes idle connections, or uses those that there are: what was idle for less than a second is not
// pinged before it is used.
func (h *handle) fill(ctx context.Context, t *testing.T) {
	t.Helper()
	var conns []*sql.Conn
	var pooled []*pgxpool.Conn
	for range perKind {
		conn, err := h.db.Conn(ctx)
		require.NoError(t, err)
		conns = append(conns, conn)
		one, err := h.pool.Acquire(ctx)
		require.NoError(t, err)
		pooled = append(pooled, one)
	}
	for i := range perKind {
		require.NoError(t, conns[i].Close())
		pooled[i].Release()
	}
}

// way is a way to write an entry.
type way struct {
	name  string
	whole bool // by WithTx or its like for pgx, all of whose errors but one say that nothing was applied
	write func(ctx context.Context, h *handle, e entry) error
	// resolve asks what became of a transaction.
	resolve func(ctx context.Context, h *handle, lost *retrypg.CommitUnknownError) (bool, error)
}

// entry is what is to be written.
type entry struct {
	id   string
	hold string
	// written, if not nil, is called by transactions between their INSERT and their COMMIT.
	written func()
}

const insert = "insert into entry (id, hold) values ($1, $2)"

// text is insert without arguments: one message, by which the server runs it. With arguments pgx prepares a statement first,
// and sends the rest when it has the answer.
func (e entry) text() string {
	return fmt.Sprintf("insert into entry (id, hold) values ('%s', '%s')", e.id, e.hold)
}

var ways = []way{
	{"WithTx", true, func(ctx context.Context, h *handle, e entry) error {
		return retrypg.WithTx(ctx, h.db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, insert, e.id, e.hold)
			if err == nil && e.written != nil {
				e.written()
			}
			return err
		})
	}, func(ctx context.Context, h *handle, lost *retrypg.CommitUnknownError) (bool, error) {
		return retrypg.ResolveCommit(ctx, h.db, lost)
	}},
	{"WithPgxTx", true, func(ctx context.Context, h *handle, e entry) error {
		return retrypg.WithPgxTx(ctx, h.pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insert, e.id, e.hold)
			if err == nil && e.written != nil {
				e.written()
			}
			return err
		})
	}, func(ctx context.Context, h *handle, lost *retrypg.CommitUnknownError) (bool, error) {
		return retrypg.ResolvePgxCommit(ctx, h.pool, lost)
	}},
	{"db.Exec", false, func(ctx context.Context, h *handle, e entry) error {
		_, err := h.db.ExecContext(ctx, e.text())
		return err
	}, nil},
	{"pool.Exec", false, func(ctx context.Context, h *handle, e entry) error {
		_, err := h.pool.Exec(ctx, e.text())
		return err
	}, nil},
}

// told says what an error tells of an entry.
func (w way) told(err error) audit.Told {
	if w.whole {
		return audit.OfTransaction(err)
	}
	return audit.OfStatement(err)
}

// caller writes one entry, in one way.
type caller struct {
	way
	moment  string
	handle  *handle
	entry   entry
	bounded bool // it has a deadline

	began time.Time
	done  chan struct{} // closed when it has ended, and the fields below are set
	err   error
	ended time.Time
}

// deadline is what callers that have one give themselves: less than the kernel needs to give a connection up, and more than
// it takes to get all callers to where the fault is to meet them.
const deadline = 1500 * time.Millisecond

func (c *caller) String() string {
	if c.bounded {
		return fmt.Sprintf("%s, %s with a deadline", c.moment, c.way.name)
	}
	return fmt.Sprintf("%s, %s without a deadline", c.moment, c.way.name)
}

// start lets the caller begin.
func (c *caller) start(ctx context.Context) {
	c.began = time.Now()
	cancel := func() {}
	if c.bounded {
		ctx, cancel = context.WithTimeout(ctx, deadline)
	} else {
		ctx = context.WithoutCancel(ctx)
	}
	go func() {
		defer cancel()
		c.err = c.write(ctx, c.handle, c.entry)
		c.ended = time.Now()
		close(c.done)
	}()
}

// hasEnded reports whether the caller has ended.
func (c *caller) hasEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wait waits until the caller has ended.
func (c *caller) wait(ctx context.Context, t *testing.T) {
	t.Helper()
	select {
	case <-c.done:
	case <-ctx.Done():
		require.FailNow(t, "a caller hangs", "%v", c)
	}
}
