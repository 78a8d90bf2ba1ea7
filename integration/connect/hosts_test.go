package connect_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// TestAHostThatDoesNotAnswerIsLeftForOneThatDoes: long before connect_timeout, which would fail the test here.
func TestAHostThatDoesNotAnswerIsLeftForOneThatDoes(t *testing.T) {
	for _, role := range []string{"any", "read-write"} {
		t.Run(role, func(t *testing.T) {
			each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
				d := newDatabase(t)
				silent, sound := pgt.Proxy(t, d.Cluster.Addr()), pgt.Proxy(t, d.Cluster.Addr())
				require.NoError(t, silent.SetAccept(pgtest.AcceptSilent))
				dsn := pgtest.DSN([]string{silent.Addr(), sound.Addr()}, "dbname="+d.Name, "target_session_attrs="+role, "connect_timeout=60")
				ctx, cancel := context.WithTimeout(t.Context(), limit/2)
				defer cancel()
				require.NoError(t, connect(ctx, dsn))
			})
		})
	}
}

// TestTheHostThatWorkedIsTriedFirst: the next connection does not meet the one that does not answer.
func TestTheHostThatWorkedIsTriedFirst(t *testing.T) {
	d := newDatabase(t)
	silent, sound := pgt.Proxy(t, d.Cluster.Addr()), pgt.Proxy(t, d.Cluster.Addr())
	require.NoError(t, silent.SetAccept(pgtest.AcceptSilent))
	dsn := pgtest.DSN([]string{silent.Addr(), sound.Addr()}, "dbname="+d.Name, "connect_timeout=60", "pool_max_conns=5")
	ctx := within(t)
	pool := newPool(t, dsn)
	require.NoError(t, pool.Ping(ctx))
	met := silent.Stats().Accepted
	var held []func()
	for range 4 {
		conn, err := pool.Acquire(ctx)
		require.NoError(t, err)
		held = append(held, conn.Release)
	}
	for _, release := range held {
		release()
	}
	require.Equal(t, met, silent.Stats().Accepted)
}

func TestHostsAreTakenAtRandomIfWanted(t *testing.T) {
	d := newDatabase(t)
	one, two := pgt.Proxy(t, d.Cluster.Addr()), pgt.Proxy(t, d.Cluster.Addr())
	ctx := within(t)
	for name, dsn := range map[string]string{
		"key":    pgtest.DSN([]string{one.Addr(), two.Addr()}, "dbname="+d.Name, "load_balance_hosts=random"),
		"option": pgtest.DSN([]string{one.Addr(), two.Addr()}, "dbname="+d.Name),
	} {
		var opts []retrypg.Option
		if name == "option" {
			opts = append(opts, retrypg.WithLoadBalanceHosts())
		}
		c, err := retrypg.NewConnector(dsn, opts...)
		require.NoError(t, err)
		before := [2]int{one.Stats().Accepted, two.Stats().Accepted}
		for range 32 { // one in two thousand million that all go to one
			conn, err := c.Connect(ctx)
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		}
		require.Greater(t, one.Stats().Accepted, before[0], name)
		require.Greater(t, two.Stats().Accepted, before[1], name)
		require.NoError(t, c.Close())
	}
}

// TestAllHandlesOfAProcessHaveOneProber: however they were opened.
func TestAllHandlesOfAProcessHaveOneProber(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	dsn := p.DSN("dbname=" + d.Name)
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	w := newWatch()
	prober := open(t, dsn, w.option())
	first := later(func() error { return prober.PingContext(mark(ctx, "first")) })
	require.NoError(t, w.waits(ctx, 1))
	others := newWatch()
	pool, db := newPool(t, dsn, others.option()), open(t, dsn, others.option())
	callers := []<-chan error{
		later(func() error { return pool.Ping(ctx) }),
		later(func() error { return db.PingContext(ctx) }),
		later(func() error { return retrypg.WaitReady(ctx, dsn, others.option()) }),
	}
	require.NoError(t, w.waits(ctx, 6))
	require.Zero(t, others.counts(), "none of them looks for the server")

	err := pool.Ping(retrypg.NoRetry(ctx))
	require.ErrorContains(t, err, "refused", "who does not want to wait is told what was seen")
	require.NoError(t, p.SetAccept(pgtest.AcceptForward))
	require.NoError(t, done(t, first))
	for _, caller := range callers {
		require.NoError(t, done(t, caller))
	}
	require.Zero(t, others.counts())
	require.NoError(t, others.until(ctx, func() bool { return len(others.ups) > 0 }), "they are told that it is back")
}

func TestReconfigureOfAPoolHoldsForItsNextCall(t *testing.T) {
	d, p := newProxied(t)
	pool := newPool(t, through(p, d))
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	require.NoError(t, pool.Reconfigure(retrypg.WithConnectMaxElapsed(300*time.Millisecond)))
	err := pool.Ping(context.Background())
	var exhausted *retrypg.ExhaustedError
	require.ErrorAs(t, err, &exhausted)
	require.Less(t, exhausted.Elapsed, limit/2)
	require.NoError(t, p.SetAccept(pgtest.AcceptForward))
	require.NoError(t, pool.Ping(within(t)))
}

// TestServerSideOptionsReachTheServer: and what the program has set itself stays.
func TestServerSideOptionsReachTheServer(t *testing.T) {
	d := newDatabase(t)
	ctx := within(t)
	db := open(t, d.DSN("tcp_server_side=on", "tcp_user_timeout=7s", "tcp_keepalive_idle=3s", "tcp_keepalive_count=4", "tcp_keepalives_interval=9"))
	for name, want := range map[string]string{
		"tcp_user_timeout": "7000", "tcp_keepalives_idle": "3", "tcp_keepalives_interval": "9", "tcp_keepalives_count": "4",
		"client_connection_check_interval": "3s",
	} {
		var have string
		require.NoError(t, db.QueryRowContext(ctx, "show "+name).Scan(&have), name)
		require.Equal(t, want, have, name)
	}
}
