package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest/script"
	"github.com/retrypg/retrypg/policy"
)

var startingUp = script.Fatal("57P03", "the database system is starting up")

// then returns conversations that are talks, followed by a server that lets everybody in.
func then(talks []script.Conversation) []script.Conversation {
	return append(talks, script.Accept(nil))
}

// away is a dial function in front of s that refuses until the bubble is back old.
func away(s *script.Server, back time.Duration) Option {
	start := time.Now()
	return WithConnConfig(func(cfg *pgx.ConnConfig) error {
		cfg.LookupFunc = script.Lookup
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if time.Since(start) < back {
				return script.New(script.Refused()).Dial(ctx, network, addr)
			}
			return s.Dial(ctx, network, addr)
		}
		return nil
	})
}

func TestConnectTriesAServerThatStartsUpUntilItIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(then(script.Times(9, startingUp))...)
		var hook waits
		c := scriptedConnector(t, s, WithHooks(Hooks{Backoff: hook.hook}))
		conn, err := c.Connect(t.Context())
		require.NoError(t, err)
		require.NoError(t, conn.Close())

		at := s.Attempts()
		require.Len(t, at, 10)
		ceiling := probeInitialDelay
		told := hook.all()
		require.Len(t, told, 9)
		for i := range 9 {
			gap := at[i+1].Sub(at[i])
			require.GreaterOrEqual(t, gap, ceiling/2, "wait %d", i+1)
			require.LessOrEqual(t, gap, ceiling, "wait %d", i+1)
			require.Equal(t, gap, told[i].Wait)
			require.Equal(t, "connect", told[i].Operation)
			require.Equal(t, i+1, told[i].Attempt)
			require.Equal(t, "57P03", told[i].Class.SQLState)
			ceiling = min(2*ceiling, probeMaxDelay)
		}
	})
}

func TestConnectReturnsWhatWaitingCannotHealAtOnceAsItIs(t *testing.T) {
	for _, tt := range []struct{ code, message string }{
		{"28P01", "password authentication failed for user"},
		{"28000", "no pg_hba.conf entry"},
		{"3D000", "database does not exist"},
		{"42501", "permission denied for database"},
	} {
		t.Run(tt.code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := script.New(script.Fatal(tt.code, tt.message))
				c := scriptedConnector(t, s)
				start := time.Now()
				_, err := c.Connect(t.Context())
				require.Zero(t, time.Since(start))
				require.Len(t, s.Attempts(), 1)
				requireNotExhausted(t, err)
				require.Equal(t, tt.code, SQLState(err))
				require.NotErrorIs(t, err, driver.ErrBadConn)
				require.NotContains(t, err.Error(), "s3cr3t-pass")
				var connectErr *pgconn.ConnectError
				require.ErrorAs(t, err, &connectErr)
			})
		})
	}
}

func TestConnectGivesUpByItsDeadlineAndTellsWhatTheServerSaid(t *testing.T) {
	for name, talk := range map[string]script.Conversation{
		"starting up": startingUp, "refused": script.Refused(), "packets dropped": script.DialHangs(),
		"silent": script.Silent(), "closes": script.Closes(), "full": script.Fatal("53300", "too many clients already"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := script.New(talk)
				c := scriptedConnector(t, s)
				start := time.Now()
				_, err := c.Connect(within(t, 12*time.Second))
				took := time.Since(start)
				require.LessOrEqual(t, took, 12*time.Second)
				require.Greater(t, took, 12*time.Second-probeOldMaxDelay)
				e := requireExhausted(t, err)
				require.Equal(t, policy.StopDeadline, e.Reason)
				require.Equal(t, "connect", e.Op)
				if name != "packets dropped" { // of which each attempt sends more than one
					require.Len(t, s.Attempts(), e.Attempts)
				}
				require.Greater(t, e.Attempts, 1)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, driver.ErrBadConn)
				var connectErr *pgconn.ConnectError
				require.ErrorAs(t, err, &connectErr, "what the server said, not only that time is over")
				require.NotContains(t, err.Error(), "s3cr3t-pass")
				require.Regexp(t, `^connect: gave up after \d+ attempts in \S+ \(deadline\): `, err.Error())
			})
		})
	}
}

