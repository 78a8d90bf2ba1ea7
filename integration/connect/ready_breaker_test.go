package connect_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// breakerWaits are the ways to wait for a server with a breaker in the way.
var breakerWaits = map[string]func(t *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error{
	"WaitReady": func(_ *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
		return retrypg.WaitReady(ctx, dsn, opts...)
	},
	"WaitReady, option": func(_ *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
		return retrypg.WaitReady(ctx, dsn, append(opts, retrypg.WithBreaker(breaker.Options{Failures: 1}))...)
	},
	"WaitReadyDB": func(t *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
		return retrypg.WaitReadyDB(ctx, open(t, dsn), opts...)
	},
	"WaitReadyPool": func(t *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
		return retrypg.WaitReadyPool(ctx, newPool(t, dsn), opts...)
	},
}

// TestWaitReadyIsNotEndedByABreaker: what a breaker refuses is what it is there to wait for.
func TestWaitReadyIsNotEndedByABreaker(t *testing.T) {
	d := newDatabase(t)
	for name, wait := range breakerWaits {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
			w := newWatch()
			ctx := within(t)
			var last retrypg.ReadyEvent
			// Longer than any wait of a prober: a handle that finds its breaker half-open goes on waiting by itself.
			dsn := through(p, d, "breaker_failures=2", "breaker_open_for=300ms")
			going, ended := context.WithCancel(ctx)
			waiting := later(func() error {
				defer ended()
				return wait(t, ctx, dsn, w.option(), retrypg.WithReadyProgress(func(e retrypg.ReadyEvent) { last = e }))
			})
			require.NoError(t, w.waits(going, 6), "the wait has ended") // three times what opens the breaker
			require.NoError(t, p.SetAccept(pgtest.AcceptForward))
			require.NoError(t, done(t, waiting))
			require.True(t, last.Ready)
		})
	}
}

// TestWaitReadyTellsOfTheHandlesBreaker: the state is that of the handle, not of the server.
func TestWaitReadyTellsOfTheHandlesBreaker(t *testing.T) {
	d, p := newProxied(t)
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	db := open(t, through(p, d, "breaker_failures=1", "breaker_open_for=50ms"))
	var states []string
	require.NoError(t, retrypg.WaitReadyDB(within(t), db, retrypg.WithReadyProgress(func(e retrypg.ReadyEvent) {
		if states = append(states, e.State); !e.Ready {
			harmless(t, e.Err)
			require.NoError(t, p.SetAccept(pgtest.AcceptForward))
		}
	})))
	require.Equal(t, []string{"circuit breaker open", "ready"}, states)
}

// TestWaitReadyTakesTheDSNOfAPool: one connection string serves a program and the wait before it.
func TestWaitReadyTakesTheDSNOfAPool(t *testing.T) {
	d, p := newProxied(t)
	require.NoError(t, retrypg.WaitReady(within(t), through(p, d,
		"pool_max_conns=7", "pool_min_conns=2", "pool_max_conn_lifetime=1h", "pool_health_check_period=1m", "breaker_failures=5")))
	require.Equal(t, 1, p.Stats().Opened)
	err := retrypg.WaitReady(within(t), through(p, d, "pool_max_conns=many"))
	harmless(t, err)
	require.Equal(t, 1, p.Stats().Opened)
}
