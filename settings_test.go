package retrypg

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/XSAM/otelsql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/policy"
)

const settingsDSN = "postgres://app:s3cr3t-pass@db.invalid:5432/app?sslmode=disable"

// settingsWith returns the settings of a connector.
func settingsWith(t *testing.T, dsn string, opts ...Option) settings {
	t.Helper()
	c, err := NewConnector(dsn, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c.core.set
}

// makers are the ways to use options. None connects before it has looked at them.
var makers = map[string]func(ctx context.Context, opts ...Option) error{
	"NewConnector": func(_ context.Context, opts ...Option) error {
		_, err := NewConnector(settingsDSN, opts...)
		return err
	},
	"OpenDB": func(_ context.Context, opts ...Option) error {
		_, err := OpenDB(settingsDSN, opts...)
		return err
	},
	"NewPool": func(ctx context.Context, opts ...Option) error {
		_, err := NewPool(ctx, settingsDSN, opts...)
		return err
	},
	"ConfigurePool": func(_ context.Context, opts ...Option) error {
		cfg, err := pgxpool.ParseConfig(settingsDSN)
		if err != nil {
			return err
		}
		return ConfigurePool(cfg, opts...)
	},
	"WaitReady":     func(ctx context.Context, opts ...Option) error { return WaitReady(ctx, settingsDSN, opts...) },
	"WaitReadyDB":   func(ctx context.Context, opts ...Option) error { return WaitReadyDB(ctx, never{}, opts...) },
	"WaitReadyPool": func(ctx context.Context, opts ...Option) error { return WaitReadyPool(ctx, never{}, opts...) },
}

// never is a database that must not be asked.
type never struct{}

func (never) PingContext(context.Context) error { panic("pinged") }
func (never) Ping(context.Context) error        { panic("pinged") }

func TestAWrongArgumentOfAnOptionIsAnErrorOfWhateverUsesIt(t *testing.T) {
	for _, tt := range []struct {
		option Option
		want   string
	}{
		{WithMaxAttempts(0), "WithMaxAttempts(0): at least 1 is needed"},
		{WithMaxAttempts(-3), "WithMaxAttempts(-3): at least 1 is needed"},
		{WithMaxElapsed(-time.Second), "max elapsed -1s: a positive duration or Off is needed"},
		{WithBackoff(nil), "WithBackoff(nil): a policy is needed"},
		{WithBackoff(policy.Backoff{}), "zero Backoff"},
		{WithConnectMaxElapsed(-time.Second), "connect max elapsed -1s: a positive duration is needed"},
		{WithConnectMaxElapsed(Off), "connect max elapsed -1ns: a positive duration is needed"},
		{WithBreaker(breaker.Options{Failures: -1}), "failures -1"},
		{WithBreaker(breaker.Options{Failures: breaker.MaxFailures + 1}), "failures 10001"},
		{WithBreaker(breaker.Options{Window: -1}), "window"},
		{WithBreaker(breaker.Options{OpenFor: -1}), "open for"},
		{WithBreaker(breaker.Options{Probes: -1}), "probes"},
		{WithBreaker(breaker.Options{ProbeLease: -1}), "probe lease"},
		{WithContentionControl(ContentionOptions{EscalateAfter: -1}), "WithContentionControl: EscalateAfter -1"},
		{WithBudget(nil), "WithBudget(nil): a budget is needed"},
		{WithTCPUserTimeout(-time.Second), "tcp user timeout -1s: a duration from 1ms to 596h31m23.647s or Off is needed"},
		{WithTCPKeepAlive(-time.Second, 0, 0), "tcp keepalive idle -1s: a duration from 1s to 9h6m7s or Off is needed"},
		{WithTCPKeepAlive(0, -time.Second, 0), "tcp keepalive interval -1s"},
		{WithTCPKeepAlive(0, 0, -1), "count -1"},
		{WithOTelSQLUse(0), "WithOTelSQLUse(0): OTelSQLForSpans, OTelSQLAlways or OTelSQLNever is needed"},
		{WithOTelSQLUse(4), "WithOTelSQLUse(4)"},
	} {
		for name, use := range makers {
			t.Run(name+" "+tt.want, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				var err error
				require.NotPanics(t, func() { err = use(ctx, tt.option) })
				require.ErrorContains(t, err, tt.want)
				require.Regexp(t, "^retrypg: wrong settings: ", err.Error())
				require.NotContains(t, err.Error(), "s3cr3t-pass")
			})
		}
	}
}

func TestAllWrongOptionsAreReportedAtOnce(t *testing.T) {
	_, err := NewConnector(settingsDSN, WithMaxAttempts(0), WithBackoff(nil), WithTCPUserTimeout(-time.Hour))
	require.ErrorContains(t, err, "WithMaxAttempts(0)")
	require.ErrorContains(t, err, "WithBackoff(nil)")
	require.ErrorContains(t, err, "tcp user timeout")
}

