package retrypg

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/outcome"
	"github.com/retrypg/retrypg/policy"
)

// dsnKey is one key of ours: how it is read, and what documentation and errors say of it.
type dsnKey struct {
	name    string
	aliases []string // other spellings: those of libpq, which pgx would send to the server
	allowed string   // unit, format and range
	words   []string // values that are words, for suggestions
	def     string   // the default, in the form of a value
	doc     string   // what it sets
	set     func(s *settings, value string) bool
}

// parse stores the value. The result is what is allowed if the value is not, else "".
func (k *dsnKey) parse(s *settings, value string) string {
	if k.set(s, value) {
		return ""
	}
	return k.allowed
}

// Bounds of values in a DSN.
const (
	maxDSNDuration = 24 * time.Hour
	minDSNDuration = time.Microsecond
	maxDSNCount    = 1_000_000
	// maxUserTimeout is the largest value of the option, a C int of milliseconds.
	maxUserTimeout = math.MaxInt32 * time.Millisecond
	// Linux: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT of include/net/tcp.h.
	maxKeepAliveTime  = 32767 * time.Second
	maxKeepAliveCount = 127
)

const (
	durationText  = `a duration from 1us to 24h such as "250ms" or "30s", or whole seconds`
	keepAliveText = `a duration from 1s to 32767s, or whole seconds`
)

