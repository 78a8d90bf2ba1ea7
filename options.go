package retrypg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/XSAM/otelsql"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/contention"
	"github.com/retrypg/retrypg/internal/outcome"
	"github.com/retrypg/retrypg/policy"
)

// Defaults of the settings that a DSN or an Option can change.
const (
	// DefaultMaxAttempts is how often a statement or a transaction is tried in all, the first time included.
	// Measured with these defaults: ten transactions at the same time that read and update one row, REPEATABLE READ and
	// SERIALIZABLE, 300 rounds of each. All finish, and none needs more than 6 attempts.
	DefaultMaxAttempts = 10
	// DefaultInitialDelay is the ceiling of the first wait before another attempt. Chosen: about the length of a short
	// transaction, as a conflict is over when the other transaction has ended.
	DefaultInitialDelay = 5 * time.Millisecond
	// DefaultMaxDelay is the ceiling of every wait before another attempt. Chosen: the nine waits of ten attempts add up
	// to 2.3 s at most.
	DefaultMaxDelay = time.Second
	// DefaultMultiplier is the factor by which the ceiling grows from one wait to the next. Chosen: the usual doubling.
	DefaultMultiplier = 2.0
	// DefaultEscalateAfter is after how many conflicts of a transaction its further attempts run alone. Chosen: where each
	// attempt conflicts as likely as not, one transaction in sixteen comes to it.
	DefaultEscalateAfter = contention.DefaultEscalate
	// DefaultConnectMaxElapsed bounds how long Connect waits for a server where the context has no deadline. It is the
	// time that PostgreSQL's pg_ctl waits for a server to start (PGCTLTIMEOUT).
	DefaultConnectMaxElapsed = 60 * time.Second
	// DefaultCommitCheckMaxElapsed bounds how long the server is asked about a lost COMMIT where the context has no
	// deadline. Chosen: half of what connecting waits, as the caller has a transaction done or undone meanwhile.
	DefaultCommitCheckMaxElapsed = 30 * time.Second
	// DefaultLedgerTable is the table of the tokens of Ledger.
	DefaultLedgerTable = "public.retrypg_ledger"
	// DefaultLedgerRetention is how long tokens are kept at least. Chosen: it covers transactions of up to half that
	// time, and a thousand a second make 3.6 million rows.
	DefaultLedgerRetention = time.Hour
	// DefaultPingAfter is after how much idle time a connection is pinged when it is taken out of its pool, as pgx does.
	DefaultPingAfter = time.Second
	// DefaultConnectTimeout bounds one connection attempt to one host where the DSN has no connect_timeout, or 0, which
	// cannot be told from none: who wants no bound gives a long one. pgx itself has none: a host that drops SYN packets
	// then costs what the kernel takes, on Linux over two minutes (net.ipv4.tcp_syn_retries=6). 5 s are chosen: the first
	// three SYNs of Linux, after 0, 1 and 3 s, fit in.
	DefaultConnectTimeout = 5 * time.Second
	// DefaultTCPUserTimeout is how long sent data may stay unacknowledged before the kernel drops the connection
	// (TCP_USER_TIMEOUT, RFC 5482). Without it Linux tries for about 15 minutes (net.ipv4.tcp_retries2). 10 s are chosen:
	// about what keepalive takes on a silent connection, so that a peer that vanished is found as soon either way.
	DefaultTCPUserTimeout = 10 * time.Second
	// DefaultTCPKeepAliveIdle is how long a connection may be silent before the first keepalive probe. The three values
	// are chosen: they find a peer that vanished within 11 s, where the system's own take over two hours (Linux: 7200 s,
	// 75 s, 9; RFC 1122, 4.2.3.6).
	DefaultTCPKeepAliveIdle = 5 * time.Second
	// DefaultTCPKeepAliveInterval is the time between two keepalive probes.
	DefaultTCPKeepAliveInterval = 2 * time.Second
	// DefaultTCPKeepAliveCount is how many unanswered probes end a connection.
	DefaultTCPKeepAliveCount = 3
)

// Off switches a setting off that has a duration as its value, where its documentation says so: zero means the default.
const Off time.Duration = -1

// minLedgerRetention is the shortest retention. A token is believed to be missing only for half of it, and clocks of a
// primary and its standby may differ.
const minLedgerRetention = time.Minute

