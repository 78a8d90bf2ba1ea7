package retrypg

import (
	"context"
	"database/sql/driver"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest/script"
	"github.com/retrypg/retrypg/policy"
)

func TestWaitReadyIsNotEndedByTheBreakerOfItsSettings(t *testing.T) {
	for name, with := range map[string]struct {
		keys string
		opts []Option
	}{
		"DSN":    {keys: "&breaker_failures=5"},
		"option": {opts: []Option{WithBreaker(breaker.Options{})}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := script.New(then(script.Times(20, script.Refused()))...)
				t.Cleanup(s.Close)
				require.NoError(t, WaitReady(t.Context(), scriptedDSN+with.keys, append(with.opts, onScript(s))...))
				require.Len(t, s.Attempts(), 21)
			})
		})
	}
}

// TestWaitReadyDBOutlastsTheBreakerOfItsHandle: while it is open nothing is sent, and the wait goes on.
func TestWaitReadyDBOutlastsTheBreakerOfItsHandle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const openFor = 20 * time.Second
		s := script.New(then(script.Times(5, script.Refused()))...)
		db := scripted(t, s, WithBreaker(breaker.Options{Failures: 5, OpenFor: openFor}))
		start := time.Now()
		var states []string
		require.NoError(t, WaitReadyDB(t.Context(), db, WithReadyProgress(func(e ReadyEvent) { states = append(states, e.State) })))
		require.Equal(t, []string{"circuit breaker open", "ready"}, states)
		require.Len(t, s.Attempts(), 6)
		require.GreaterOrEqual(t, time.Since(start), openFor)
	})
}

// mute pings without an answer until the server is back, as a connection does whose server was stopped.
type mute struct {
	back  time.Time
	pings int
}

func (p *mute) Ping(ctx context.Context) error {
	p.pings++
	wait := time.NewTimer(time.Until(p.back))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *mute) PingContext(ctx context.Context) error { return p.Ping(ctx) }

// silentWaits are the waits on handles that are open already.
var silentWaits = map[string]func(ctx context.Context, p *mute, opts ...Option) error{
	"WaitReadyDB": func(ctx context.Context, p *mute, opts ...Option) error { return WaitReadyDB(ctx, p, opts...) },
	"WaitReadyPool": func(ctx context.Context, p *mute, opts ...Option) error {
		return WaitReadyPool(ctx, p, opts...)
	},
}

func TestSilentServerIsWaitedForLongerThanOnePingMayTake(t *testing.T) {
	for name, wait := range silentWaits {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				server := &mute{back: start.Add(42 * time.Second)}
				var states []string
				require.NoError(t, wait(within(t, time.Minute), server, WithReadyProgress(func(e ReadyEvent) { states = append(states, e.State) })))
				require.Equal(t, []string{"no answer", "ready"}, states)
				require.GreaterOrEqual(t, time.Since(start), 42*time.Second)
				require.Greater(t, server.pings, 7)
			})
		})
	}
}

func TestSilentServerEndsTheWaitByItsBound(t *testing.T) {
	for name, wait := range silentWaits {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				never := &mute{back: start.Add(time.Hour)}
				err := wait(within(t, 12*time.Second), never)
				require.Equal(t, policy.StopDeadline, requireExhausted(t, err).Reason)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorIs(t, err, errNoAnswer)
				require.LessOrEqual(t, time.Since(start), 12*time.Second)

				start = time.Now()
				err = wait(t.Context(), never, WithConnectMaxElapsed(8*time.Second))
				require.Equal(t, policy.StopMaxElapsed, requireExhausted(t, err).Reason)
				require.LessOrEqual(t, time.Since(start), 8*time.Second)
			})
		})
	}
}

// TestErrBadConnOfAHookIsWaitedForOnce: database/sql starts over, twice, for an error that matches driver.ErrBadConn.
func TestErrBadConnOfAHookIsWaitedForOnce(t *testing.T) {
	refuse := func(context.Context, *pgx.Conn) error { return driver.ErrBadConn }
	for name, hook := range map[string]Option{
		"AfterConnect":  WithAfterConnect(refuse),
		"BeforeConnect": WithBeforeConnect(func(context.Context, *pgx.ConnConfig) error { return driver.ErrBadConn }),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := script.New(script.Accept(nil))
				db := scripted(t, s, hook, WithConnectMaxElapsed(3*time.Second))
				start := time.Now()
				err := db.PingContext(endless)
				require.Error(t, err)
				require.NotErrorIs(t, err, driver.ErrBadConn)
				require.LessOrEqual(t, time.Since(start), 3*time.Second)
			})
		})
	}
}
