package doctor

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
	"github.com/retrypg/retrypg/internal/outcome"
)

// sound is what a primary without a fault says.
func sound() *facts {
	return &facts{
		address: "192.0.2.1:5432", tls: &tls.ConnectionState{Version: tls.VersionTLS13}, verified: true,
		version: "PostgreSQL 17.2 on x86_64-pc-linux-gnu", number: "17.2 (Debian 17.2-1)", pid: 7, announced: 7,
		identity: outcome.Identity{System: "1", Timeline: 1, Epoch: outcome.Epoch{Started: "1"}},
		ledger:   ledgerFacts{table: `"public"."retrypg_ledger"`, usable: true},
		settings: map[string]setting{
			"fsync": {"on", "", "default"}, "full_page_writes": {"on", "", "default"},
			"synchronous_commit": {"on", "", "default"}, "default_transaction_read_only": {"off", "", "default"},
			"max_connections": {"100", "", "configuration file"}, "superuser_reserved_connections": {"3", "", "default"},
			"tcp_keepalives_idle": {"30", "s", "configuration file"}, "tcp_keepalives_interval": {"5", "s", "default"},
			"tcp_keepalives_count": {"3", "", "default"}, "statement_timeout": {"0", "ms", "default"},
		},
		connections: connectionFacts{used: 10, role: -1, database: -1},
	}
}

const soundDSN = "postgres://app@db1/shop?sslmode=verify-full&connect_timeout=5"

// judged returns the report about the hosts of a DSN that said these facts; nil is a host that was not reached.
func judged(t *testing.T, dsn string, said ...*facts) *Report {
	t.Helper()
	target, err := ParseTarget(dsn)
	require.NoError(t, err)
	require.Len(t, target.hosts, len(said))
	all := make([]examined, len(said))
	for i, f := range said {
		h := target.hosts[i]
		all[i] = examined{host: h, report: Host{Host: h.name, Port: h.port, Findings: []Finding{}}, facts: f}
		if f == nil {
			all[i].err = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		}
	}
	r := New(target).judge(all)
	requireReadable(t, r)
	return r
}

// requireReadable requires that the report can be printed in both forms.
func requireReadable(t *testing.T, r *Report) {
	t.Helper()
	var text, painted, asJSON strings.Builder
	require.NoError(t, r.Write(&text, terminal.Look{}))
	require.NoError(t, r.Write(&painted, terminal.Look{Color: true}))
	bare := painted.String()
	for _, s := range terminal.Sequences() {
		bare = strings.ReplaceAll(bare, s, "")
	}
	require.NotEqual(t, painted.String(), bare)
	require.Equal(t, text.String(), bare)
	require.NoError(t, r.WriteJSON(&asJSON))
	var back Report
	d := json.NewDecoder(strings.NewReader(asJSON.String()))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&back))
	require.Equal(t, *r, back)
}

// of returns the findings of a check, of the DSN and of all hosts, each as "level: text".
func (r *Report) of(check string) (texts []string) {
	add := func(findings []Finding) {
		for _, f := range findings {
			if f.Check == check {
				texts = append(texts, string(f.Level)+": "+f.Text)
			}
		}
	}
	for _, h := range r.Hosts {
		add(h.Findings)
	}
	add(r.Findings)
	return texts
}

func TestOfASoundServerThereIsNothingToSay(t *testing.T) {
	r := judged(t, "postgres://app@db1,db2/shop?sslmode=verify-full&connect_timeout=5&target_session_attrs=read-write", sound(), nil)
	require.Equal(t, Warning, r.Level, "one host is away")
	require.Empty(t, r.Changes)
	h := r.Hosts[0]
	h.Findings = nil
	require.Equal(t, Host{
		Host: "db1", Port: 5432, Address: "192.0.2.1:5432", Reachable: true, Version: "17.2", Kind: "PostgreSQL", Role: "primary",
		TLS: "TLS 1.3", Commit: "xid",
	}, h)
	for _, f := range append(r.Hosts[0].Findings, r.Findings...) {
		require.Equal(t, OK, f.Level, f)
	}
	require.Equal(t, []string{"ok: 10 of 100 in use, 3 reserved"}, r.of("max_connections"))
}