func TestNilOptionsAndNilArgumentsAreIgnored(t *testing.T) {
	want := settingsWith(t, settingsDSN)
	got := settingsWith(t, settingsDSN, nil, WithLogger(nil), WithHooks(Hooks{}), WithConnConfig(nil), WithAfterConnect(nil),
		WithReadyProgress(nil), WithMeterProvider(nil), WithTracerProvider(nil), WithOTelSQL(), nil)
	require.Equal(t, want, got)
}

func TestANilOptionOfOTelSQLIsIgnored(t *testing.T) {
	require.NotPanics(t, func() {
		c, err := NewConnector(settingsDSN, WithOTelSQL(nil, otelsql.WithDisableSkipErrMeasurement(true), nil))
		require.NoError(t, err)
		require.NoError(t, c.Close())
	})
}

func TestTheDefaultsAreAsDocumented(t *testing.T) {
	s := settingsWith(t, settingsDSN)
	require.Equal(t, 10, s.maxAttempts)
	require.Zero(t, s.maxElapsed)
	require.Equal(t, 5*time.Millisecond, s.initialDelay)
	require.Equal(t, time.Second, s.maxDelay)
	require.InDelta(t, 2, s.multiplier, 0)
	require.Equal(t, policy.FullJitter, s.jitter)
	require.Nil(t, s.backoff)
	require.Equal(t, time.Minute, s.connectMaxElapsed)
	require.False(t, s.budgetOff)
	require.False(t, s.breakerOn)
	require.Equal(t, 10*time.Second, s.tcpUserTimeout)
	require.Equal(t, 5*time.Second, s.tcpKeepAliveIdle)
	require.Equal(t, 2*time.Second, s.tcpKeepAliveInterval)
	require.Equal(t, 3, s.tcpKeepAliveCount)
	require.False(t, s.telemetryOff)
	require.Equal(t, OTelSQLForSpans, s.otelsqlUse)

	c, err := NewConnector(settingsDSN)
	require.NoError(t, err)
	defer c.Close()
	require.NotNil(t, c.core.budget)
	require.Nil(t, c.core.breaker)
	require.InDelta(t, policy.DefaultBudgetBurst, c.core.budget.Cap(), 0)
}

func TestTheConnectTimeoutIsOursOnlyWhereTheDSNHasNone(t *testing.T) {
	for dsn, want := range map[string]time.Duration{settingsDSN: DefaultConnectTimeout, settingsDSN + "&connect_timeout=2": 2 * time.Second} {
		var cfg *pgx.ConnConfig
		settingsWith(t, dsn, WithConnConfig(func(c *pgx.ConnConfig) error {
			cfg = c
			return nil
		}))
		require.Equal(t, want, cfg.ConnectTimeout)
	}
}

func TestOptionsWinOverTheDSN(t *testing.T) {
	dsn := settingsDSN + "&retry_max_attempts=3&retry_max_elapsed=7s&retry_connect_max_elapsed=9s&retry_budget=off" +
		"&breaker_failures=4&tcp_user_timeout=3000&tcp_keepalive_idle=off&retry_otelsql=always"
	s := settingsWith(t, dsn)
	require.Equal(t, 3, s.maxAttempts)
	require.Equal(t, 7*time.Second, s.maxElapsed)
	require.Equal(t, 9*time.Second, s.connectMaxElapsed)
	require.True(t, s.budgetOff)
	require.Equal(t, 4, s.breaker.Failures)
	require.Equal(t, 3*time.Second, s.tcpUserTimeout)
	require.Equal(t, Off, s.tcpKeepAliveIdle)
	require.Equal(t, OTelSQLAlways, s.otelsqlUse)

	budget := policy.Must(policy.NewBudget(policy.BudgetOptions{}))
	s = settingsWith(t, dsn, WithMaxAttempts(5), WithMaxElapsed(Off), WithConnectMaxElapsed(time.Hour), WithBudget(budget),
		WithBreaker(breaker.Options{Failures: 6}), WithTCPUserTimeout(Off), WithTCPKeepAlive(time.Second, 0, 0),
		WithOTelSQLUse(OTelSQLNever))
	require.Equal(t, OTelSQLNever, s.otelsqlUse)
	require.Equal(t, 5, s.maxAttempts)
	require.Equal(t, Off, s.maxElapsed)
	require.Equal(t, time.Hour, s.connectMaxElapsed)
	require.False(t, s.budgetOff)
	require.Same(t, budget, s.budget)
	require.Equal(t, 6, s.breaker.Failures)
	require.Equal(t, Off, s.tcpUserTimeout)
	require.Equal(t, time.Second, s.tcpKeepAliveIdle)
	require.Equal(t, DefaultTCPKeepAliveInterval, s.tcpKeepAliveInterval)
}

