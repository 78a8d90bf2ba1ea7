package connect_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// rotating is a password that changes on the server: its current value is that which works.
type rotating struct {
	cluster *pgtest.Cluster
	mu      sync.Mutex
	current string
	asked   int
}

func (r *rotating) rotate(t *testing.T, to string) {
	t.Helper()
	require.NoError(t, r.cluster.Exec(within(t), "alter role app password '"+to+"'"))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = to
}

func (r *rotating) option() retrypg.Option {
	return retrypg.WithBeforeConnect(func(_ context.Context, cfg *pgx.ConnConfig) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked++
		cfg.Password = r.current
		return nil
	})
}

func (r *rotating) times() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// TestBeforeConnectGivesEachAttemptThePasswordOfItsTime: that of the DSN is long out of date.
func TestBeforeConnectGivesEachAttemptThePasswordOfItsTime(t *testing.T) {
	c := guarded(t)
	each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
		p := pgt.Proxy(t, c.Addr())
		token := &rotating{cluster: c}
		for i, word := range []string{"first", "second"} {
			token.rotate(t, word)
			require.NoError(t, connect(within(t), p.DSN("user=app", "password="+password), token.option()))
			require.Equal(t, i+1, token.times())
		}
	})
}

// TestHandleThatIsOpenAsksForThePasswordOfEachNewConnection: database/sql and the pool, after their first connections are gone.
func TestHandleThatIsOpenAsksForThePasswordOfEachNewConnection(t *testing.T) {
	c := guarded(t)
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, c.Addr())
			token := &rotating{cluster: c}
			token.rotate(t, "first")
			ping, _ := handle(t, p.DSN("user=app", "password="+password), "1", token.option())
			require.NoError(t, ping(within(t)))
			require.NoError(t, ping(within(t)))
			require.Equal(t, 1, token.times(), "asked without a need")
			token.rotate(t, "second")
			p.CutAll(pgtest.Both, pgtest.FIN)
			require.NoError(t, ping(within(t)))
			require.Equal(t, 2, token.times())
		})
	}
}

// TestErrorOfBeforeConnectIsClassifiedLikeAnyOther: what waiting heals is waited for, all else comes back at once.
func TestErrorOfBeforeConnectIsClassifiedLikeAnyOther(t *testing.T) {
	d := newDatabase(t)
	no := errors.New("no token for you")
	each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
		p := pgt.Proxy(t, d.Cluster.Addr())
		calls := 0
		fail := func(n int, with error) retrypg.Option {
			calls = 0
			return retrypg.WithBeforeConnect(func(context.Context, *pgx.ConnConfig) error {
				if calls++; calls <= n {
					return with
				}
				return nil
			})
		}
		err := connect(within(t), through(p, d), fail(1, no))
		harmless(t, err)
		require.ErrorIs(t, err, no)
		require.Equal(t, 1, calls)
		require.Zero(t, p.Stats().Accepted)

		lost := &net.OpError{Op: "dial", Net: "tcp", Err: io.ErrUnexpectedEOF} // the service that gives tokens was not reached
		require.NoError(t, connect(within(t), through(p, d), fail(2, lost)))
		require.Equal(t, 3, calls)
		require.Equal(t, 1, p.Stats().Accepted)
	})
}

// TestPoolWithConfigKeepsTheHooksOfItsConfiguration: each is called, and what it says counts.
func TestPoolWithConfigKeepsTheHooksOfItsConfiguration(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	cfg, err := pgxpool.ParseConfig(through(p, d, "retry_max_attempts=3", "application_name=shop"))
	require.NoError(t, err)
	cfg.MaxConns = 1
	var mu sync.Mutex
	var order []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, what)
	}
	var prepared atomic.Int64
	cfg.ConnConfig.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) { note("notice") }
	cfg.BeforeConnect = func(_ context.Context, attempt *pgx.ConnConfig) error {
		note("before of the configuration")
		require.Equal(t, "shop2", attempt.RuntimeParams["application_name"], "the option's function comes first")
		return nil
	}
	cfg.AfterConnect = func(context.Context, *pgx.Conn) error { note("after of the configuration"); return nil }
	cfg.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
		return prepared.Add(1) != 2, nil // the second is thrown away
	}
	cfg.AfterRelease = func(*pgx.Conn) bool { note("release"); return true }
	cfg.BeforeClose = func(*pgx.Conn) { note("close") }
	pool, err := retrypg.NewPoolWithConfig(ctx, cfg,
		retrypg.WithBeforeConnect(func(_ context.Context, attempt *pgx.ConnConfig) error {
			note("before of the option")
			attempt.RuntimeParams = map[string]string{"application_name": "shop2"}
			return nil
		}),
		retrypg.WithAfterConnect(func(context.Context, *pgx.Conn) error { note("after of the option"); return nil }))
	require.NoError(t, err)
	defer pool.Close()
	require.Equal(t, map[string]string{"application_name": "shop"}, cfg.ConnConfig.RuntimeParams, "our keys are taken out")

	var name string
	require.NoError(t, pool.QueryRow(ctx, "select current_setting('application_name')").Scan(&name))
	require.Equal(t, "shop2", name)
	_, err = pool.Exec(ctx, "do $$ begin raise notice 'hello'; end $$")
	require.NoError(t, err)
	pool.Close()
	connecting := []string{"before of the option", "before of the configuration", "after of the option", "after of the configuration"}
	var got []string // releases and closes happen on goroutines of the pool
	counts := map[string]int{}
	for _, what := range order {
		if counts[what]++; slices.Contains(connecting, what) {
			got = append(got, what)
		}
	}
	require.Equal(t, slices.Concat(connecting, connecting), got, "PrepareConn threw the first connection away")
	require.Equal(t, 1, counts["notice"])
	require.Equal(t, 2, counts["release"])
	require.Equal(t, 2, counts["close"])
}