// Each row spoils one thing.
func TestEachFaultIsFoundAtItsLevel(t *testing.T) {
	set := func(name, value, unit string) func(*facts) {
		return func(f *facts) { f.settings[name] = setting{value, unit, "database"} }
	}
	for name, c := range map[string]struct {
		dsn    string
		spoil  func(*facts)
		check  string
		want   string
		change string
	}{
		"short statement_timeout":  {spoil: set("statement_timeout", "500", "ms"), check: "statement_timeout", want: "warning: 500ms (set for the database)"},
		"long statement_timeout":   {spoil: set("statement_timeout", "60000", "ms"), check: "statement_timeout", want: "note: 1m0s"},
		"transaction_timeout":      {spoil: set("transaction_timeout", "1000", "ms"), check: "transaction_timeout", want: "warning: 1s"},
		"lock_timeout":             {spoil: set("lock_timeout", "3000", "ms"), check: "lock_timeout", want: "note: 3s"},
		"idle in transaction":      {spoil: set("idle_in_transaction_session_timeout", "900", "ms"), check: "idle_in_transaction_session_timeout", want: "warning: 900ms"},
		"idle session":             {spoil: set("idle_session_timeout", "60000", "ms"), check: "idle_session_timeout", want: "note: 1m0s"},
		"fsync":                    {spoil: set("fsync", "off", ""), check: "fsync", want: "problem: off"},
		"full_page_writes":         {spoil: set("full_page_writes", "off", ""), check: "full_page_writes", want: "problem: off"},
		"synchronous_commit off":   {spoil: set("synchronous_commit", "off", ""), check: "synchronous_commit", want: "warning: off"},
		"read only":                {spoil: set("default_transaction_read_only", "on", ""), check: "default_transaction_read_only", want: "warning: on (set for the database)"},
		"read only, read-write":    {dsn: soundDSN + "&target_session_attrs=read-write", spoil: set("default_transaction_read_only", "on", ""), check: "default_transaction_read_only", want: "problem: on"},
		"serializable":             {spoil: set("default_transaction_isolation", "serializable", ""), check: "default_transaction_isolation", want: `note: it is "serializable"`},
		"slow keepalive":           {spoil: set("tcp_keepalives_idle", "7200", "s"), check: "tcp_keepalives_idle", want: "note: the server notices a client that vanished, and gives its locks back, after 2h0m15s", change: "tcp_server_side=on"},
		"keepalive of the system":  {spoil: func(f *facts) { set("tcp_keepalives_idle", "0", "s")(f); set("tcp_keepalives_interval", "0", "s")(f) }, check: "tcp_keepalives_idle", want: "note: the server notices", change: "tcp_server_side=on"},
		"full":                     {spoil: func(f *facts) { f.connections.used = 97 }, check: "max_connections", want: "problem: 97 of 100 in use, 3 reserved"},
		"crowded":                  {spoil: func(f *facts) { f.connections.used = 80 }, check: "max_connections", want: "warning: 80 of 100"},
		"limit of the role":        {spoil: func(f *facts) { f.connections.role = 5 }, check: "connection_limit", want: "note: the role may have 5 connections"},
		"pool too large":           {dsn: soundDSN + "&pool_max_conns=90", spoil: func(*facts) {}, check: "pool_max_conns", want: "warning: the pool may open 90 connections, and the server has room for 87 more"},
		"no TLS":                   {spoil: func(f *facts) { f.tls = nil }, check: "tls", want: "warning: the connection is not encrypted"},
		"certificate not checked":  {spoil: func(f *facts) { f.verified = false }, check: "tls", want: "note: TLS 1.3, but"},
		"prefer, and TLS is there": {dsn: "postgres://app@db1/shop", spoil: func(*facts) {}, check: "sslmode", want: "note: prefer or allow", change: "sslmode=require"},
		"prefer, and no TLS":       {dsn: "postgres://app@db1/shop", spoil: func(f *facts) { f.tls = nil }, check: "sslmode", want: "note: prefer or allow"},
		"pooler":                   {spoil: func(f *facts) { f.pid = 8 }, check: "exec_mode", want: "warning: pgx prepares statements", change: "default_query_exec_mode=exec"},
		"long connect_timeout":     {dsn: "postgres://app@db1/shop?connect_timeout=60&sslmode=verify-full", spoil: func(*facts) {}, check: "connect_timeout", want: "warning: 1m0s", change: "connect_timeout=5"},
		"short connect_timeout":    {dsn: "postgres://app@db1/shop?connect_timeout=1&sslmode=verify-full", spoil: func(*facts) {}, check: "connect_timeout", want: "note: 1s"},
		"check off":                {dsn: soundDSN + "&retry_commit_check=off", spoil: func(*facts) {}, check: "commit", want: "note: retry_commit_check=off"},
		"no identity": {
			spoil: func(f *facts) { f.identity, f.identityErr = outcome.Identity{}, errors.New("permission denied") },
			check: "commit", want: "warning: a COMMIT whose answer is lost stays unknown (ErrCommitUnknown), because the server does not say who it is: permission denied", change: "retry_commit_check=ledger",
		},
		"no status":             {spoil: func(f *facts) { f.statusErr = errors.New("no such function") }, check: "commit", want: "warning: a COMMIT whose answer is lost stays unknown", change: "retry_commit_check=ledger"},
		"other server":          {spoil: func(f *facts) { f.version = "CockroachDB CCL v25.1.2 (x86_64)" }, check: "commit", want: "warning: a COMMIT whose answer is lost stays unknown (ErrCommitUnknown), because CockroachDB has no transaction ids"},
		"ledger to be made":     {dsn: soundDSN + "&retry_commit_check=ledger", spoil: func(*facts) {}, check: "commit", want: "note: the ledger table"},
		"ledger there":          {dsn: soundDSN + "&retry_commit_check=ledger", spoil: func(f *facts) { f.ledger.exists = true }, check: "commit", want: "ok: a COMMIT whose answer is lost is found out by its token"},
		"ledger not granted":    {dsn: soundDSN + "&retry_commit_check=ledger", spoil: func(f *facts) { f.ledger.exists, f.ledger.usable = true, false }, check: "commit", want: "problem: the role may not use"},
		"ledger not to be made": {dsn: soundDSN + "&retry_commit_check=ledger", spoil: func(f *facts) { f.ledger.usable = false }, check: "commit", want: "problem: the ledger table"},
		"only a standby":        {spoil: func(f *facts) { f.standby = true }, check: "target_session_attrs", want: "note: the only host is a standby"},
		"no primary":            {dsn: soundDSN + "&target_session_attrs=read-write", spoil: func(f *facts) { f.standby = true }, check: "target_session_attrs", want: "problem: read-write, and no host that answers is a primary"},
		"no standby":            {dsn: soundDSN + "&target_session_attrs=standby", spoil: func(*facts) {}, check: "target_session_attrs", want: "problem: standby, and no host"},
		"no answer":             {spoil: func(f *facts) { f.unanswered = []unanswered{{"its settings", errors.New("no")}} }, check: "answers", want: "note: the server does not say its settings: no"},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := c.dsn
			if dsn == "" {
				dsn = soundDSN
			}
			f := sound()
			c.spoil(f)
			r := judged(t, dsn, f)
			found := r.of(c.check)
			require.NotEmpty(t, found)
			require.True(t, strings.HasPrefix(found[0], c.want), "%s\nwanted %s", found[0], c.want)
			level, _, _ := strings.Cut(c.want, ":")
			require.GreaterOrEqual(t, r.Level.rank(), Level(level).rank())
			var changes []string
			for _, change := range r.Changes {
				changes = append(changes, change.Key+"="+change.Value)
			}
			require.Equal(t, c.change, strings.Join(changes, " "))
			if c.change != "" {
				require.Contains(t, r.Suggested, c.change)
			}
		})
	}
}

