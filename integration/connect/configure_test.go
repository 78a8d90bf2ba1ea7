package connect_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// configured makes a pool of pgxpool's own with ConfigurePool after set has changed its configuration.
func configured(t *testing.T, dsn string, set func(*pgxpool.Config), opts ...retrypg.Option) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	if set != nil {
		set(cfg)
	}
	require.NoError(t, retrypg.ConfigurePool(cfg, opts...))
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// TestHooksThatThePoolHasAreKept: each is called, and what it says counts.
func TestHooksThatThePoolHasAreKept(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	var dialled, connected, prepared, errorsSeen, noticed, own atomic.Int64
	pool := configured(t, through(p, d), func(cfg *pgxpool.Config) {
		var dialer net.Dialer
		cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialled.Add(1)
			return dialer.DialContext(ctx, network, addr)
		}
		cfg.ConnConfig.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool {
			errorsSeen.Add(1)
			return err.Code != "22012" // false closes the connection
		}
		cfg.ConnConfig.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) { noticed.Add(1) }
		cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			if connected.Add(1) != own.Load() {
				return errors.New("the option's function was not called first")
			}
			_, err := conn.Exec(ctx, "set application_name = 'hooked'")
			return err
		}
		cfg.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
			return prepared.Add(1) != 3, nil // the third is thrown away
		}
	}, retrypg.WithAfterConnect(func(context.Context, *pgx.Conn) error { own.Add(1); return nil }))

	var name string
	require.NoError(t, pool.QueryRow(ctx, "select current_setting('application_name')").Scan(&name))
	require.Equal(t, "hooked", name)
	_, err := pool.Exec(ctx, "do $$ begin raise notice 'hello'; end $$")
	require.NoError(t, err)
	require.EqualValues(t, 1, noticed.Load())
	require.EqualValues(t, 1, dialled.Load())
	require.NoError(t, pool.Ping(ctx))
	require.EqualValues(t, 2, dialled.Load(), "PrepareConn said no to the connection")
	require.EqualValues(t, 4, prepared.Load())
	_, err = pool.Exec(ctx, "select 1/0")
	require.Equal(t, "22012", retrypg.SQLState(err))
	require.EqualValues(t, 1, errorsSeen.Load())
	require.NoError(t, pool.Ping(ctx))
	require.EqualValues(t, 3, dialled.Load(), "OnPgError closed the connection")
	require.EqualValues(t, 3, connected.Load())
}

func TestBeforeAcquireIsKept(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	calls := 0
	pool := configured(t, through(p, d), func(cfg *pgxpool.Config) {
		//nolint:staticcheck // deprecated, and still in use
		cfg.BeforeAcquire = func(context.Context, *pgx.Conn) bool { calls++; return calls != 2 }
	})
	for range 2 {
		require.NoError(t, pool.Ping(ctx))
	}
	require.Equal(t, 3, calls)
	require.Equal(t, 2, p.Stats().Opened)
}

func TestPrepareConnCanRefuseTheCaller(t *testing.T) {
	d, p := newProxied(t)
	no := errors.New("no connection for you")
	pool := configured(t, through(p, d), func(cfg *pgxpool.Config) {
		cfg.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) { return true, no }
	})
	require.ErrorIs(t, pool.Ping(within(t)), no)
}

// TestAfterConnectThatFailsIsTheErrorOfConnecting: and is not waited for, as nothing says that waiting helps.
func TestAfterConnectThatFailsIsTheErrorOfConnecting(t *testing.T) {
	d, p := newProxied(t)
	no := errors.New("no connection for you")
	each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
		before := p.Stats().Accepted
		err := connect(within(t), through(p, d), retrypg.WithAfterConnect(func(context.Context, *pgx.Conn) error { return no }))
		harmless(t, err)
		require.ErrorIs(t, err, no)
		require.Equal(t, before+1, p.Stats().Accepted)
	})
}