// dsnKeys is the one table of our keys. The documentation is made from it.
var dsnKeys = []dsnKey{
	{
		name: "retry_max_attempts", def: strconv.Itoa(DefaultMaxAttempts),
		allowed: upTo(maxDSNCount) + "; 1: no retry",
		doc:     "attempts of one statement or transaction in all, the first included",
		set:     count(maxDSNCount, func(s *settings, n int) { s.maxAttempts = n }),
	},
	{
		name: "retry_max_elapsed", def: "off", words: []string{"off"},
		allowed: durationText + `, or "off"`,
		doc:     "time in which attempts of one statement or transaction may begin; off: the context and the attempts bound it",
		set:     orOff(seconds(func(s *settings, d time.Duration) { s.maxElapsed = d }), func(s *settings) { s.maxElapsed = Off }),
	},
	{
		name: "retry_initial_delay", def: DefaultInitialDelay.String(),
		allowed: durationText,
		doc:     "ceiling of the wait before the first retry",
		set:     seconds(func(s *settings, d time.Duration) { s.initialDelay = d }),
	},
	{
		name: "retry_max_delay", def: DefaultMaxDelay.String(),
		allowed: durationText + ", not less than retry_initial_delay",
		doc:     "ceiling of every wait",
		set:     seconds(func(s *settings, d time.Duration) { s.maxDelay = d }),
	},
	{
		name: "retry_multiplier", def: text(DefaultMultiplier),
		allowed: "a number from 1 to 1000",
		doc:     "factor from the ceiling of one wait to that of the next",
		set:     number(1, 1000, func(s *settings, f float64) { s.multiplier = f }),
	},
	{
		name: "retry_jitter", def: "full", words: jitterWords,
		allowed: strings.Join(jitterWords, ", ") + `; proportional takes a factor, as in "proportional:0.25"`,
		doc:     "how a wait is drawn below its ceiling",
		set:     setJitter,
	},
	{
		name: "retry_connect_max_elapsed", def: DefaultConnectMaxElapsed.String(),
		allowed: durationText,
		doc:     "how long connecting waits for a server where the context has no deadline",
		set:     seconds(func(s *settings, d time.Duration) { s.connectMaxElapsed = d }),
	},
	{
		name: "retry_statement_timeout", def: "off", words: []string{"off"},
		allowed: durationText + `, or "off"`,
		doc:     "bound on a statement, to its last row, whose context has no deadline",
		set:     orOff(seconds(func(s *settings, d time.Duration) { s.statementTimeout = d }), func(s *settings) { s.statementTimeout = Off }),
	},
	{
		name: "retry_ping_after", def: DefaultPingAfter.String(), words: []string{"off"},
		allowed: durationText + `, or "off"`,
		doc:     "idle time after which a pooled connection is pinged when it is taken; off: never",
		set:     orOff(seconds(func(s *settings, d time.Duration) { s.pingAfter = d }), func(s *settings) { s.pingAfter = Off }),
	},
	{
		name: "load_balance_hosts", def: "disable", words: []string{"disable", "random"},
		allowed: "disable, random",
		doc:     "whether the hosts, and the addresses of each, are tried in random order, as by libpq; else the last one that worked goes first",
		set: func(s *settings, v string) bool {
			s.randomHosts = v == "random"
			return v == "random" || v == "disable"
		},
	},
	{
		name: "retry_lazy_begin", def: "on", words: []string{"on", "off"},
		allowed: "on, off",
		doc:     "whether BEGIN is sent with the first statement of a transaction, which saves a round trip",
		set: func(s *settings, v string) bool {
			s.lazyBegin = lazyBeginIf(v == "on")
			return v == "on" || v == "off"
		},
	},
	{
		name: "retry_commit_check", def: XID.String(), words: []string{"xid", "ledger", "off"},
		allowed: "xid, ledger, off",
		doc:     "how the outcome of a COMMIT whose answer was lost is found out",
		set:     setCommitCheck,
	},
	{
		name: "retry_commit_check_max_elapsed", def: DefaultCommitCheckMaxElapsed.String(),
		allowed: durationText,
		doc:     "how long a lost COMMIT is asked about where the context has no deadline, at least 3s",
		set:     seconds(func(s *settings, d time.Duration) { s.commitCheckMaxElapsed = d }),
	},
	{
		name: "retry_ledger_table", def: DefaultLedgerTable,
		allowed: `schema and table, as in "public.retrypg_ledger"`,
		doc:     "table of the tokens of retry_commit_check=ledger",
		set: func(s *settings, v string) (ok bool) {
			s.ledgerTable = v
			_, ok = outcome.ParseTable(v)
			return ok
		},
	},
	{
		name: "retry_ledger_retention", def: DefaultLedgerRetention.String(),
		allowed: durationText + ", at least " + minLedgerRetention.String(),
		doc:     "how long tokens are kept there",
		set:     duration(time.Second, minLedgerRetention, maxDSNDuration, func(s *settings, d time.Duration) { s.ledgerRetention = d }),
	},
	{
		name: "retry_budget", def: "on", words: []string{"on", "off"},
		allowed: "on, off",
		doc:     "whether retries are held to a share of the successes",
		set: func(s *settings, v string) bool {
			s.budgetOff = v == "off"
			return v == "on" || v == "off"
		},
	},
	{
		name: "retry_budget_ratio", def: text(policy.DefaultBudgetRatio),
		allowed: "a number from 0.001 to 1",
		doc:     "retries that each success pays for",
		set:     number(0.001, 1, func(s *settings, f float64) { s.budgetRatio = f }),
	},
	{
		name: "retry_budget_min_per_second", def: text(policy.DefaultBudgetMinPerSecond),
		allowed: "a number from 0.001 to 1000000",
		doc:     "retries per second that need no success",
		set:     number(0.001, policy.MaxBudgetPerSecond, func(s *settings, f float64) { s.budgetMinPerSecond = f }),
	},
	{
		name: "retry_budget_burst", def: strconv.Itoa(policy.DefaultBudgetBurst),
		allowed: upTo(policy.MaxBudgetBurst),
		doc:     "retries that can be saved up, and that there are at the start",
		set:     count(policy.MaxBudgetBurst, func(s *settings, n int) { s.budgetBurst = n }),
	},
	{
		name: "retry_contention_control", def: "on", words: []string{"on", "off"},
		allowed: "on, off",
		doc:     "whether transactions of `WithTx` that are in each other's way are admitted in turn",
		set: func(s *settings, v string) bool {
			s.contentionOff = v == "off"
			return v == "on" || v == "off"
		},
	},
	{
		name: "retry_escalate_after", def: strconv.Itoa(DefaultEscalateAfter),
		allowed: upTo(maxDSNCount),
		doc:     "conflicts of one transaction after which its further attempts run alone",
		set:     count(maxDSNCount, func(s *settings, n int) { s.escalateAfter = n }),
	},
	{
		name: "retry_advisory_locks", def: "off", words: []string{"on", "off"},
		allowed: "on, off",
		doc:     "whether transactions hold PostgreSQL's advisory locks, too, to exclude those of other processes: those that run alone, and those with keys while others are in their way; not behind poolers that pool by transaction",
		set: func(s *settings, v string) bool {
			s.advisoryLocks = v == "on"
			return v == "on" || v == "off"
		},
	},
	{
		name: "breaker_failures", def: "off", words: []string{"off"},
		allowed: upTo(breaker.MaxFailures) + `, or "off" (or 0)`,
		doc:     "connection failures in a row that open the circuit breaker; off: no breaker",
		set: orOff(
			count(breaker.MaxFailures, func(s *settings, n int) { s.breakerOn, s.breaker.Failures = true, n }),
			func(s *settings) { s.breakerOn = false },
			"0"),
	},
	{
		name: "breaker_window", def: breaker.DefaultWindow.String(),
		allowed: durationText,
		doc:     "longest time from the first to the last of these failures",
		set:     seconds(func(s *settings, d time.Duration) { s.breaker.Window = d }),
	},
	{
		name: "breaker_open_for", def: breaker.DefaultOpenFor.String(),
		allowed: durationText,
		doc:     "how long an open breaker refuses before it lets a probe through",
		set:     seconds(func(s *settings, d time.Duration) { s.breaker.OpenFor = d }),
	},
	{
		name: "breaker_probes", def: strconv.Itoa(breaker.DefaultProbes),
		allowed: upTo(breaker.MaxProbes),
		doc:     "probes that a half-open breaker lets through at the same time",
		set:     count(breaker.MaxProbes, func(s *settings, n int) { s.breaker.Probes = n }),
	},
	{
		name: "breaker_probe_lease", def: breaker.DefaultProbeLease.String(),
		allowed: durationText,
		doc:     "how long a probe may stay without a result before another takes its place",
		set:     seconds(func(s *settings, d time.Duration) { s.breaker.ProbeLease = d }),
	},
	{
		name: "retry_otelsql", def: OTelSQLForSpans.String(), words: []string{"spans", "always", "never"},
		allowed: "spans, always, never",
		doc: "when otelsql is in the path of a connection of database/sql: where spans are recorded; or always, for its metrics of each call; " +
			"or never",
		set: setOTelSQLUse,
	},
	{
		name: "tcp_user_timeout", def: DefaultTCPUserTimeout.String(), words: []string{"off"},
		allowed: `a duration from 1ms to 2147483647ms, or whole milliseconds, or "off" (or 0)`,
		doc: "how long sent data may stay unacknowledged before the connection is given up (Linux); " +
			"off: as the system has it. It is the client's socket, as in libpq; for the server's use `options`",
		set: orOff(
			duration(time.Millisecond, time.Millisecond, maxUserTimeout, func(s *settings, d time.Duration) { s.tcpUserTimeout = d }),
			func(s *settings) { s.tcpUserTimeout = Off },
			"0"),
	},
	{
		name: "tcp_keepalive_idle", aliases: []string{"keepalives_idle"}, def: DefaultTCPKeepAliveIdle.String(), words: []string{"off"},
		allowed: keepAliveText + `, or "off"`,
		doc:     "silence before the first keepalive probe; off: no keepalive",
		set: orOff(keepAlive(func(s *settings, d time.Duration) { s.tcpKeepAliveIdle = d }),
			func(s *settings) { s.tcpKeepAliveIdle = Off }),
	},
	{
		name: "tcp_keepalive_interval", aliases: []string{"keepalives_interval"}, def: DefaultTCPKeepAliveInterval.String(),
		allowed: keepAliveText,
		doc:     "time between two keepalive probes",
		set:     keepAlive(func(s *settings, d time.Duration) { s.tcpKeepAliveInterval = d }),
	},
	{
		name: "tcp_keepalive_count", aliases: []string{"keepalives_count"}, def: strconv.Itoa(DefaultTCPKeepAliveCount),
		allowed: upTo(maxKeepAliveCount),
		doc:     "unanswered keepalive probes that end the connection",
		set:     count(maxKeepAliveCount, func(s *settings, n int) { s.tcpKeepAliveCount = n }),
	},
	{
		name: "tcp_server_side", def: "off", words: []string{"on", "off"},
		allowed: "on, off",
		doc: "whether the server is asked for the same TCP options, and for client_connection_check_interval, so that it gives the locks " +
			"of a client that vanished back; a pooler that refuses them is connected to without",
		set: func(s *settings, v string) bool {
			s.serverSideOn = v == "on"
			return v == "on" || v == "off"
		},
	},
	{
		// Last, because as in libpq 0 makes the other three have no effect.
		name: "keepalives", def: "1", words: []string{"on", "off"},
		allowed: "1 (or on), 0 (or off)",
		doc:     "libpq's switch: 0 is tcp_keepalive_idle=off",
		set: func(s *settings, v string) bool {
			switch v {
			case "0", "off":
				s.tcpKeepAliveIdle = Off
			case "1", "on":
			default:
				return false
			}
			return true
		},
	},
}

