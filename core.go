package retrypg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/contention"
	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/internal/outcome"
	"github.com/retrypg/retrypg/internal/transport"
	"github.com/retrypg/retrypg/metrics"
	"github.com/retrypg/retrypg/policy"
)

// core is what one connector or pool decides with: its settings, what it knows of its servers, its budget, breaker and
// telemetry. It is made once, is safe for concurrent use, and starts no goroutine but those of its watch.
type core struct {
	set  settings
	gate *endpoint.Gate
	// unobserve ends the core's observation of gate
	unobserve func()
	hosts     endpoint.Hosts
	order     endpoint.Order
	watch     *endpoint.Watch
	locate    func(ctx context.Context, skip string) (addr string, err error) // a server of the role; see locator
	heals     func(error) bool                                                // what waiting heals; the gate asks it
	breaker   *breaker.Breaker                                                // nil: none
	budget    *policy.Budget                                                  // nil: none
	rec       *metrics.Recorder
	server    []attribute.KeyValue // its address, as telemetry has it
	poolStats metric.Registration  // of a *sql.DB; nil if there is none
	log       *metrics.Logger

	contention *contention.Control // which attempts of transactions begin now; nil: all
	lockTexts  atomic.Bool         // queries about advisory locks are not prepared: the program drops what is
	lockPooled atomic.Bool         // no advisory lock is one of a session: a pooler was in between that had not been noticed

	tuned             atomic.Pointer[tuning]
	retuning          sync.Mutex // held while tuned is replaced
	serverSideRefused atomic.Bool

	probe policy.Policy // of the gates

	ledger      outcome.Table
	tokens      atomic.Uint64                            // how many transactions wrote one
	dial        func(context.Context) (*pgx.Conn, error) // one attempt to connect to a primary; nil where that is unknown
	primaryGate *endpoint.Gate                           // that dial goes through
	resolver    *outcome.Resolver                        // over dial
	tracer      pgx.QueryTracer                          // of the connections; nil if they have none

	connectTimeout time.Duration // of one attempt
	role           string        // that the DSN asks for; "" where a function of the user's judges it
	wantsPrimary   bool          // it is a primary's
	primary        primary

	met    atomic.Bool // a call of this core has met the outage that goes on
	quiet  atomic.Bool // no log lines of the server's state
	closed atomic.Bool
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
}