// TestConfiguredPoolExchangesDeadConnections: which is what its hooks can do.
func TestConfiguredPoolExchangesDeadConnections(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	w := newWatch()
	pool := configured(t, through(p, d), nil, w.option())
	for _, how := range []pgtest.Cut{pgtest.FIN, pgtest.RST} {
		require.NoError(t, pool.Ping(ctx))
		p.CutAll(pgtest.Both, how)
		_, err := pool.Exec(ctx, "select 1")
		require.NoError(t, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Len(t, w.evicted, 2)
}

// TestConfiguredPoolWaitsForItsServer: also when the first attempt has found out that it is away.
func TestConfiguredPoolWaitsForItsServer(t *testing.T) {
	obstacles := map[string]func(*testing.T, *pgtest.Proxy) (end func()){
		"refused": func(t *testing.T, p *pgtest.Proxy) func() {
			require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
			return func() { require.NoError(t, p.SetAccept(pgtest.AcceptForward)) }
		},
		"starting up": func(_ *testing.T, p *pgtest.Proxy) func() {
			rule := p.OnMessages(1_000_000, authentication, refusing("57P03", "the database system is starting up"))
			return rule.Remove
		},
	}
	for name, begin := range obstacles {
		t.Run(name, func(t *testing.T) {
			d, p := newProxied(t)
			ctx := within(t)
			w := newWatch()
			pool := configured(t, through(p, d, "pool_max_conns=4"), nil, w.option())
			end := begin(t, p)
			var callers []<-chan error
			for range 8 {
				callers = append(callers, later(func() error { return pool.Ping(ctx) }))
			}
			require.NoError(t, w.waits(ctx, 5))
			end()
			for _, caller := range callers {
				require.NoError(t, done(t, caller))
			}
			require.Len(t, w.downs, 1)
			require.NoError(t, pool.Ping(ctx))
		})
	}
}

func TestConfiguredPoolTellsAtOnceWhatWaitingCannotHeal(t *testing.T) {
	c := guarded(t)
	w := newWatch()
	pool := configured(t, c.DSN("user=app", "password="+password), nil, w.option())
	_, err := pool.Acquire(within(t))
	harmless(t, err)
	require.Equal(t, "28P01", retrypg.SQLState(err))
	require.Zero(t, w.counts())
}

func TestCallersOfAConfiguredPoolWaitNoLongerThanTheyWant(t *testing.T) {
	d, p := newProxied(t)
	pool := configured(t, through(p, d, "retry_connect_max_elapsed=1h"), nil)
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := pool.Acquire(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	closed := later(func() error { pool.Close(); return nil })
	require.NoError(t, done(t, closed), "and nothing of theirs keeps it open")
}

// TestAConfiguredPoolCancelsStatements: a request to cancel is no attempt to connect.
func TestAConfiguredPoolCancelsStatements(t *testing.T) {
	d := newDatabase(t)
	pool := configured(t, d.DSN(), func(cfg *pgxpool.Config) {
		cfg.ConnConfig.BuildContextWatcherHandler = func(pc *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.CancelRequestContextWatcherHandler{Conn: pc, DeadlineDelay: limit}
		}
	})
	require.NoError(t, pool.Ping(within(t)))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := pool.Exec(ctx, "select pg_sleep(60)")
	require.Equal(t, "57014", retrypg.SQLState(err), "%v", err)
}

func TestConfigurePoolTakesOurKeysOut(t *testing.T) {
	d, p := newProxied(t)
	dsn := through(p, d, "retry_max_attempts=3", "tcp_user_timeout=5s", "application_name=shop")
	cfg, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	require.NoError(t, retrypg.ConfigurePool(cfg))
	require.Equal(t, map[string]string{"application_name": "shop"}, cfg.ConnConfig.RuntimeParams)
	require.NoError(t, configured(t, dsn, nil).Ping(within(t)))

	cfg, err = pgxpool.ParseConfig(through(p, d, "retry_max_atempts=3"))
	require.NoError(t, err)
	err = retrypg.ConfigurePool(cfg)
	harmless(t, err)
	require.ErrorContains(t, err, "retry_max_attempts")
	require.Error(t, retrypg.ConfigurePool(nil))
	require.Error(t, retrypg.ConfigurePool(&pgxpool.Config{}))
}
