package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/retrypg/retrypg/internal/transport"
	"github.com/retrypg/retrypg/metrics"
)

// Connector makes connections for database/sql: pass it to sql.OpenDB. It holds what its connections share: the retry
// budget, the breaker, the knowledge of the servers, the telemetry. It is safe for concurrent use.
type Connector struct {
	core   *core
	driver *Driver
	plain  driver.Connector // makes one attempt: *session
	traced driver.Connector // the same through otelsql; nil: never
}

var (
	_ driver.Connector           = (*Connector)(nil)
	_ interface{ Close() error } = (*Connector)(nil)
)

// NewConnector returns a Connector for a DSN with the keys of the package documentation. It does not connect. The error
// is a *DSNError for a wrong key of ours, and never holds the password.
func NewConnector(dsn string, opts ...Option) (*Connector, error) {
	cfg, s, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	return newConnector(cfg, s, opts)
}

func newConnector(cfg *pgx.ConnConfig, s settings, opts []Option) (*Connector, error) {
	core, err := configure(cfg, s, opts, settings.connectHooks)
	if err != nil {
		return nil, err
	}
	c := &Connector{core: core, driver: &Driver{core: core}}
	hooks := core.set.connectHooks()
	stdOpts := []stdlib.OptionOpenDB{stdlib.OptionBeforeConnect(func(ctx context.Context, attempt *pgx.ConnConfig) error {
		return core.beforeConnect(ctx, attempt, hooks)
	})}
	if f := core.set.afterConnect; f != nil {
		stdOpts = append(stdOpts, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
			err := f(ctx, conn)
			if err != nil {
				closeNow(conn) // pgx's connector leaves it open
			}
			return err
		}))
	}
	c.plain = &attemptConnector{core: core, std: stdlib.GetConnector(*cfg, stdOpts...)}
	if !core.set.telemetryOff && core.set.otelsqlUse != OTelSQLNever {
		if c.traced, err = otelConnector(c.plain, core.set); err != nil {
			_ = core.close() // it was never used
			return nil, fmt.Errorf("retrypg: telemetry: %w", err)
		}
	}
	core.observe()
	return c, nil
}

// beforeConnect prepares cfg, which is a copy, for one attempt to connect.
func (c *core) beforeConnect(ctx context.Context, cfg *pgx.ConnConfig, hooks connectHooks) error {
	if hooks.before != nil {
		if err := hooks.before(ctx, cfg); err != nil {
			return err
		}
	}
	c.addServerSide(&cfg.Config)
	arrange(&cfg.Config, &c.order)
	return nil
}

// configure applies options to settings, makes a core of them, and prepares cfg for it. hooks returns what the core's own
// connections are made with.
func configure(cfg *pgx.ConnConfig, s settings, opts []Option, hooks func(settings) connectHooks) (*core, error) {
	s, err := s.with(opts)
	if err != nil {
		return nil, err
	}
	ours := cfg.DialFunc == nil // parsed from a DSN here: nothing is the user's yet
	if ours {
		cfg.DialFunc, cfg.LookupFunc = transport.Dialer(s.transport(), 0, nil), usualLookup(cfg.LookupFunc)
	}
	dial, lookup := codeOf(cfg.DialFunc), codeOf(cfg.LookupFunc)
	for _, f := range s.configure {
		if err := f(cfg); err != nil {
			return nil, fmt.Errorf("retrypg: WithConnConfig: %w", err)
		}
	}
	core, err := newCore(s, &cfg.Config)
	if err != nil {
		return nil, err
	}
	// A user's own can be told from these two, as both are closures of functions that are not exported.
	plain := ours && dial == codeOf(cfg.DialFunc) && lookup == codeOf(cfg.LookupFunc)
	with := hooks(core.set)
	core.prepareConfig(cfg, with, plain)
	core.dialWith(cfg, primaryDialer(cfg, &core.order, with))
	return core, nil
}