// serverKeys are parameters of the server whose names are close to ours. They are sent to it.
var serverKeys = []string{"tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count"}

var jitterWords = []string{"none", "full", "equal", "decorrelated", "proportional"}

func dsnKeyNamed(name string) *dsnKey {
	for i := range dsnKeys {
		if k := &dsnKeys[i]; k.name == name || slices.Contains(k.aliases, name) {
			return k
		}
	}
	return nil
}

func dsnKeyNames() []string {
	var names []string
	for _, k := range dsnKeys {
		names = append(append(names, k.name), k.aliases...)
	}
	return names
}

// dsnKeyTable is the table of the documentation, in Markdown.
func dsnKeyTable() string {
	var b strings.Builder
	b.WriteString("| key | what it sets | value | default |\n|---|---|---|---|\n")
	for _, k := range dsnKeys {
		names := "`" + k.name + "`"
		for _, a := range k.aliases {
			names += ", `" + a + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", names, k.doc, k.allowed, k.def)
	}
	return b.String()
}

func upTo(n int) string { return "a whole number from 1 to " + strconv.Itoa(n) }

func text(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

func setJitter(s *settings, v string) bool {
	j, err := policy.ParseJitter(v)
	if err != nil {
		return false
	}
	s.jitter, s.jitterSet = j, true
	return true
}

func setCommitCheck(s *settings, v string) bool {
	for _, c := range []CommitCheck{XID, Ledger, NoCheck} {
		if v == c.String() {
			s.commitCheck = c
			return true
		}
	}
	return false
}

func count(hi int, set func(*settings, int)) func(*settings, string) bool {
	return func(s *settings, v string) bool {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > hi {
			return false
		}
		set(s, n)
		return true
	}
}

func number(lo, hi float64, set func(*settings, float64)) func(*settings, string) bool {
	return func(s *settings, v string) bool {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || !(f >= lo && f <= hi) { // not f < lo || f > hi, which lets NaN pass
			return false
		}
		set(s, f)
		return true
	}
}

// duration reads Go's form, and a bare whole number in units of unit.
func duration(unit, lo, hi time.Duration, set func(*settings, time.Duration)) func(*settings, string) bool {
	return func(s *settings, v string) bool {
		d, err := time.ParseDuration(v)
		if n, numErr := strconv.ParseInt(v, 10, 64); numErr == nil {
			if n < 0 || n > int64(hi/unit) { // checked before the product, which could overflow
				return false
			}
			d, err = time.Duration(n)*unit, nil
		}
		if err != nil || d < lo || d > hi {
			return false
		}
		set(s, d)
		return true
	}
}

func seconds(set func(*settings, time.Duration)) func(*settings, string) bool {
	return duration(time.Second, minDSNDuration, maxDSNDuration, set)
}

func keepAlive(set func(*settings, time.Duration)) func(*settings, string) bool {
	return duration(time.Second, time.Second, maxKeepAliveTime, set)
}

func orOff(set func(*settings, string) bool, off func(*settings), also ...string) func(*settings, string) bool {
	return func(s *settings, v string) bool {
		if v == "off" || slices.Contains(also, v) {
			off(s)
			return true
		}
		return set(s, v)
	}
}
