package retrypg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/metrics"
)

// ReadyEvent is a change of state that WaitReady saw.
type ReadyEvent struct {
	// State says in a few words what the server does: "connection refused", "starting up", "too many connections",
	// "ready" and so on. The words are for people and may change.
	State string
	// Class tells the same to programs; the zero Class when Ready.
	Class Class
	// Ready is true in the last event.
	Ready bool
	// Attempts is how many attempts this call made so far, Elapsed the time since the start.
	Attempts int
	Elapsed  time.Duration
	// Err is the error behind State, nil when Ready. It never holds the password.
	Err error
}

// LogValue makes an event readable in slog.
func (e ReadyEvent) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("state", e.State), slog.String("sqlstate", e.Class.SQLState),
		slog.Int("attempts", e.Attempts), slog.Duration("elapsed", e.Elapsed),
	)
}

// WaitReady waits until a server of dsn accepts connections and statements, in the role that target_session_attrs asks
// for. It waits for a server that is not there yet, starts up, recovers, is full, or has another role; it returns at
// once what waiting cannot heal: a wrong password, a missing database, refused or invalid TLS, a wrong DSN. It is
// bounded by ctx and, where that has no deadline, by WithConnectMaxElapsed. WithReadyProgress and WithLogger tell about
// each change of state; while another handle of the process looks for the same server, only of what that finds out in the end. The error after waiting is an *ExhaustedError with the last error of the server.
func WaitReady(ctx context.Context, dsn string, opts ...Option) error {
	pool, s, err := parsePoolDSN(dsn) // a program may give the DSN of its pool, with pool_* keys
	if err != nil {
		return err
	}
	core, err := configure(pool.ConnConfig, s, opts, settings.connectHooks)
	if err != nil {
		return err
	}
	defer core.close()
	return core.waitReady(ctx, func(ctx context.Context) error {
		cfg := pool.ConnConfig.Copy()
		if f := core.set.beforeConnect; f != nil {
			if err := f(ctx, cfg); err != nil {
				return err
			}
		}
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			return err
		}
		defer closeGently(ctx, conn)
		if f := core.set.afterConnect; f != nil {
			if err := f(ctx, conn); err != nil {
				return err
			}
		}
		return conn.Ping(ctx)
	})
}

// PgxPinger is a pool or connection of pgx.
type PgxPinger interface {
	Ping(ctx context.Context) error
}

// Pinger is a database of database/sql.
type Pinger interface {
	PingContext(ctx context.Context) error
}

// WaitReadyDB is WaitReady for a database that is open already, of any driver. It pings until one ping succeeds; each may
// take DefaultConnectTimeout. Of the options, WithConnectMaxElapsed, WithReadyProgress, WithLogger, WithHooks and the
// telemetry have an effect.
func WaitReadyDB(ctx context.Context, db Pinger, opts ...Option) error {
	if isNil(db) {
		return ErrNilDB
	}
	return waitReadyPing(ctx, db.PingContext, opts)
}

// WaitReadyPool is WaitReadyDB for a pool or connection of pgx that is open already.
func WaitReadyPool(ctx context.Context, pool PgxPinger, opts ...Option) error {
	if isNil(pool) {
		return ErrNilDB
	}
	return waitReadyPing(ctx, pool.Ping, opts)
}

// errNoAnswer says that a ping took longer than DefaultConnectTimeout.
var errNoAnswer = errors.New("no answer")

func waitReadyPing(ctx context.Context, ping func(context.Context) error, opts []Option) error {
	s, err := settings{}.with(opts)
	if err != nil {
		return err
	}
	core, err := newCore(s, nil)
	if err != nil {
		return err
	}
	defer core.close()
	return core.waitReady(ctx, func(ctx context.Context) error {
		// A ping through one of our own handles waits by itself; short turns keep the events coming.
		turn, cancel := context.WithTimeout(ctx, DefaultConnectTimeout)
		defer cancel()
		err := ping(turn)
		if err != nil && turn.Err() != nil && !endpoint.Over(ctx) {
			err = fmt.Errorf("%w within %v: %w", errNoAnswer, DefaultConnectTimeout, err)
		}
		return err
	})
}

// waitReady makes attempts until one succeeds or fails for good.
func (c *core) waitReady(ctx context.Context, attempt func(context.Context) error) error {
	c.quiet.Store(true) // readyWatch tells more
	c.heals = func(err error) bool {
		return errors.Is(err, errNoAnswer) || errors.Is(err, breaker.ErrOpen) || healable(err)
	}
	w := readyWatch{core: c, started: time.Now()}
	err := c.reach(ctx, reaching{kind: metrics.OpReady}, func(ctx context.Context) error {
		w.attempts++
		err := attempt(ctx)
		if err == nil || !endpoint.Over(ctx) {
			w.saw(ctx, err)
		}
		return err
	})
	var exhausted *ExhaustedError
	if errors.As(err, &exhausted) {
		exhausted.Op = "wait for the server"
	}
	if err != nil {
		return fmt.Errorf("retrypg: server not ready: %w", err)
	}
	return nil
}

// readyWatch tells about changes of state.
type readyWatch struct {
	core     *core
	started  time.Time
	attempts int
	state    string
}

func (w *readyWatch) saw(ctx context.Context, err error) {
	e := ReadyEvent{State: "ready", Ready: true, Attempts: w.attempts, Elapsed: time.Since(w.started)}
	if err != nil {
		e.Class = Classify(err)
		e.State, e.Ready, e.Err = readyState(e.Class, err), false, err
	}
	if e.State == w.state {
		return
	}
	w.state = e.State
	if l := w.core.set.logger; l != nil {
		l.InfoContext(ctx, "retrypg: waiting for the server", "server", e)
	}
	if f := w.core.set.onReady; f != nil {
		f(e)
	}
}

// readyState describes what a failed attempt says of the server. The words of PostgreSQL are best, and are its own even
// where they are not English.
func readyState(class Class, err error) string {
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr):
		return pgErr.Message
	case errors.Is(err, errNoAnswer):
		return errNoAnswer.Error()
	case errors.Is(err, breaker.ErrOpen):
		return "circuit breaker open"
	}
	if class.Reason != "" {
		return class.Reason
	}
	return "not reachable"
}

// closeGently tells the server that the connection ends.
func closeGently(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // it has served its purpose
}