// newCore makes a core for the servers of cfg, which may be nil where no connection will be made (WithTx on a foreign
// driver); else prepareConfig is to follow. s has its defaults filled in and is valid.
func newCore(s settings, cfg *pgconn.Config) (*core, error) {
	c := &core{set: s, heals: healable}
	var err error
	if !s.telemetryOff {
		o := telemetryOptions(s, cfg)
		c.server = []attribute.KeyValue{metrics.AttrServerAddress.String(o.ServerAddress), metrics.AttrServerPort.Int(o.ServerPort)}
		if c.rec, err = metrics.New(o); err != nil {
			return nil, fmt.Errorf("retrypg: telemetry: %w", err)
		}
	}
	c.log = metrics.NewLogger(s.logger)
	c.ledger, _ = outcome.ParseTable(s.ledgerTable) // validated
	if err := c.makePolicies(); err != nil {
		return nil, fmt.Errorf("retrypg: wrong settings: %w", err)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if cfg == nil {
		c.observeGate(endpoint.New(c.gateOptions()))
	}
	return c, nil
}

func (c *core) makePolicies() (err error) {
	s := c.set
	c.order.Random = s.randomHosts
	if !s.contentionOff {
		c.contention = contention.New(contention.Options{Escalate: s.escalateAfter, Elsewhere: s.advisoryLocks})
	}
	if c.budget = s.budget; c.budget == nil && !s.budgetOff {
		c.budget, err = policy.NewBudget(policy.BudgetOptions{
			Ratio: s.budgetRatio, MinPerSecond: s.budgetMinPerSecond, Burst: s.budgetBurst,
		})
		if err != nil {
			return err
		}
	}
	if s.breakerOn {
		o, user := s.breaker, s.breaker.OnStateChange
		o.OnStateChange = func(from, to breaker.State) {
			c.log.Breaker(from.String(), to.String())
			if user != nil {
				user(from, to)
			}
			if hook := s.hooks.Breaker; hook != nil {
				hook(from, to)
			}
		}
		if c.breaker, err = breaker.New(o); err != nil {
			return err
		}
	}
	probe, err := newProbePolicy()
	if err != nil {
		return err
	}
	t, err := c.tune(s)
	if err != nil {
		return err
	}
	c.tuned.Store(t)
	c.probe = probe
	return nil
}

func (c *core) gateOptions() endpoint.Options {
	return endpoint.Options{Backoff: c.probe, OnWait: onRetry}
}

// observeGate makes gate the core's.
func (c *core) observeGate(gate *endpoint.Gate) {
	c.gate = gate
	// A gate may outlive a core that nobody closes, as that of ConfigurePool.
	weakly := weak.Make(c)
	c.unobserve = gate.Observe(endpoint.Observer{
		Down: func(err error) {
			if c := weakly.Value(); c != nil {
				c.serverDown(err)
			}
		},
		Up: func(after time.Duration, attempts int) {
			if c := weakly.Value(); c != nil {
				c.serverUp(after, attempts)
			}
		},
	})
	runtime.AddCleanup(c, func(stop func()) { stop() }, c.unobserve)
}

// gateFor returns the gate that all handles of this process share which lead to the same servers with the same rights. What a
// user's functions do to a connection nobody can compare: where there are some, the gate is the core's own.
func (c *core) gateFor(cfg *pgx.ConnConfig, hooks connectHooks, plain bool) *endpoint.Gate {
	role, known := roleOf(cfg)
	if !plain || !known || hooks.before != nil || hooks.after != nil || cfg.AfterConnect != nil || cfg.AfterNetConnect != nil {
		return endpoint.New(c.gateOptions())
	}
	// With the timeout: one who gives up early must not be the one who looks for those who are patient.
	key := []string{cfg.User, cfg.Database, role, cfg.ConnectTimeout.String()}
	for _, name := range slices.Sorted(maps.Keys(cfg.RuntimeParams)) {
		if name != "application_name" {
			key = append(key, name, cfg.RuntimeParams[name])
		}
	}
	for _, h := range hostsOf(&cfg.Config) {
		key = append(key, h.name, strconv.Itoa(int(h.port)), strconv.FormatBool(h.tls != nil))
	}
	return endpoint.Shared(strings.Join(key, "\x00"), c.gateOptions())
}

// transactionRetrier makes the retrier of transactions over p.
func (c *core) transactionRetrier(p policy.Policy) (*policy.Retrier, error) {
	return policy.NewRetrier(policy.RetrierOptions{
		Policy: p, Budget: c.budget, Decide: decideTransaction, OnRetry: onRetry, CountFirstAttempt: true,
	})
}

// limited puts the limits of the settings on a policy.
func limited(p policy.Policy, attempts int, elapsed time.Duration) (policy.Policy, error) {
	p, err := policy.MaxAttempts(p, attempts)
	if err == nil && elapsed > 0 {
		p, err = policy.MaxElapsed(p, elapsed)
	}
	return p, err
}

// close ends every wait of the core. It is idempotent.
func (c *core) close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.cancel()
	c.unobserve()
	err := c.rec.Close()
	if c.poolStats != nil {
		err = errors.Join(err, c.poolStats.Unregister())
	}
	return err
}

// prepareConfig makes cfg dial through our transport, with its TCP options and its evidence, and lets us see every
// server error. What is set in cfg already is kept and called, and so are the hooks. plain says that names
// are looked up and dialled in the usual way.
func (c *core) prepareConfig(cfg *pgx.ConnConfig, hooks connectHooks, plain bool) {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = DefaultConnectTimeout
	}
	c.tracer, c.connectTimeout, c.wantsPrimary = cfg.Tracer, cfg.ConnectTimeout, needsPrimary(cfg)
	c.role, _ = roleOf(cfg)
	cfg.DialFunc = transport.Dialer(c.set.transport(), cfg.ConnectTimeout, cfg.DialFunc)
	carry(cfg)
	c.observeGate(c.gateFor(cfg, hooks, plain))
	c.watchServers(cfg, hooks, plain)
	if role, known := roleOf(cfg); known && c.set.commitCheck != NoCheck && identifying[role] != nil {
		cfg.ValidateConnect = identifying[role]
	}
	afterConnect := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, pc *pgconn.PgConn) error {
		if wire := transport.From(pc.Conn()); wire != nil {
			c.watch.Established(wire)
			c.order.Prefer(wire.Dialled())
		}
		if afterConnect != nil {
			return afterConnect(ctx, pc)
		}
		return nil
	}
	onPgError := cfg.OnPgError
	cfg.OnPgError = func(pc *pgconn.PgConn, err *pgconn.PgError) bool {
		if l := linkOf(pc); l != nil {
			l.note(err)
		} else {
			c.noteRefusal(err)
		}
		if onPgError != nil {
			return onPgError(pc, err)
		}
		return true
	}
	onNotice := cfg.OnNotice
	cfg.OnNotice = func(pc *pgconn.PgConn, n *pgconn.Notice) {
		linkOf(pc).noteNotice(n)
		if onNotice != nil {
			onNotice(pc, n)
		}
	}
}

// transport returns the options of our dialer.
func (s settings) transport() transport.Options {
	return transport.Options{
		UserTimeout:       s.tcpUserTimeout,
		KeepAliveIdle:     s.tcpKeepAliveIdle,
		KeepAliveInterval: s.tcpKeepAliveInterval,
		KeepAliveCount:    s.tcpKeepAliveCount,
	}
}