func TestConnectWithoutADeadlineIsBoundedByItsSetting(t *testing.T) {
	for name, talk := range map[string]script.Conversation{
		"starting up": startingUp, "packets dropped": script.DialHangs(), "silent": script.Silent(),
	} {
		for _, limit := range []time.Duration{0, 3 * time.Second} {
			t.Run(name+" "+limit.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := scriptedConnector(t, script.New(talk), WithConnectMaxElapsed(limit))
					start := time.Now()
					_, err := c.Connect(t.Context())
					want := orDefault(limit, DefaultConnectMaxElapsed)
					require.LessOrEqual(t, time.Since(start), want)
					require.Greater(t, time.Since(start), want-probeOldMaxDelay)
					require.Equal(t, policy.StopMaxElapsed, requireExhausted(t, err).Reason)
				})
			})
		}
	}
}

func TestConnectWithoutADeadlineDoesNotHangInAfterConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scriptedConnector(t, script.New(), WithConnectMaxElapsed(3*time.Second),
			WithAfterConnect(func(ctx context.Context, _ *pgx.Conn) error {
				<-ctx.Done()
				return ctx.Err()
			}))
		start := time.Now()
		_, err := c.Connect(t.Context())
		require.Error(t, err)
		require.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestTheErrorOfAfterConnectDecidesLikeAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		final := errors.New("no such type")
		s := script.New()
		n := 0
		c := scriptedConnector(t, s, WithAfterConnect(func(context.Context, *pgx.Conn) error {
			if n++; n < 3 {
				return &pgconn.PgError{Severity: "FATAL", Code: "57P01", Message: "terminating connection", Routine: "ProcessInterrupts"}
			}
			return final
		}))
		_, err := c.Connect(t.Context())
		require.ErrorIs(t, err, final)
		require.Equal(t, 3, n)
	})
}

// closeCounter is a connection that tells when it is closed.
type closeCounter struct {
	net.Conn
	open *atomic.Int32
	once sync.Once
}

func (c *closeCounter) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// countOpen counts the connections that are open.
func countOpen(s *script.Server, open *atomic.Int32) Option {
	return WithConnConfig(func(cfg *pgx.ConnConfig) error {
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := s.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			open.Add(1)
			return &closeCounter{Conn: conn, open: open}, nil
		}
		return nil
	})
}

func TestAConnectionThatAfterConnectRefusesIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int32
		s := script.New()
		c := scriptedConnector(t, s, countOpen(s, &open), WithAfterConnect(func(context.Context, *pgx.Conn) error {
			return errors.New("not this one")
		}))
		_, err := c.Connect(t.Context())
		require.ErrorContains(t, err, "not this one")
		synctest.Wait()
		require.Zero(t, open.Load())
	})
}

// database/sql opens the connections of callers that wait for a free place on one goroutine, one after the other.
func TestWaitersOfDatabaseSQLAreAllServedRightAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const back = 10 * time.Second
		s := script.New()
		start := time.Now()
		refuse := false
		c := scriptedConnector(t, s, WithConnConfig(func(cfg *pgx.ConnConfig) error {
			cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if refuse && time.Since(start) < back {
					return script.New(script.Refused()).Dial(ctx, network, addr)
				}
				return s.Dial(ctx, network, addr)
			}
			return nil
		}))
		db := sql.OpenDB(c)
		defer db.Close()
		db.SetMaxOpenConns(3)
		var held []*sql.Conn
		for range 3 {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			held = append(held, conn)
		}
		var waiters sync.WaitGroup
		for range 3 {
			waiters.Go(func() {
				conn, err := db.Conn(t.Context())
				require.NoError(t, err)
				took := time.Since(start)
				require.GreaterOrEqual(t, took, back)
				require.LessOrEqual(t, took, back+probeMaxDelay)
				require.NoError(t, conn.Close())
			})
		}
		synctest.Wait()
		refuse = true
		s.Drop()
		for _, conn := range held {
			_, err := conn.ExecContext(t.Context(), "insert into t values (1)")
			require.Error(t, err)
			_ = conn.Close() // it is broken, and gives its place to a waiter
		}
		waiters.Wait()
	})
}

func TestManyCallersMakeOneAttemptAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New()
		var mu sync.Mutex
		attempts, inFlight, most := 0, 0, 0
		start := time.Now()
		c := scriptedConnector(t, s, WithConnConfig(func(cfg *pgx.ConnConfig) error {
			cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if time.Since(start) > 5*time.Second {
					return s.Dial(ctx, network, addr)
				}
				mu.Lock()
				attempts++
				inFlight++
				if attempts > 200 { // those that started before anybody knew
					most = max(most, inFlight)
				}
				mu.Unlock()
				time.Sleep(3 * time.Millisecond)
				mu.Lock()
				inFlight--
				mu.Unlock()
				return script.New(script.Refused()).Dial(ctx, network, addr)
			}
			return nil
		}))
		var calls sync.WaitGroup
		for range 200 {
			calls.Go(func() {
				conn, err := c.Connect(within(t, time.Minute))
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(start), 5*time.Second+2*probeMaxDelay)
				require.NoError(t, conn.Close())
			})
		}
		calls.Wait()
		require.Equal(t, 1, most)
		require.Less(t, attempts, 200+5*20, "twenty a second")
	})
}

func TestCloseEndsTheWaitsOfConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scriptedConnector(t, script.New(script.Refused()))
		var calls sync.WaitGroup
		start := time.Now()
		for range 5 {
			calls.Go(func() {
				_, err := c.Connect(t.Context())
				require.ErrorIs(t, err, ErrClosed)
				require.Equal(t, time.Second, time.Since(start))
			})
		}
		time.Sleep(time.Second)
		require.NoError(t, c.Close())
		calls.Wait()
		_, err := c.Connect(t.Context())
		require.ErrorIs(t, err, ErrClosed)
		require.NoError(t, c.Close(), "idempotent")
	})
}

func TestTheHooksTellOfAnOutageOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var downs []error
		var ups []time.Duration
		s := script.New()
		t.Cleanup(s.Close)
		c, err := NewConnector(scriptedDSN, away(s, 2*time.Second), WithHooks(Hooks{
			ServerDown: func(err error) { downs = append(downs, err) },
			ServerUp: func(after time.Duration, attempts int) {
				ups = append(ups, after)
				require.Greater(t, attempts, 2)
			},
		}))
		require.NoError(t, err)
		defer c.Close()
		conn, err := c.Connect(t.Context())
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.Len(t, downs, 1)
		require.Equal(t, RetryWait, Classify(downs[0]).Retry)
		require.Len(t, ups, 1)
		require.GreaterOrEqual(t, ups[0], 2*time.Second)
	})
}

func TestAnOpenBreakerRefusesConnectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Refused())
		c := scriptedConnector(t, s, WithBreaker(breaker.Options{Failures: 3, OpenFor: time.Minute}))
		_, err := c.Connect(t.Context())
		require.ErrorIs(t, err, breaker.ErrOpen)
		require.Len(t, s.Attempts(), 3)
		start := time.Now()
		_, err = c.Connect(t.Context())
		require.ErrorIs(t, err, breaker.ErrOpen)
		require.LessOrEqual(t, time.Since(start), probeMaxDelay)
		require.Len(t, s.Attempts(), 3)
		require.NotErrorIs(t, err, driver.ErrBadConn)
	})
}

// TestAPanicOfAHookAtTheReturnOfTheServerLeavesNoConnectionBehind: the connection that showed it has been made by then.
func TestAPanicOfAHookAtTheReturnOfTheServerLeavesNoConnectionBehind(t *testing.T) {
	bomb := WithHooks(Hooks{ServerUp: func(time.Duration, int) { panic("boom") }})
	t.Run("Connect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var made []*pgx.Conn
			c := scriptedConnector(t, script.New(startingUp, script.Accept(nil)), bomb, WithAfterConnect(func(_ context.Context, conn *pgx.Conn) error {
				made = append(made, conn)
				return nil
			}))
			require.PanicsWithValue(t, "boom", func() { _, _ = c.Connect(t.Context()) })
			require.Len(t, made, 1)
			require.True(t, made[0].IsClosed())
		})
	})
	t.Run("Pool", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pool := scriptedPool(t, script.New(startingUp, script.Accept(nil)), bomb)
			require.PanicsWithValue(t, "boom", func() { _, _ = pool.Acquire(t.Context()) })
			require.Zero(t, pool.Stat().AcquiredConns())
			require.NoError(t, pool.Ping(t.Context()))
		})
	})
}