func TestSeveralHostsWithoutARoleAreGivenOne(t *testing.T) {
	standby := sound()
	standby.standby = true
	r := judged(t, "host=db1,db2 user=app dbname=shop sslmode=verify-full", sound(), standby)
	require.Contains(t, r.of("target_session_attrs")[0], "warning: several hosts and no target_session_attrs: db2:5432 is a standby")
	require.Equal(t, "host=db1,db2 user=app dbname=shop sslmode=verify-full target_session_attrs=read-write", r.Suggested)
	r = judged(t, "host=db1,db2 user=app dbname=shop sslmode=verify-full", sound(), sound())
	require.Contains(t, r.of("target_session_attrs")[0], "note: several hosts and no target_session_attrs")
}

func TestTwoPrimariesAreToldFromOneWithTwoNames(t *testing.T) {
	const dsn = "postgres://app@db1,db2/shop?sslmode=verify-full&target_session_attrs=primary"
	require.Empty(t, judged(t, dsn, sound(), sound()).of("hosts"), "one server under two names")
	promoted := sound()
	promoted.identity.Timeline = 2
	require.Contains(t, judged(t, dsn, sound(), promoted).of("hosts")[0], "problem: db1:5432 and db2:5432 both are primaries of the same cluster")
	stranger := sound()
	stranger.identity.System = "2"
	require.Contains(t, judged(t, dsn, sound(), stranger).of("hosts")[0], "problem: db1:5432 and db2:5432 are not of the same cluster")
}