// settings is everything that a DSN and options decide. The zero value of a field means its default.
type settings struct {
	maxAttempts  int           // total attempts of a statement or transaction; 0 = DefaultMaxAttempts
	maxElapsed   time.Duration // bound on all attempts of one operation; 0 or Off = none but ctx and maxAttempts
	initialDelay time.Duration
	maxDelay     time.Duration
	multiplier   float64
	jitter       policy.Jitter // the zero value is taken for unset unless jitterSet
	jitterSet    bool
	backoff      policy.Policy // replaces the five above

	connectMaxElapsed time.Duration // 0 = default

	statementTimeout time.Duration // 0 or Off = none
	pingAfter        time.Duration // 0 = default, Off = never
	randomHosts      bool
	serverSideOn     bool

	commitCheck           CommitCheck   // 0 = XID
	commitCheckMaxElapsed time.Duration // 0 = default
	lazyBegin             lazyBegin
	ledgerTable           string        // "" = default
	ledgerRetention       time.Duration // 0 = default

	budgetOff          bool
	budgetRatio        float64 // 0 = policy's default
	budgetMinPerSecond float64 // 0 = policy's default
	budgetBurst        int     // 0 = policy's default
	budget             *policy.Budget

	contentionOff bool
	escalateAfter int // conflicts; 0 = default
	advisoryLocks bool

	breakerOn bool
	breaker   breaker.Options

	tcpUserTimeout       time.Duration // 0 = default, Off = off
	tcpKeepAliveIdle     time.Duration // 0 = default, Off = keepalive off
	tcpKeepAliveInterval time.Duration // 0 = default
	tcpKeepAliveCount    int           // 0 = default

	telemetryOff   bool
	attributes     []attribute.KeyValue
	meterProvider  metric.MeterProvider
	tracerProvider trace.TracerProvider
	otelsql        []otelsql.Option
	otelsqlUse     OTelSQLUse // 0 = OTelSQLForSpans
	logger         *slog.Logger
	hooks          Hooks

	configure     []func(*pgx.ConnConfig) error
	beforeConnect func(context.Context, *pgx.ConnConfig) error
	afterConnect  func(context.Context, *pgx.Conn) error
	onReady       func(ReadyEvent)

	errs []error // what options found wrong with their arguments, reported by validate
}

// Option changes how a connector, a pool or WaitReady works. Options win over the DSN; of two for the same thing the
// later wins.
type Option interface{ apply(*settings) }

type optionFunc func(*settings)

func (f optionFunc) apply(s *settings) { f(s) }

// WithBudget shares one retry budget between several connectors or pools of one server, in place of one for each.
func WithBudget(b *policy.Budget) Option {
	return optionFunc(func(s *settings) {
		if b == nil {
			s.errs = append(s.errs, errors.New("WithBudget(nil): a budget is needed; WithoutBudget switches it off"))
			return
		}
		s.budget, s.budgetOff = b, false
	})
}

// WithoutBudget switches the retry budget off: retries are then bounded by attempts and time alone.
func WithoutBudget() Option {
	return optionFunc(func(s *settings) { s.budget, s.budgetOff = nil, true })
}

// WithBreaker puts a circuit breaker in front of connecting, autocommit statements and BEGIN. Only failures of the
// connection count against it; refusals are *breaker.OpenError and are not retried, so an open breaker also ends
// the waiting for a server at start-up: call WaitReady first, which it does not end. Without this option (and without
// breaker_* keys in the DSN) there is none: callers wait for the server within their deadlines.
func WithBreaker(o breaker.Options) Option {
	return optionFunc(func(s *settings) { s.breakerOn, s.breaker = true, o })
}

// WithoutBreaker switches off a circuit breaker that the DSN asks for.
func WithoutBreaker() Option {
	return optionFunc(func(s *settings) { s.breakerOn = false })
}

