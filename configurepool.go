package retrypg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// poolSettings takes our keys out of a pool's configuration.
func poolSettings(cfg *pgxpool.Config) (s settings, err error) {
	if cfg == nil || cfg.ConnConfig == nil {
		return s, errors.New("retrypg: a pool needs a configuration made by pgxpool.ParseConfig, got nil")
	}
	return s, takeKeysHiding(cfg.ConnConfig.RuntimeParams, cfg.ConnString(), &s, cfg.ConnConfig.Password)
}

// ConfigurePool prepares the configuration of a pool that the caller makes with pgxpool.NewWithConfig: our dialer with
// its TCP options, a look at each idle connection before it is handed out, waiting for a server that is away, honest evidence for
// WithPgxTx. Hooks that are set in cfg are kept and called. It changes cfg, which must not be used for another pool. Our keys
// are taken out of cfg's RuntimeParams, where pgxpool.ParseConfig leaves them.
//
// What no hook of pgxpool can do is left to NewPool. The Exec, Query and Begin of such a pool are pgxpool's own: they are not
// run again, and a panic of a hook while it looks at an idle connection is an error. pgxpool goes on connecting after a caller has left, so that a place in the pool stays taken for up to
// retry_connect_max_elapsed while the server is away, and nothing but the callers' deadlines ends their wait for a place; Close waits
// up to a minute for the connections of pool_min_conns that are being opened then. A
// server that lets connections in of which each then fails, as by an error of AfterConnect, is not waited for. WithPgxTx runs
// on it with the settings given here, budget, hooks and telemetry included. A circuit breaker is an error.
func ConfigurePool(cfg *pgxpool.Config, opts ...Option) error {
	s, err := poolSettings(cfg)
	if err != nil {
		return err
	}
	core, err := configurePool(cfg, s, opts)
	if err != nil {
		return err
	}
	if core.breaker != nil {
		return errors.New("retrypg: ConfigurePool has no place for a circuit breaker: use NewPool, or leave breaker_* and WithBreaker out")
	}
	core.waitWhereItConnects(cfg)
	return nil
}

func configurePool(cfg *pgxpool.Config, s settings, opts []Option) (*core, error) {
	var hooks connectHooks
	beforeConnect, afterConnect := cfg.BeforeConnect, cfg.AfterConnect
	core, err := configure(cfg.ConnConfig, s, opts, func(s settings) connectHooks {
		hooks = s.connectHooks().and(connectHooks{beforeConnect, afterConnect})
		return hooks
	})
	if err != nil {
		return nil, err
	}
	cfg.BeforeConnect = func(ctx context.Context, attempt *pgx.ConnConfig) error {
		return core.beforeConnect(ctx, attempt, hooks)
	}
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		l := ensureLink(conn.PgConn())
		l.belongs(core)
		if err := core.greet(ctx, conn, l); err != nil {
			return err
		}
		core.connected(l)
		if hooks.after == nil {
			return nil
		}
		return hooks.after(ctx, conn)
	}
	if cfg.ShouldPing == nil {
		cfg.ShouldPing = func(_ context.Context, params pgxpool.ShouldPingParams) bool {
			after := core.tuned.Load().set.pingAfter
			return after != Off && params.IdleDuration > after
		}
	}
	cfg.PingTimeout = orDefault(cfg.PingTimeout, cfg.ConnConfig.ConnectTimeout) // pgxpool's own is none
	prepare, before := cfg.PrepareConn, cfg.BeforeAcquire                       //nolint:staticcheck // deprecated, but users set it: pgxpool calls it only where there is no PrepareConn
	cfg.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (ok bool, err error) {
		defer func() {
			if v := recover(); v != nil { // pgxpool would keep the connection's place for ever
				ok, err = false, &hookPanicError{value: v}
			}
		}()
		switch {
		case !core.usable(ctx, conn):
			return false, nil
		case prepare != nil:
			return prepare(ctx, conn)
		case before != nil:
			return before(ctx, conn), nil
		}
		return true, nil
	}
	return core, nil
}

// hookPanicError is the panic of a hook that ran while an idle connection was looked at.
type hookPanicError struct{ value any }

func (e *hookPanicError) Error() string { return fmt.Sprintf("retrypg: a hook panicked: %v", e.value) }

// usable looks at an idle connection. pgxpool itself has pinged it if it was idle for long.
func (c *core) usable(ctx context.Context, conn *pgx.Conn) bool {
	l := ensureLink(conn.PgConn())
	return !conn.IsClosed() && l.lives(ctx, c, false)
}