// TestPoolWithConfigTakesOurKeysAndWaits: it is a pool of NewPool in all but where its configuration comes from.
func TestPoolWithConfigTakesOurKeysAndWaits(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	w := newWatch()
	cfg, err := pgxpool.ParseConfig(through(p, d, "retry_max_attempts=2", "breaker_failures=1000"))
	require.NoError(t, err)
	pool, err := retrypg.NewPoolWithConfig(ctx, cfg, w.option())
	require.NoError(t, err)
	defer pool.Close()
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	waiting := later(func() error { return pool.Ping(ctx) })
	require.NoError(t, w.waits(ctx, 3))
	require.NoError(t, p.SetAccept(pgtest.AcceptForward))
	require.NoError(t, done(t, waiting))

	runs := 0
	err = retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		runs++
		_, err := tx.Exec(ctx, "do $$ begin raise sqlstate '40001'; end $$")
		return err
	})
	require.Equal(t, 2, exhausted(t, err).Attempts)
	require.Equal(t, 2, runs, "retry_max_attempts of the configuration")

	cfg, err = pgxpool.ParseConfig(through(p, d, "retry_max_atempts=3"))
	require.NoError(t, err)
	_, err = retrypg.NewPoolWithConfig(ctx, cfg)
	harmless(t, err)
	require.ErrorContains(t, err, "retry_max_attempts")
	for _, cfg := range []*pgxpool.Config{nil, {}} {
		_, err = retrypg.NewPoolWithConfig(ctx, cfg)
		require.Error(t, err)
	}
}

// TestBreakerHookIsToldEachChange: that of the DSN's breaker, and beside a breaker's own function.
func TestBreakerHookIsToldEachChange(t *testing.T) {
	d := newDatabase(t)
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			for _, own := range []bool{false, true} {
				p := pgt.Proxy(t, d.Cluster.Addr())
				ctx := within(t)
				var mu sync.Mutex
				var hooked, told []string
				note := func(list *[]string) func(from, to breaker.State) {
					return func(from, to breaker.State) {
						mu.Lock()
						defer mu.Unlock()
						*list = append(*list, fmt.Sprint(from, " to ", to))
					}
				}
				opts := []retrypg.Option{retrypg.WithHooks(retrypg.Hooks{Breaker: note(&hooked)})}
				keys := breakerKeys
				if own {
					opts = append(opts, retrypg.WithBreaker(breaker.Options{Failures: 3, OpenFor: 300 * time.Millisecond, OnStateChange: note(&told)}))
					keys = nil
				}
				ping, _ := handle(t, through(p, d, keys...), "1", opts...)
				require.NoError(t, p.SetAccept(pgtest.AcceptReset))
				_ = refused(t, ping(ctx))
				require.NoError(t, p.SetAccept(pgtest.AcceptForward))
				for err := ping(ctx); err != nil; err = ping(ctx) {
					<-time.After(refused(t, err).RetryAfter())
				}
				require.Equal(t, "closed to open", hooked[0])
				require.Equal(t, "half-open to closed", hooked[len(hooked)-1])
				if own {
					require.Equal(t, hooked, told)
				}
			}
		})
	}
}