// ContentionOptions say how transactions of WithTx and its kin are admitted that are in each other's way. The zero value is
// what holds without them.
type ContentionOptions struct {
	// EscalateAfter is after how many conflicts of a transaction its further attempts run alone: no other of the handle that
	// has one of its TxOptions.Keys, or, where it has none, none of its TxOptions.Name, begins before it has ended. From 1;
	// zero means DefaultEscalateAfter.
	EscalateAfter int
	// AdvisoryLocks makes such attempts hold PostgreSQL's advisory locks, so that of the processes which ask for that only one
	// makes an attempt of that kind at a time: those of AdvisoryKey for the transaction's keys, or else for its name. With keys
	// the other attempts hold them, too, once one has conflicted although no other of this handle had a key of it, until none
	// had to wait for a lock, and none conflicted, for a while; and not where conflicts go on though nobody waits for a lock.
	//
	// The locks are taken with the first statement of the closure, which costs no round trip and waits for them; what the closure does before runs
	// without. They take a round trip of their own where that statement has another context than the closure, with which the wait ends too, or is
	// larger than 4 kB, or MaxElapsed or retry_statement_timeout would end the wait, and two where BEGIN does not wait for the first statement (WithLazyBegin, Ledger, a connection of
	// pgx that the program has). An attempt waits on its connection, for as long as its context and TxOptions.MaxElapsed
	// allow: one of the two should be given. It takes them in their order; of up to three that are taken before BEGIN it keeps none while it waits for another, until it has been late twice. If the server
	// refuses a lock, as by lock_timeout, the transaction is rolled back and the connection given up. A transaction of more than 64 keys takes none. At
	// REPEATABLE READ and SERIALIZABLE, and where Isolation is not given, they are taken before BEGIN, and so need a session of
	// their own: not for poolers that pool by transaction, where Isolation must be sql.LevelReadCommitted. There a query before the first of
	// the closure makes them locks of the transaction: it takes the snapshot, after which SET TRANSACTION is refused.
	AdvisoryLocks bool
}

// WithContentionControl sets how transactions are admitted that are in each other's way, and switches that on where the DSN
// has switched it off.
func WithContentionControl(o ContentionOptions) Option {
	return optionFunc(func(s *settings) {
		if o.EscalateAfter < 0 || o.EscalateAfter > maxDSNCount {
			s.errs = append(s.errs, fmt.Errorf("WithContentionControl: EscalateAfter %d: a number from 1 to %d, or 0 for the default, is needed",
				o.EscalateAfter, maxDSNCount))
			return
		}
		s.contentionOff, s.escalateAfter, s.advisoryLocks = false, o.EscalateAfter, o.AdvisoryLocks
	})
}

// WithoutContentionControl switches the admission of transactions off: all run at once, and those that conflict are run again
// after a backoff.
func WithoutContentionControl() Option {
	return optionFunc(func(s *settings) { s.contentionOff = true })
}

// WithTCPUserTimeout sets how long sent data may stay unacknowledged before the connection is given up (Linux only).
// From 1 ms to 2147483647 ms; zero means DefaultTCPUserTimeout; Off leaves the system's setting.
func WithTCPUserTimeout(d time.Duration) Option {
	return optionFunc(func(s *settings) { s.tcpUserTimeout = d })
}

// WithTCPKeepAlive sets the keepalive probes of connections: silence before the first probe, time between probes, and
// how many unanswered ones end the connection: the times from 1 s to 32767 s, count from 1 to 127. Zeros mean the defaults; idle
// Off switches keepalive off.
func WithTCPKeepAlive(idle, interval time.Duration, count int) Option {
	return optionFunc(func(s *settings) {
		s.tcpKeepAliveIdle, s.tcpKeepAliveInterval, s.tcpKeepAliveCount = idle, interval, count
	})
}

// WithServerSideTCP also asks the server for the TCP options of the connection, as start-up parameters, and for
// client_connection_check_interval, so that it finds out about a client that vanished as soon as the client about a server, and
// gives its locks back. A pooler or an old server that refuses them is connected to without.
func WithServerSideTCP() Option {
	return optionFunc(func(s *settings) { s.serverSideOn = true })
}

// WithLoadBalanceHosts makes connections go to the hosts of the DSN, and to the addresses of each, in random order. Without it the
// one that was last connected to is tried first, and then the others in the order given. With or without it, one that had not
// the role or fell silent is tried last for 30 s.
func WithLoadBalanceHosts() Option {
	return optionFunc(func(s *settings) { s.randomHosts = true })
}

// WithMeterProvider records metrics with p in place of the global provider.
func WithMeterProvider(p metric.MeterProvider) Option {
	return optionFunc(func(s *settings) { s.meterProvider = p })
}

// WithTracerProvider records spans with p in place of the global provider.
func WithTracerProvider(p trace.TracerProvider) Option {
	return optionFunc(func(s *settings) { s.tracerProvider = p })
}

