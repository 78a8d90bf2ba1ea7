package retrypg

import (
	"context"
	"database/sql"
	"runtime"
	"sync"
	"weak"

	"github.com/jackc/pgx/v5/pgxpool"
)

// newForeignCore makes a core for a database that is not ours: default settings, no knowledge of servers.
func newForeignCore() (*core, error) { return newCore(settings{}.withDefaults(), nil) }

// sharedForeignCore is for handles that cannot be told apart: single connections, and types of which nothing is known.
var sharedForeignCore = sync.OnceValues(newForeignCore)

// handles maps weak pointers to handles of other packages to their cores, so that each has a budget of its own: the
// outage of one database must not use up the retries of another.
var handles sync.Map

// handleCore returns the core that belongs to h as long as h lives. It is given by find, or made where that returns nil.
func handleCore[T any](h *T, find func() (*core, error)) (*core, error) {
	key := weak.Make(h)
	if c, ok := handles.Load(key); ok {
		return c.(*core), nil
	}
	c, err := find()
	if err != nil {
		return nil, err
	}
	made := c == nil
	if made {
		if c, err = newForeignCore(); err != nil {
			return nil, err
		}
	}
	if other, loaded := handles.LoadOrStore(key, c); loaded {
		if made {
			_ = c.close() // it was never used
		}
		return other.(*core), nil
	}
	runtime.AddCleanup(h, func(key weak.Pointer[T]) {
		handles.Delete(key)
		if made {
			_ = c.close() // unregisters telemetry, whose error nobody could act upon
		}
	}, key)
	return c, nil
}

// foreignDB returns the core of a *sql.DB of another driver.
func foreignDB(db *sql.DB) (*core, error) {
	return handleCore(db, func() (*core, error) { return nil, nil })
}

// foreignPool returns the core of a *pgxpool.Pool: that of ConfigurePool, if the pool was made with it, which a
// connection tells.
func foreignPool(ctx context.Context, pool *pgxpool.Pool) (*core, error) {
	c, err := handleCore(pool, func() (*core, error) {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		defer conn.Release()
		if l := linkOf(conn.Conn().PgConn()); l != nil {
			return l.core, nil
		}
		return nil, nil
	})
	if err != nil {
		return sharedForeignCore() // the attempts of the transaction will tell about the server
	}
	return c, nil
}