// TestWithoutBreakerWinsOverTheDSN: options do, and of two options the later.
func TestWithoutBreakerWinsOverTheDSN(t *testing.T) {
	d := newDatabase(t)
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			ctx := within(t)
			w := newWatch()
			ping, _ := handle(t, through(p, d, "breaker_failures=1", "breaker_open_for=1h"), "1", w.option(),
				retrypg.WithBreaker(breaker.Options{Failures: 1, OpenFor: time.Hour}), retrypg.WithoutBreaker())
			require.NoError(t, p.SetAccept(pgtest.AcceptReset))
			waiting := later(func() error { return ping(ctx) })
			require.NoError(t, w.waits(ctx, 5))
			require.NoError(t, p.SetAccept(pgtest.AcceptForward))
			require.NoError(t, done(t, waiting))
		})
	}
}

// TestTelemetryAttributesAreOnEveryMetricAndSpan: of ours and of otelsql. Spans of attempts have theirs from the operation
// that they are in.
func TestTelemetryAttributesAreOnEveryMetricAndSpan(t *testing.T) {
	d, p := newProxied(t)
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			m, r := newMeter(t), newTracer(t)
			p.OnMessages(2, authentication, refusing("57P03", "the database system is starting up"))
			ping, _ := handle(t, through(p, d, "breaker_failures=9"), "1", m.option(), r.option(),
				retrypg.WithTelemetryAttributes(attribute.String("shop.role", "replica")),
				retrypg.WithTelemetryAttributes(attribute.Int("shop.shard", 7), attribute.String("db.system.name", "other")))
			tree := r.trace(t, func(ctx context.Context) { require.NoError(t, ping(ctx)) })
			eachSpan(tree, func(n *node) {
				if n.Name() == "caller" || n.Name() == "retrypg.attempt" {
					return
				}
				got := values(n.Attributes())
				require.Equal(t, "replica", got["shop.role"], n.Name())
				require.Equal(t, "7", got["shop.shard"], n.Name())
			})
			var all metricdata.ResourceMetrics
			require.NoError(t, m.reader.Collect(t.Context(), &all))
			names := 0
			for _, scope := range all.ScopeMetrics {
				if scope.Scope.Name != "github.com/retrypg/retrypg" {
					continue
				}
				for _, metric := range scope.Metrics {
					names++
					for _, pt := range m.read(t, metric.Name) { // which requires that db.system.name is postgresql
						require.Equal(t, "replica", pt.attributes["shop.role"], metric.Name)
						require.Equal(t, "7", pt.attributes["shop.shard"], metric.Name)
					}
				}
			}
			require.GreaterOrEqual(t, names, 6, "budget, breaker, attempts, successes, backoff, duration")
		})
	}
}

func eachSpan(n *node, f func(*node)) {
	f(n)
	for _, c := range n.children {
		eachSpan(c, f)
	}
}

// TestBusyPoolWaitsForItsConnectionAndDoesNotConnect: a full pool has no use for another connection.
func TestBusyPoolWaitsForItsConnectionAndDoesNotConnect(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	w := newWatch()
	asked := 0
	pool := newPool(t, through(p, d, "pool_max_conns=1"), w.option(),
		retrypg.WithBeforeConnect(func(context.Context, *pgx.ConnConfig) error { asked++; return nil }))
	busy, err := pool.Acquire(ctx)
	require.NoError(t, err)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = pool.Acquire(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	waiting := later(func() error { return pool.Ping(ctx) })
	pid := busy.Conn().PgConn().PID()
	busy.Release()
	require.NoError(t, done(t, waiting))
	next, err := pool.Acquire(ctx)
	require.NoError(t, err)
	defer next.Release()
	require.Equal(t, pid, next.Conn().PgConn().PID())
	require.Equal(t, 1, asked)
	require.Equal(t, 1, p.Stats().Accepted)
	require.Zero(t, w.counts(), "it was waited for the server")
}

// TestAfterConnectThatFailsWithErrBadConnDoesNotMakeDatabaseSQLStartOver: each start would last as long as the first.
func TestAfterConnectThatFailsWithErrBadConnDoesNotMakeDatabaseSQLStartOver(t *testing.T) {
	d, p := newProxied(t)
	m := newMeter(t)
	db := open(t, through(p, d), retrypg.WithConnectMaxElapsed(100*time.Millisecond), m.option(),
		retrypg.WithAfterConnect(func(context.Context, *pgx.Conn) error { return driver.ErrBadConn }))
	_ = exhausted(t, db.PingContext(context.WithoutCancel(t.Context())))
	require.EqualValues(t, 1, m.value(t, "retry.failures", "retry.operation", "connect", "retry.stop_reason", "max_elapsed"),
		"%v", m.read(t, "retry.failures"))
}
