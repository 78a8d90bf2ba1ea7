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

	"github.com/retrypg/retrypg/breaker"
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
	log       *metrics.Logger

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

	quiet  atomic.Bool // no log lines of the server's state
	closed atomic.Bool
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
}

// newCore makes a core for the servers of cfg, which may be nil where no connection will be made (WithTx on a foreign
// driver). s has its defaults filled in and is valid.
func newCore(s settings, cfg *pgconn.Config) (*core, error) {
	c := &core{set: s, heals: healable}
	var err error
	if !s.telemetryOff {
		if c.rec, err = metrics.New(telemetryOptions(s, cfg)); err != nil {
			return nil, fmt.Errorf("retrypg: telemetry: %w", err)
		}
	}
	c.log = metrics.NewLogger(s.logger)
	c.ledger, _ = outcome.ParseTable(s.ledgerTable) // validated
	if err := c.makePolicies(); err != nil {
		return nil, fmt.Errorf("retrypg: wrong settings: %w", err)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

func (c *core) makePolicies() (err error) {
	s := c.set
	c.order.Random = s.randomHosts
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
	c.observeGate(endpoint.New(c.gateOptions()))
	return nil
}

func (c *core) gateOptions() endpoint.Options {
	return endpoint.Options{Backoff: c.probe, OnWait: onRetry}
}

// observeGate makes gate the core's, in place of the one that it has.
func (c *core) observeGate(gate *endpoint.Gate) {
	if c.unobserve != nil {
		c.unobserve()
	}
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

// shareGate makes the core use the gate that all handles of this process share which lead to the same servers with the same
// rights. What a user's functions do to a connection nobody can compare: where there are some, the gate is the core's own.
func (c *core) shareGate(cfg *pgx.ConnConfig, hooks connectHooks, plain bool) {
	role, known := roleOf(cfg)
	if !plain || !known || hooks.before != nil || hooks.after != nil || cfg.AfterConnect != nil || cfg.AfterNetConnect != nil {
		return
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
	c.observeGate(endpoint.Shared(strings.Join(key, "\x00"), c.gateOptions()))
}

// observe lets the state of budget and breaker be read as metrics, until close. It is for the cores of what users open and
// close: the state of others would hide theirs.
func (c *core) observe() {
	if c.budget != nil {
		c.rec.ObserveBudget(c.budget.Tokens)
	}
	if c.breaker != nil {
		c.rec.ObserveBreaker(func() int64 { return int64(c.breaker.State()) })
	}
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

// healable reports whether waiting, or another connection, can heal a failed connection attempt.
func healable(err error) bool {
	if errors.Is(err, breaker.ErrOpen) || errors.Is(err, ErrClosed) {
		return false
	}
	switch Classify(err).Retry {
	case RetryWait, RetryReconnect, RetryFailover:
		return true
	}
	return false
}

// reaching says how the server is reached.
type reaching struct {
	kind metrics.Operation
	// refusable says that the breaker is asked before each attempt: not by WaitReady, which is there to wait for what the breaker
	// refuses.
	refusable bool
	stock     *endpoint.Stock // see endpoint.Call
	// undo closes what was made, if it was: a hook that is told of the server's return may panic after that. It may be nil.
	undo func()
}

// reach makes attempts to reach the server, through the gate: until one succeeds, fails for good, or no time is left.
func (c *core) reach(ctx context.Context, r reaching, attempt func(context.Context) error) error {
	if c.closed.Load() {
		return ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(ErrClosed) })()
	return c.reachThrough(ctx, c.gate, r, attempt)
}

// reachThrough is reach through any gate, also after Close.
func (c *core) reachThrough(ctx context.Context, gate *endpoint.Gate, r reaching, attempt func(context.Context) error) error {
	limit := time.Duration(0)
	if _, ok := ctx.Deadline(); !ok {
		limit = c.connectMaxElapsed()
	}
	op, ctx, _ := c.start(ctx, r.kind, "", false) // no refusal: the breaker is asked before each attempt
	waitCtx := withOperation(ctx, &op)
	var t try
	returned := false
	defer func() {
		if returned {
			return
		}
		if r.undo != nil {
			r.undo()
		}
		op.panicked(ctx, t)
	}()
	how := endpoint.Call{Healable: c.heals, Limit: limit, Once: noRetry(ctx), Stock: r.stock}
	err := gate.Do(waitCtx, how, func(ctx context.Context) error {
		var permit breaker.Permit
		if r.refusable {
			var err error
			if permit, err = c.breaker.Allow(); err != nil {
				return err
			}
		}
		defer permit.Ignore() // of no effect once something was reported
		t = op.attempt(ctx)
		err := attempt(t.ctx)
		if c.refusesServerSide(err) {
			err = attempt(t.ctx) // without what was refused
		}
		again := err != nil && (c.heals(err) || errors.Is(err, endpoint.ErrDown)) && !endpoint.Over(ctx)
		switch {
		case err == nil:
			permit.Success()
		case errors.Is(err, endpoint.ErrInStock):
			op.attemptEnd(t, nil, false)
			return err
		case errors.Is(err, endpoint.ErrNoPlace):
			op.attemptEnd(t, err, true)
			return err
		case again && !errors.Is(err, endpoint.ErrDown):
			permit.Failure()
		default:
			permit.Ignore()
		}
		op.attemptEnd(t, err, again)
		return err
	})
	returned = true
	var exhausted *ExhaustedError
	if errors.As(err, &exhausted) && errors.Is(exhausted.Last, breaker.ErrOpen) {
		exhausted.Reason = policy.StopBreaker // the gate knows no breaker
	}
	op.end(ctx, err)
	return err
}

func (c *core) serverDown(err error) {
	class := Classify(err)
	if !c.quiet.Load() {
		c.log.Down(metrics.OpConnect, class.Reason)
	}
	if c.set.hooks.ServerDown != nil {
		c.set.hooks.ServerDown(err)
	}
}

func (c *core) serverUp(after time.Duration, attempts int) {
	if !c.quiet.Load() {
		c.log.Up(after)
	}
	if c.set.hooks.ServerUp != nil {
		c.set.hooks.ServerUp(after, attempts)
	}
}

// tellUnknown tells of a COMMIT whose outcome is not known, which err is about.
func (c *core) tellUnknown(ctx context.Context, err error) {
	var unknown *CommitUnknownError
	if !errors.As(err, &unknown) {
		return
	}
	c.log.CommitUnknown(SQLState(unknown))
	if c.set.hooks.CommitUnknown != nil {
		c.set.hooks.CommitUnknown(ctx, unknown)
	}
}

// fenced tells that a server has lost its role: its connections are dropped, each when it is to be used next.
func (c *core) fenced(err error) {
	reason := SQLState(err)
	if reason == "" {
		reason = "silent"
	}
	c.log.Fenced(reason)
	if hook := c.set.hooks.ServerFenced; hook != nil {
		hook(err)
	}
}

func (c *core) evicted(ctx context.Context, reason string) {
	c.rec.Evicted(ctx, reason)
	if c.set.hooks.Evicted != nil {
		c.set.hooks.Evicted(reason)
	}
}

// close ends every wait of the core. It is idempotent.
func (c *core) close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.cancel()
	c.unobserve()
	return c.rec.Close()
}

// stopReason is the retry.stop_reason of the error that an operation ended with.
func stopReason(err error) string {
	if err == nil {
		return ""
	}
	var exhausted *ExhaustedError
	switch {
	case errors.As(err, &exhausted):
		return string(exhausted.Reason)
	case errors.Is(err, breaker.ErrOpen):
		return string(policy.StopBreaker)
	case errors.Is(err, context.DeadlineExceeded):
		return string(policy.StopDeadline)
	case errors.Is(err, context.Canceled):
		return string(policy.StopCanceled)
	}
	return string(policy.StopNotRetryable)
}

// prepareConfig makes cfg dial through our transport, with its TCP options and its evidence, and lets us see every
// server error. What is set in cfg already is kept and called, and so are the hooks. plain says that names
// are looked up and dialled in the usual way.
func (c *core) prepareConfig(cfg *pgx.ConnConfig, hooks connectHooks, plain bool) {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = DefaultConnectTimeout
	}
	c.tracer, c.connectTimeout = cfg.Tracer, cfg.ConnectTimeout
	cfg.DialFunc = transport.Dialer(c.set.transport(), cfg.ConnectTimeout, cfg.DialFunc)
	c.shareGate(cfg, hooks, plain)
	c.watchServers(cfg, hooks, plain)
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

func telemetryOptions(s settings, cfg *pgconn.Config) metrics.Options {
	o := metrics.Options{MeterProvider: s.meterProvider, TracerProvider: s.tracerProvider, Attributes: s.attributes}
	if cfg != nil {
		o.ServerAddress, o.ServerPort = cfg.Host, int(cfg.Port)
		if network, _ := pgconn.NetworkAddress(cfg.Host, cfg.Port); network == "unix" {
			o.ServerPort = 0
		}
	}
	return o
}
