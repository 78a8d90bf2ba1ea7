package retrypg

import (
	"context"
	"database/sql"
	"runtime"
	"sync"
	"weak"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg/internal/endpoint"
)

// newForeignCore makes a core for a database that is not ours: default settings, no knowledge of servers.
func newForeignCore() (*core, error) { return newCore(settings{}.withDefaults(), nil) }

// sharedForeignCore is for handles that cannot be told apart: single connections, and types of which nothing is known.
var sharedForeignCore = sync.OnceValues(newForeignCore)

// handles maps weak pointers to handles of other packages to their cores, so that each has a budget of its own: the
// outage of one database must not use up the retries of another.
var handles sync.Map

// handleCore returns the core that belongs to h as long as h lives. It is what find gives; own says that it was made for h,
// and is to be closed when h is gone.
func handleCore[T any](h *T, find func() (c *core, own bool, err error)) (*core, error) {
	key := weak.Make(h)
	if c, ok := handles.Load(key); ok {
		return c.(*core), nil
	}
	c, own, err := find()
	if err != nil {
		return nil, err
	}
	if other, loaded := handles.LoadOrStore(key, c); loaded {
		if own {
			_ = c.close() // it was never used
		}
		return other.(*core), nil
	}
	runtime.AddCleanup(h, func(key weak.Pointer[T]) {
		handles.Delete(key)
		if own {
			_ = c.close() // unregisters telemetry, whose error nobody could act upon
		}
	}, key)
	return c, nil
}

// foreignDB returns the core of a *sql.DB of another driver.
func foreignDB(db *sql.DB) (*core, error) {
	return handleCore(db, func() (*core, bool, error) {
		c, err := newForeignCore()
		return c, true, err
	})
}

// foreignPool returns the core of a *pgxpool.Pool: that of ConfigurePool, if the pool was made with it, which a
// connection tells, or one that asks about commits over connections made as the pool makes its own.
func foreignPool(ctx context.Context, pool *pgxpool.Pool) (*core, error) {
	c, err := handleCore(pool, func() (*core, bool, error) {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return nil, false, err
		}
		defer conn.Release()
		if l := linkOf(conn.Conn().PgConn()); l != nil && l.core != nil {
			return l.core, false, nil
		}
		c, err := newForeignCore()
		if err == nil {
			c.dialWith(pool.Config().ConnConfig, poolDialer(weak.Make(pool), &c.order))
		}
		return c, true, err
	})
	if err != nil {
		return sharedForeignCore() // the attempts of the transaction will tell about the server
	}
	return c, nil
}

// poolDialer connects to a primary as the pool connects, hooks included. It does not keep the pool: the hooks of its
// configuration may lead back to it.
func poolDialer(pool weak.Pointer[pgxpool.Pool], order *endpoint.Order) func(context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) {
		p := pool.Value()
		if p == nil {
			return nil, ErrClosed
		}
		cfg := p.Config()
		return primaryDialer(cfg.ConnConfig, order, connectHooks{cfg.BeforeConnect, cfg.AfterConnect})(ctx)
	}
}
