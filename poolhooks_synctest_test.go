package retrypg

import (
	"context"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// TestAPanicOfAHookThatIsToldOfADeadConnectionTakesNoPlaceOfThePool: pgxpool would keep it for ever.
func TestAPanicOfAHookThatIsToldOfADeadConnectionTakesNoPlaceOfThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Accept(nil))
		cfg, err := pgxpool.ParseConfig(scriptedDSN + "&pool_max_conns=1")
		require.NoError(t, err)
		bomb := false
		cfg.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
			if bomb {
				panic("boom")
			}
			return true, nil
		}
		t.Cleanup(s.Close)
		pool, err := NewPoolWithConfig(t.Context(), cfg, onScript(s), WithCommitCheck(NoCheck))
		require.NoError(t, err)
		defer pool.Close()
		require.NoError(t, pool.Ping(t.Context()))
		bomb = true
		require.PanicsWithValue(t, "boom", func() { _ = pool.Ping(t.Context()) })
		bomb = false
		synctest.Wait() // pgxpool destroys a connection on a goroutine of its own
		require.Zero(t, pool.Stat().AcquiredConns())
		require.NoError(t, pool.Ping(within(t, time.Second)))
	})
}

// TestAHookOfOnePoolMayUseAnotherOneWithItsContext: what the context tells the one is nothing to the other.
func TestAHookOfOnePoolMayUseAnotherOneWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := scriptedPool(t, script.New(script.Accept(nil)))
		s := script.New(script.Accept(nil))
		t.Cleanup(s.Close)
		cfg, err := pgxpool.ParseConfig(scriptedDSN)
		require.NoError(t, err)
		asked := 0
		cfg.PrepareConn = func(ctx context.Context, _ *pgx.Conn) (bool, error) {
			asked++
			return true, other.Ping(ctx)
		}
		pool, err := NewPoolWithConfig(t.Context(), cfg, onScript(s), WithCommitCheck(NoCheck))
		require.NoError(t, err)
		defer pool.Close()
		for range 2 {
			require.NoError(t, pool.Ping(t.Context()))
		}
		require.Equal(t, 2, asked)
	})
}

// TestAHandleWithADialerOfItsOwnSharesNoGate: what it meets says nothing to those that dial in the usual way.
func TestAHandleWithADialerOfItsOwnSharesNoGate(t *testing.T) {
	const dsn = "postgres://app@127.0.0.1:1/app?sslmode=disable"
	gateOf := func(opts ...Option) any {
		c, err := NewConnector(dsn, opts...)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c.core.gate
	}
	usual := gateOf()
	require.Same(t, usual, gateOf(), "the usual way")
	for name, change := range map[string]func(cfg *pgx.ConnConfig){
		"dialer": func(cfg *pgx.ConnConfig) {
			cfg.DialFunc = (&net.Dialer{Control: func(string, string, syscall.RawConn) error { return syscall.EHOSTUNREACH }}).DialContext
		},
		"resolver": func(cfg *pgx.ConnConfig) { cfg.LookupFunc = (&net.Resolver{PreferGo: true}).LookupHost },
	} {
		require.NotSame(t, usual, gateOf(WithConnConfig(func(cfg *pgx.ConnConfig) error { change(cfg); return nil })), name)
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	cfg.ConnConfig.DialFunc = pgconn.DialFunc((&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).DialContext)
	pool, err := NewPoolWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	require.NotSame(t, usual, any(pool.core.gate))
	pool, err = NewPool(t.Context(), dsn)
	require.NoError(t, err)
	defer pool.Close()
	require.Same(t, usual, any(pool.core.gate), "of the same DSN")
}