func TestWhereNoHostAnswersThatIsAProblem(t *testing.T) {
	r := judged(t, "postgres://app@db1,db2/shop?sslmode=disable", nil, nil)
	require.Equal(t, Problem, r.Level)
	require.Equal(t, []string{"problem: no host can be connected to"}, r.of("hosts"))
	require.Contains(t, r.of("reachable")[0], "warning: not reached (retrypg tries the other hosts)")
	r = judged(t, "postgres://app@db1/shop?sslmode=disable", nil)
	require.Contains(t, r.of("reachable")[0], "problem: not reached (retrypg waits for it)")
}

func TestWhatToDoIsSaidOfTheUsualErrorsOfConnecting(t *testing.T) {
	target, err := ParseTarget("postgres://app@db1/shop")
	require.NoError(t, err)
	for _, code := range []string{"28P01", "28000", "3D000", "42501", "53300", "57P03"} {
		e := examined{host: target.hosts[0], err: &pgconn.PgError{Severity: "FATAL", Code: code, Routine: "x"}}
		New(target).judgeUnreachable(&e, false)
		require.NotEmpty(t, e.report.Findings[0].Advice, code)
	}
}

func TestKindsOfServersAreToldApart(t *testing.T) {
	for _, c := range []struct {
		version, number, setting string
		kind, release            string
		postgres                 bool
	}{
		{"PostgreSQL 15.18 (Debian 15.18-1) on x86_64", "15.18 (Debian 15.18-1)", "", "PostgreSQL", "15.18", true},
		{"PostgreSQL 18beta1", "18beta1", "", "PostgreSQL", "18beta1", true},
		{"CockroachDB CCL v25.1.2 (x86_64-pc-linux-gnu)", "13.0.0", "", "CockroachDB", "25.1.2", false},
		{"PostgreSQL 15.2-YB-2025.1.0.0-b0 on x86_64", "15.2", "", "YugabyteDB", "2025.1.0.0", false},
		{"PostgreSQL 8.0.2 on i686, Redshift 1.0.77467", "8.0.2", "", "Amazon Redshift", "1.0.77467", false},
		{"PostgreSQL 16.4 on aarch64", "16.4", "rds.extensions", "Amazon RDS for PostgreSQL", "16.4", true},
		{"PostgreSQL 16.4 on aarch64", "16.4", "aurora_compute_plan_id", "Amazon Aurora PostgreSQL", "16.4", true},
		{"PostgreSQL 17.2 on x86_64 (EnterpriseDB Advanced Server 17.2)", "17.2", "", "EDB Postgres", "17.2", true},
	} {
		settings := map[string]setting{c.setting: {}, "rds.extensions": {}}
		if !strings.Contains(c.kind, "Amazon R") && !strings.Contains(c.kind, "Aurora") {
			settings = nil
		}
		kind, release, postgres := kindOf(c.version, c.number, settings)
		require.Equal(t, []any{c.kind, c.release, c.postgres}, []any{kind, release, postgres}, c.version)
	}
}