// WithTelemetryAttributes adds attributes to all metrics and to the spans of operations, and to what otelsql records below
// them. Two handles on one server need some to be told apart: their counters add up otherwise, and of budget and breaker the state of only one is seen. They should
// have few different values, and no user data.
func WithTelemetryAttributes(attrs ...attribute.KeyValue) Option {
	return optionFunc(func(s *settings) { s.attributes = append(s.attributes, attrs...) })
}

// WithOTelSQL passes options on to otelsql, which records the spans below ours, and metrics where WithOTelSQLUse says so. SQL text and the text of
// errors, which may hold names and values, are recorded only if otelsql.WithSpanOptions among them says so: by default
// spans have the SQLSTATE.
func WithOTelSQL(opts ...otelsql.Option) Option {
	return optionFunc(func(s *settings) {
		for _, o := range opts {
			if o != nil {
				s.otelsql = append(s.otelsql, o)
			}
		}
	})
}

// WithoutTelemetry records no spans and no metrics, whatever providers are installed.
func WithoutTelemetry() Option {
	return optionFunc(func(s *settings) { s.telemetryOff = true })
}

// WithLogger writes one line for each change of state (server down, back or fenced, failover, breaker, unknown commit, commit that
// was not replicated, the progress of WaitReady) to l. nil, the default, writes none.
func WithLogger(l *slog.Logger) Option {
	return optionFunc(func(s *settings) { s.logger = l })
}

// WithHooks calls the functions of h as things happen. A second WithHooks replaces the first.
func WithHooks(h Hooks) Option {
	return optionFunc(func(s *settings) { s.hooks = h })
}

// WithConnConfig lets f change the pgx configuration after the DSN was parsed and before the first connection: a
// tracer, a TLS setting, a type registration. DialFunc, OnPgError and OnNotice that f sets are kept and called;
// DialFunc, with several hosts, also to ask a server for a sign of life. An
// error of f is the error of NewConnector, NewPool or WaitReady.
func WithConnConfig(f func(*pgx.ConnConfig) error) Option {
	return optionFunc(func(s *settings) {
		if f != nil {
			s.configure = append(s.configure, f)
		}
	})
}

// WithBeforeConnect calls f before every connection attempt with a copy of the configuration that f may change, for
// passwords and tokens that expire, also before attempts whose connection only shows which host has the role. It is called
// concurrently. A handle with such a function looks for its server by itself, not together with other handles of the process. An
// error of f fails that attempt and is classified like any other. The copy is
// shallow: replace maps, slices and what pointers lead to, do not change them in place. A later WithBeforeConnect replaces
// an earlier one; the BeforeConnect of a pool's configuration is called after it.
func WithBeforeConnect(f func(context.Context, *pgx.ConnConfig) error) Option {
	return optionFunc(func(s *settings) { s.beforeConnect = f })
}

// WithAfterConnect calls f with every new connection before a caller uses it, for session settings and type
// registration. It is called concurrently. An error of f fails that attempt and is classified like any other. A handle with such a
// function looks for its server by itself, not together with other handles of the process. A later WithAfterConnect replaces an
// earlier one; the AfterConnect of a pool's configuration is called after it.
func WithAfterConnect(f func(context.Context, *pgx.Conn) error) Option {
	return optionFunc(func(s *settings) { s.afterConnect = f })
}

// WithReadyProgress calls f with each change of state while WaitReady waits, on its goroutine. f must not block.
func WithReadyProgress(f func(ReadyEvent)) Option {
	return optionFunc(func(s *settings) { s.onReady = f })
}

// with applies options, fills what is left unset, and says what is wrong.
func (s settings) with(opts []Option) (settings, error) {
	for _, o := range opts {
		if o != nil {
			o.apply(&s)
		}
	}
	s = s.withDefaults()
	return s, s.validate()
}