// usualLookup is pgx's own lookup in a form that codeOf tells from a user's *net.Resolver, whose method has the same code.
func usualLookup(lookup pgconn.LookupFunc) pgconn.LookupFunc {
	return func(ctx context.Context, name string) ([]string, error) { return lookup(ctx, name) }
}

// codeOf tells functions apart by their code, which is the same for all closures of one function.
func codeOf(f any) uintptr { return reflect.ValueOf(f).Pointer() }

// OpenDB opens a database handle with options. It is sql.OpenDB(NewConnector(dsn, opts...)); like sql.Open it does not
// connect. Closing the DB closes the connector.
func OpenDB(dsn string, opts ...Option) (*sql.DB, error) {
	c, err := NewConnector(dsn, opts...)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	if err := c.core.observeDB(db); err != nil {
		_ = db.Close() // it was never used
		return nil, err
	}
	return db, nil
}

// Connect implements driver.Connector: it returns one good connection, however many attempts that takes, or an error
// once the context has ended or, for a context without a deadline, after retry_connect_max_elapsed. What waiting cannot
// heal (a wrong password, a missing database, a refused or invalid TLS) comes back at once, as pgx's own error; all
// others, but for ErrClosed and the first error with NoRetry, are an *ExhaustedError with the number of attempts and the last error of the server. It matches
// context.DeadlineExceeded where the deadline was the context's, not where it was retry_connect_max_elapsed. Once a
// circuit breaker is open the error is or wraps a *breaker.OpenError, and nothing is waited for. No error of Connect
// matches driver.ErrBadConn, which would make database/sql start over.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.connect(ctx, true)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// connect is Connect; refusable says that the breaker is asked.
func (c *Connector) connect(ctx context.Context, refusable bool) (conn *Conn, err error) {
	r := reaching{kind: metrics.OpConnect, refusable: refusable, undo: func() {
		if conn != nil {
			closeNow(conn.session.pgx)
		}
	}}
	err = c.core.reach(withoutRecord(ctx), r, func(ctx context.Context) (err error) {
		conn, err = c.attempt(ctx)
		return err
	})
	return conn, err
}

// attempt makes one connection attempt.
func (c *Connector) attempt(ctx context.Context) (*Conn, error) {
	connector := c.plain
	if c.traced != nil && (c.core.set.otelsqlUse == OTelSQLAlways || c.core.rec.Tracing()) {
		connector = c.traced
	}
	made, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	conn := &Conn{connector: c}
	if raw, ok := made.(interface{ Raw() driver.Conn }); ok { // otelsql's
		conn.traced, _ = made.(tracedConn) // should a later otelsql lack a method of it: no spans, but connections
		made = raw.Raw()
	}
	conn.session = made.(*session)
	conn.stdConn = conn.session.stdConn
	return conn, nil
}

// Driver implements driver.Connector.
func (c *Connector) Driver() driver.Driver { return c.driver }

// Close ends the waits of all Connect calls that are still running, with ErrClosed, and unregisters the telemetry. It
// does not close connections: they are database/sql's. Connect returns ErrClosed from then on. sql.DB.Close calls it. It is
// idempotent.
func (c *Connector) Close() error { return c.core.close() }

// attemptConnector makes one attempt to connect.
type attemptConnector struct {
	core *core
	std  driver.Connector
}

func (c *attemptConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.std.Connect(ctx)
	switch {
	case errors.Is(err, driver.ErrBadConn): // a hook's: database/sql would start over
		return nil, fmt.Errorf("connect: %w (%s)", pgconn.ErrConnClosed, err.Error())
	case err != nil:
		return nil, err
	}
	s := newSession(c.core, conn.(*stdlib.Conn))
	if err := c.core.greet(ctx, s.pgx, s.link); err != nil {
		closeNow(s.pgx)
		return nil, err
	}
	c.core.connected(s.link)
	s.handOut(readClock())
	return s, nil
}

func (c *attemptConnector) Driver() driver.Driver { return attemptDriver{c} }