func TestOfTwoOptionsForTheSameThingTheLaterWins(t *testing.T) {
	budget := policy.Must(policy.NewBudget(policy.BudgetOptions{}))
	fixed := policy.Must(policy.Fixed(time.Second, policy.NoJitter))
	linear := policy.Must(policy.Linear(time.Second, time.Second, time.Minute, policy.NoJitter))
	logger := slog.New(slog.DiscardHandler)
	s := settingsWith(t, settingsDSN, WithMaxAttempts(3), WithMaxAttempts(7), WithMaxElapsed(time.Second), WithMaxElapsed(0),
		WithBackoff(fixed), WithBackoff(linear), WithoutBudget(), WithBudget(budget), WithLogger(logger), WithLogger(nil),
		WithHooks(Hooks{ServerDown: func(error) {}}), WithHooks(Hooks{}))
	require.Equal(t, 7, s.maxAttempts)
	require.Zero(t, s.maxElapsed)
	require.Equal(t, linear, s.backoff)
	require.Same(t, budget, s.budget)
	require.False(t, s.budgetOff)
	require.Nil(t, s.logger)
	require.Nil(t, s.hooks.ServerDown)

	s = settingsWith(t, settingsDSN, WithBudget(budget), WithoutBudget())
	require.True(t, s.budgetOff)
	require.Nil(t, s.budget)
}

func TestAWrongOptionIsNotMadeGoodByALaterOne(t *testing.T) {
	_, err := NewConnector(settingsDSN, WithMaxAttempts(0), WithMaxAttempts(3))
	require.ErrorContains(t, err, "WithMaxAttempts(0)")
}

func TestTheExtremesOfOptionsWork(t *testing.T) {
	settingsWith(t, settingsDSN, WithMaxAttempts(maxDSNCount), WithMaxElapsed(math.MaxInt64), WithConnectMaxElapsed(math.MaxInt64),
		WithTCPUserTimeout(maxUserTimeout), WithTCPKeepAlive(maxKeepAliveTime, maxKeepAliveTime, maxKeepAliveCount),
		WithBreaker(breaker.Options{Failures: breaker.MaxFailures, Window: math.MaxInt64, OpenFor: math.MaxInt64}))
	settingsWith(t, settingsDSN, WithMaxAttempts(1), WithMaxElapsed(1), WithConnectMaxElapsed(1),
		WithTCPUserTimeout(time.Millisecond), WithTCPKeepAlive(time.Second, time.Second, 1))
}

func TestWhatNoKernelWouldTakeIsAnErrorBeforeAnythingIsDialled(t *testing.T) {
	for _, o := range []Option{
		WithTCPUserTimeout(time.Microsecond), WithTCPUserTimeout(math.MaxInt64),
		WithTCPKeepAlive(time.Millisecond, 0, 0), WithTCPKeepAlive(100*time.Hour, 0, 0),
		WithTCPKeepAlive(0, 100*time.Hour, 0), WithTCPKeepAlive(0, 0, 1000), WithMaxAttempts(maxDSNCount + 1),
	} {
		_, err := NewConnector(settingsDSN, o)
		require.ErrorContains(t, err, "is needed")
	}
}

func TestAnErrorOfWithConnConfigIsThatOfWhateverUsesIt(t *testing.T) {
	own := errors.New("no certificate")
	for name, use := range makers {
		if name == "WaitReadyDB" || name == "WaitReadyPool" {
			continue // it has no configuration
		}
		t.Run(name, func(t *testing.T) {
			err := use(t.Context(), WithConnConfig(func(*pgx.ConnConfig) error { return own }))
			require.ErrorIs(t, err, own)
			require.ErrorContains(t, err, "WithConnConfig")
		})
	}
}

func TestSeveralWithConnConfigAreAllCalledInOrder(t *testing.T) {
	var calls []int
	note := func(n int) Option {
		return WithConnConfig(func(*pgx.ConnConfig) error {
			calls = append(calls, n)
			return nil
		})
	}
	settingsWith(t, settingsDSN, note(1), note(2), note(3))
	require.Equal(t, []int{1, 2, 3}, calls)
}

func TestAnOptionThatIsUsedTwiceActsTwice(t *testing.T) {
	opts := []Option{WithOTelSQL(otelsql.WithDisableSkipErrMeasurement(true)), WithConnConfig(func(*pgx.ConnConfig) error { return nil })}
	for range 3 { // settings must not grow into each other
		s := settingsWith(t, settingsDSN, opts...)
		require.Len(t, s.otelsql, 1)
		require.Len(t, s.configure, 1)
	}
}

func TestTheDelaysOfTheDSNFitEachOther(t *testing.T) {
	s := settingsWith(t, settingsDSN+"&retry_initial_delay=3s")
	require.Equal(t, 3*time.Second, s.maxDelay, "the default of the longest delay is not shorter than the first")
	s = settingsWith(t, settingsDSN+"&retry_max_delay=2ms")
	require.Equal(t, 2*time.Millisecond, s.initialDelay)
	_, err := NewConnector(settingsDSN + "&retry_initial_delay=3s&retry_max_delay=2s")
	require.ErrorContains(t, err, "retry_initial_delay")
}

func TestANilDatabaseIsAnError(t *testing.T) {
	require.ErrorIs(t, WaitReadyDB(t.Context(), nil), ErrNilDB)
	require.ErrorIs(t, WaitReadyPool(t.Context(), nil), ErrNilDB)
	require.ErrorIs(t, WaitReadyPool(t.Context(), (*pgxpool.Pool)(nil)), ErrNilDB)
	require.Error(t, ConfigurePool(nil))
	require.Error(t, ConfigurePool(&pgxpool.Config{}))
}