// withDefaults fills what was left unset.
func (s settings) withDefaults() settings {
	s.maxAttempts = orDefault(s.maxAttempts, DefaultMaxAttempts)
	s.initialDelay = orDefault(s.initialDelay, min(DefaultInitialDelay, orDefault(s.maxDelay, DefaultMaxDelay)))
	s.maxDelay = orDefault(s.maxDelay, max(DefaultMaxDelay, s.initialDelay))
	s.multiplier = orDefault(s.multiplier, DefaultMultiplier)
	if !s.jitterSet {
		s.jitter = policy.FullJitter
	}
	s.connectMaxElapsed = orDefault(s.connectMaxElapsed, DefaultConnectMaxElapsed)
	s.pingAfter = orDefault(s.pingAfter, DefaultPingAfter)
	s.escalateAfter = orDefault(s.escalateAfter, DefaultEscalateAfter)
	s.commitCheck = orDefault(s.commitCheck, XID)
	s.commitCheckMaxElapsed = orDefault(s.commitCheckMaxElapsed, DefaultCommitCheckMaxElapsed)
	s.lazyBegin = orDefault(s.lazyBegin, lazyBeginIf(lazyBeginDefault == "on"))
	s.otelsqlUse = orDefault(s.otelsqlUse, OTelSQLForSpans)
	s.ledgerTable = orDefault(s.ledgerTable, DefaultLedgerTable)
	s.ledgerRetention = orDefault(s.ledgerRetention, DefaultLedgerRetention)
	s.tcpUserTimeout = orDefault(s.tcpUserTimeout, DefaultTCPUserTimeout)
	s.tcpKeepAliveIdle = orDefault(s.tcpKeepAliveIdle, DefaultTCPKeepAliveIdle)
	s.tcpKeepAliveInterval = orDefault(s.tcpKeepAliveInterval, DefaultTCPKeepAliveInterval)
	s.tcpKeepAliveCount = orDefault(s.tcpKeepAliveCount, DefaultTCPKeepAliveCount)
	return s
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// validate says what is wrong with the settings as a whole. It is called on settings with their defaults filled in.
func (s settings) validate() error {
	errs := append([]error(nil), s.errs...)
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.maxAttempts < 1 || s.maxAttempts > maxDSNCount {
		bad("max attempts %d: a number from 1 to %d is needed", s.maxAttempts, maxDSNCount)
	}
	if s.maxElapsed < 0 && s.maxElapsed != Off {
		bad("max elapsed %v: a positive duration or Off is needed", s.maxElapsed)
	}
	if s.initialDelay < 0 || s.maxDelay < 0 {
		bad("initial delay %v, max delay %v: neither may be negative", s.initialDelay, s.maxDelay)
	} else if s.initialDelay > s.maxDelay {
		bad("initial delay %v is longer than max delay %v", s.initialDelay, s.maxDelay)
	}
	if !(s.multiplier >= 1) || s.multiplier > 1000 {
		bad("multiplier %v: a number from 1 to 1000 is needed", s.multiplier)
	}
	if s.connectMaxElapsed <= 0 {
		bad("connect max elapsed %v: a positive duration is needed", s.connectMaxElapsed)
	}
	if s.statementTimeout < 0 && s.statementTimeout != Off {
		bad("statement timeout %v: a positive duration or Off is needed", s.statementTimeout)
	}
	if s.pingAfter < 0 && s.pingAfter != Off {
		bad("ping after %v: a positive duration or Off is needed", s.pingAfter)
	}
	if s.commitCheckMaxElapsed <= 0 {
		bad("commit check max elapsed %v: a positive duration is needed", s.commitCheckMaxElapsed)
	}
	if _, ok := outcome.ParseTable(s.ledgerTable); !ok {
		bad("ledger table %q: a schema and a name are needed, as in %s", s.ledgerTable, DefaultLedgerTable)
	}
	if s.ledgerRetention < minLedgerRetention {
		bad("ledger retention %v: at least %v is needed", s.ledgerRetention, minLedgerRetention)
	}
	if s.tcpUserTimeout != Off && (s.tcpUserTimeout < time.Millisecond || s.tcpUserTimeout > maxUserTimeout) {
		bad("tcp user timeout %v: a duration from 1ms to %v or Off is needed", s.tcpUserTimeout, maxUserTimeout)
	}
	if s.tcpKeepAliveIdle != Off && (s.tcpKeepAliveIdle < time.Second || s.tcpKeepAliveIdle > maxKeepAliveTime) {
		bad("tcp keepalive idle %v: a duration from 1s to %v or Off is needed", s.tcpKeepAliveIdle, maxKeepAliveTime)
	}
	if s.tcpKeepAliveInterval < time.Second || s.tcpKeepAliveInterval > maxKeepAliveTime {
		bad("tcp keepalive interval %v: a duration from 1s to %v is needed", s.tcpKeepAliveInterval, maxKeepAliveTime)
	}
	if s.tcpKeepAliveCount < 1 || s.tcpKeepAliveCount > maxKeepAliveCount {
		bad("tcp keepalive count %d: a number from 1 to %d is needed", s.tcpKeepAliveCount, maxKeepAliveCount)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("retrypg: wrong settings: %w", err)
	}
	return nil
}
