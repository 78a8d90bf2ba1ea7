package connect_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// closedError reports whether err says that the handle was closed, in our words or those of database/sql or pgxpool.
func closedError(err error) bool {
	if errors.Is(err, retrypg.ErrClosed) {
		return true
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if s := err.Error(); s == "sql: database is closed" || s == "closed pool" {
			return true
		}
	}
	return false
}

func TestCloseDuringAnOutageEndsAllWaits(t *testing.T) {
	d := newDatabase(t)
	for _, test := range []struct {
		name string
		mode pgtest.AcceptMode
	}{{"refused", pgtest.AcceptRefuse}, {"no answer", pgtest.AcceptSilent}} {
		for name, handle := range handles {
			t.Run(test.name+" "+name, func(t *testing.T) {
				const callers = 20
				p := pgt.Proxy(t, d.Cluster.Addr())
				ctx := within(t)
				w := newWatch()
				require.NoError(t, p.SetAccept(test.mode))
				ping, closing := handle(t, through(p, d), "50", w.option())
				results := make(chan error, callers)
				for range callers {
					go func() { results <- ping(ctx) }()
				}
				if test.mode == pgtest.AcceptRefuse {
					require.NoError(t, w.waits(ctx, 3))
				} else {
					require.NoError(t, p.Wait(ctx, func(s pgtest.Stats) bool { return s.Accepted >= callers }))
				}
				closing()
				for range callers {
					err := <-results
					harmless(t, err)
					require.True(t, closedError(err), "%v", err)
				}
				require.NoError(t, ctx.Err(), "the wait ended with the context, not with Close")
			})
		}
	}
}

// TestCloseEndsTheWaitOfASmallPool: database/sql opens connections for waiting callers on a goroutine of its own.
func TestCloseEndsTheWaitOfASmallPool(t *testing.T) {
	const callers = 10
	d, p := newProxied(t)
	w := newWatch()
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	db := open(t, through(p, d), w.option())
	db.SetMaxOpenConns(1)
	results := make(chan error, callers)
	for range callers {
		go func() { results <- db.PingContext(context.WithoutCancel(t.Context())) }()
	}
	require.NoError(t, w.waits(within(t), 3))
	require.NoError(t, db.Close())
	for range callers {
		require.True(t, closedError(<-results))
	}
}

func TestNothingIsConnectedAfterClose(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	t.Run("connector", func(t *testing.T) {
		c, err := retrypg.NewConnector(through(p, d))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, c.Close(), "a second Close")
		_, err = c.Connect(ctx)
		require.ErrorIs(t, err, retrypg.ErrClosed)
	})
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			ping, closing := handle(t, through(p, d), "2")
			require.NoError(t, ping(ctx))
			opened := p.Stats().Opened
			closing()
			require.True(t, closedError(ping(ctx)))
			require.Equal(t, opened, p.Stats().Opened)
			closing()
		})
	}
	t.Run("all methods of a pool", func(t *testing.T) {
		pool := newPool(t, through(p, d))
		pool.Close()
		for name, use := range poolMethods {
			require.True(t, closedError(use(ctx, pool)), name)
		}
	})
}
