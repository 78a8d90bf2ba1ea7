package retrypg

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/policy"
)

// withoutPGEnv makes a test independent of the PG* variables and files of the machine.
func withoutPGEnv(tb testing.TB) {
	tb.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "PG") {
			tb.Setenv(name, "") // so that it comes back afterwards
			require.NoError(tb, os.Unsetenv(name))
		}
	}
	dir := tb.TempDir()
	tb.Setenv("PGPASSFILE", filepath.Join(dir, "none"))
	tb.Setenv("PGSERVICEFILE", filepath.Join(dir, "none"))
}

// asURL and asKeywords write the same DSN in both forms.
func asURL(pairs ...string) string {
	var q []string
	for i := 0; i < len(pairs); i += 2 {
		q = append(q, pairs[i]+"="+escaped(pairs[i+1]))
	}
	return "postgres://app:s3cret@db1:5433,db2/shop?" + strings.Join(q, "&")
}

// escaped is s as any part of a URL: PostgreSQL does not take + for a space.
func escaped(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func asKeywords(pairs ...string) string {
	dsn := "user=app password='s3cret' host=db1,db2 port=5433, dbname=shop"
	for i := 0; i < len(pairs); i += 2 {
		dsn += " " + pairs[i] + " = '" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(pairs[i+1]) + "'"
	}
	return dsn
}

var bothForms = map[string]func(...string) string{"url": asURL, "keyword/value": asKeywords}

func TestEveryKeySetsItsSettingInBothForms(t *testing.T) {
	withoutPGEnv(t)
	jitter := func(text string) func(*settings) {
		j, err := policy.ParseJitter(text)
		require.NoError(t, err)
		return func(s *settings) { s.jitter, s.jitterSet = j, true }
	}
	tests := []struct {
		key, value string
		want       func(s *settings)
	}{
		{"retry_max_attempts", "1", func(s *settings) { s.maxAttempts = 1 }},
		{"retry_max_attempts", "1000000", func(s *settings) { s.maxAttempts = 1_000_000 }},
		{"retry_max_elapsed", "30s", func(s *settings) { s.maxElapsed = 30 * time.Second }},
		{"retry_max_elapsed", "30", func(s *settings) { s.maxElapsed = 30 * time.Second }},
		{"retry_max_elapsed", "off", func(s *settings) { s.maxElapsed = Off }},
		{"retry_initial_delay", "1500us", func(s *settings) { s.initialDelay = 1500 * time.Microsecond }},
		{"retry_initial_delay", "5s", func(s *settings) { s.initialDelay = 5 * time.Second }},
		{"retry_max_delay", "86400", func(s *settings) { s.maxDelay = 24 * time.Hour }},
		{"retry_max_delay", "1ms", func(s *settings) { s.maxDelay = time.Millisecond }},
		{"retry_multiplier", "1.5", func(s *settings) { s.multiplier = 1.5 }},
		{"retry_jitter", "none", jitter("none")},
		{"retry_jitter", "decorrelated", jitter("decorrelated")},
		{"retry_jitter", "proportional:0.25", jitter("proportional:0.25")},
		{"retry_connect_max_elapsed", "2m", func(s *settings) { s.connectMaxElapsed = 2 * time.Minute }},
		{"retry_budget", "off", func(s *settings) { s.budgetOff = true }},
		{"retry_budget", "on", func(*settings) {}},
		{"retry_budget_ratio", "0.2", func(s *settings) { s.budgetRatio = 0.2 }},
		{"retry_budget_burst", "20", func(s *settings) { s.budgetBurst = 20 }},
		{"retry_budget_min_per_second", "10", func(s *settings) { s.budgetMinPerSecond = 10 }},
		{"retry_contention_control", "off", func(s *settings) { s.contentionOff = true }},
		{"retry_contention_control", "on", func(*settings) {}},
		{"retry_escalate_after", "7", func(s *settings) { s.escalateAfter = 7 }},
		{"retry_advisory_locks", "on", func(s *settings) { s.advisoryLocks = true }},
		{"retry_advisory_locks", "off", func(*settings) {}},
		{"breaker_failures", "5", func(s *settings) { s.breakerOn, s.breaker.Failures = true, 5 }},
		{"breaker_failures", "off", func(*settings) {}},
		{"breaker_failures", "0", func(*settings) {}},
		{"retry_commit_check", "xid", func(s *settings) { s.commitCheck = XID }},
		{"retry_commit_check", "ledger", func(s *settings) { s.commitCheck = Ledger }},
		{"retry_commit_check", "off", func(s *settings) { s.commitCheck = NoCheck }},
		{"retry_otelsql", "spans", func(s *settings) { s.otelsqlUse = OTelSQLForSpans }},
		{"retry_otelsql", "always", func(s *settings) { s.otelsqlUse = OTelSQLAlways }},
		{"retry_otelsql", "never", func(s *settings) { s.otelsqlUse = OTelSQLNever }},
		{"retry_commit_check_max_elapsed", "45", func(s *settings) { s.commitCheckMaxElapsed = 45 * time.Second }},
		{"retry_lazy_begin", "off", func(s *settings) { s.lazyBegin = lazyBeginOff }},
		{"retry_lazy_begin", "on", func(s *settings) { s.lazyBegin = lazyBeginOn }},
		{"retry_ledger_table", "app.Commits", func(s *settings) { s.ledgerTable = "app.Commits" }},
		{"retry_ledger_retention", "90m", func(s *settings) { s.ledgerRetention = 90 * time.Minute }},
		{"tcp_user_timeout", "5000", func(s *settings) { s.tcpUserTimeout = 5 * time.Second }},
		{"tcp_user_timeout", "5s", func(s *settings) { s.tcpUserTimeout = 5 * time.Second }},
		{"tcp_user_timeout", "2147483647", func(s *settings) { s.tcpUserTimeout = 2147483647 * time.Millisecond }},
		{"retry_statement_timeout", "5", func(s *settings) { s.statementTimeout = 5 * time.Second }},
		{"retry_statement_timeout", "off", func(s *settings) { s.statementTimeout = Off }},
		{"retry_ping_after", "30s", func(s *settings) { s.pingAfter = 30 * time.Second }},
		{"retry_ping_after", "off", func(s *settings) { s.pingAfter = Off }},
		{"load_balance_hosts", "random", func(s *settings) { s.randomHosts = true }},
		{"load_balance_hosts", "disable", func(*settings) {}},
		{"tcp_server_side", "on", func(s *settings) { s.serverSideOn = true }},
		{"tcp_server_side", "off", func(*settings) {}},
		{"tcp_user_timeout", "off", func(s *settings) { s.tcpUserTimeout = Off }},
		{"tcp_user_timeout", "0", func(s *settings) { s.tcpUserTimeout = Off }},
		{"tcp_keepalive_idle", "7", func(s *settings) { s.tcpKeepAliveIdle = 7 * time.Second }},
		{"tcp_keepalive_idle", "off", func(s *settings) { s.tcpKeepAliveIdle = Off }},
		{"keepalives_idle", "7", func(s *settings) { s.tcpKeepAliveIdle = 7 * time.Second }},
		{"tcp_keepalive_interval", "1500ms", func(s *settings) { s.tcpKeepAliveInterval = 1500 * time.Millisecond }},
		{"keepalives_interval", "2", func(s *settings) { s.tcpKeepAliveInterval = 2 * time.Second }},
		{"tcp_keepalive_count", "127", func(s *settings) { s.tcpKeepAliveCount = 127 }},
		{"keepalives_count", "4", func(s *settings) { s.tcpKeepAliveCount = 4 }},
		{"keepalives", "0", func(s *settings) { s.tcpKeepAliveIdle = Off }},
		{"keepalives", "1", func(*settings) {}},
	}
	tested := map[string]bool{}
	for _, tc := range tests {
		tested[tc.key] = true
		for form, dsn := range bothForms {
			cfg, s, err := parseDSN(dsn(tc.key, tc.value, "application_name", "shop one"))
			require.NoError(t, err, "%s %s=%s", form, tc.key, tc.value)
			var want settings
			tc.want(&want)
			require.Equal(t, want, s, "%s %s=%s", form, tc.key, tc.value)
			require.Equal(t, map[string]string{"application_name": "shop one"}, cfg.RuntimeParams)
			require.Equal(t, "s3cret", cfg.Password)
			require.EqualValues(t, 5433, cfg.Port)
			require.Equal(t, "db1", cfg.Host)
		}
	}
	want := settings{breakerOn: true}
	want.breaker.Failures, want.breaker.Probes = 3, 2
	want.breaker.Window, want.breaker.OpenFor, want.breaker.ProbeLease = time.Minute, 2*time.Second, 3*time.Second
	for _, dsn := range bothForms {
		_, s, err := parseDSN(dsn("breaker_failures", "3", "breaker_window", "1m", "breaker_open_for", "2",
			"breaker_probes", "2", "breaker_probe_lease", "3s"))
		require.NoError(t, err)
		require.Equal(t, want, s)
	}
	for _, name := range dsnKeyNames() {
		require.True(t, tested[name] || strings.HasPrefix(name, "breaker_"), "no test for %s", name)
	}
}

func TestWithoutKeysEverySettingIsUnset(t *testing.T) {
	withoutPGEnv(t)
	for _, dsn := range []string{"", "host=db", "postgres://db/shop", "postgres://[::1]:5433,db2:5434/shop?search_path=a,b"} {
		_, s, err := parseDSN(dsn)
		require.NoError(t, err, dsn)
		require.Equal(t, settings{}, s, dsn)
	}
}

func TestTheDefaultsOfTheTableAreTheDefaults(t *testing.T) {
	for _, k := range dsnKeys {
		if k.name != "breaker_failures" && strings.HasPrefix(k.name, "breaker_") || strings.HasPrefix(k.name, "retry_budget_") {
			continue // their defaults are filled in by the packages that have them, whose constants the table uses
		}
		var s settings
		s.lazyBegin = lazyBeginOn
		require.Empty(t, k.parse(&s, k.def), k.name)
		got, want := s.withDefaults(), settings{}.withDefaults()
		want.lazyBegin = lazyBeginOn // which the linker may have changed
		if got.maxElapsed == Off {
			got.maxElapsed = 0 // the same: no bound
		}
		if got.statementTimeout == Off {
			got.statementTimeout = 0
		}
		got.jitterSet = want.jitterSet
		require.Equal(t, want, got, k.name)
	}
}

func TestDefaultsAreWithinWhatIsAllowed(t *testing.T) {
	for _, k := range dsnKeys {
		var s settings
		require.Empty(t, k.parse(&s, k.def), k.name)
		require.NoError(t, s.withDefaults().validate(), k.name)
	}
}

func TestTheBreakerTakesEveryValueThatTheTableAllows(t *testing.T) {
	withoutPGEnv(t)
	for _, pairs := range [][]string{
		{
			"breaker_failures", "1", "breaker_window", "1us", "breaker_open_for", "1us", "breaker_probes", "1",
			"breaker_probe_lease", "1us",
		},
		{
			"breaker_failures", "10000", "breaker_window", "24h", "breaker_open_for", "24h", "breaker_probes", "10000",
			"breaker_probe_lease", "24h",
		},
	} {
		_, s, err := parseDSN(asURL(pairs...))
		require.NoError(t, err)
		_, err = breaker.New(s.breaker)
		require.NoError(t, err)
	}
}

func TestTheBudgetTakesEveryValueThatTheTableAllows(t *testing.T) {
	withoutPGEnv(t)
	for _, pairs := range [][]string{
		{"retry_budget_ratio", "0.001", "retry_budget_min_per_second", "0.001"},
		{"retry_budget_ratio", "1", "retry_budget_min_per_second", "1000000"},
	} {
		_, s, err := parseDSN(asURL(pairs...))
		require.NoError(t, err)
		_, err = policy.NewBudget(policy.BudgetOptions{Ratio: s.budgetRatio, MinPerSecond: s.budgetMinPerSecond})
		require.NoError(t, err)
	}
}

func TestParametersOfTheServerPassThrough(t *testing.T) {
	withoutPGEnv(t)
	pairs := []string{
		"tcp_keepalives_idle", "2", "tcp_keepalives_interval", "1", "tcp_keepalives_count", "3", "search_path", "a",
		"lock_timeout", "1s", "retry_ext.jitter", "x", "statement_timeout", "5", "options", "-c tcp_user_timeout=5000",
	}
	for _, dsn := range bothForms {
		cfg, s, err := parseDSN(dsn(pairs...))
		require.NoError(t, err)
		require.Equal(t, settings{}, s)
		require.Len(t, cfg.RuntimeParams, len(pairs)/2)
		for i := 0; i < len(pairs); i += 2 {
			require.Equal(t, pairs[i+1], cfg.RuntimeParams[pairs[i]])
		}
	}
}

func TestAKeyGivenTwiceIsAnError(t *testing.T) {
	withoutPGEnv(t)
	for _, dsn := range bothForms {
		_, _, err := parseDSN(dsn("retry_jitter", "full", "search_path", "a", "retry_jitter", "full"))
		require.EqualError(t, err, "retrypg: dsn key retry_jitter is given twice; give it once")

		_, _, err = parseDSN(dsn("keepalives_idle", "5", "tcp_keepalive_idle", "5"))
		require.EqualError(t, err, "retrypg: dsn key tcp_keepalive_idle is the same as keepalives_idle, which is given too; give one of them")

		_, _, err = parseDSN(dsn("search_path", "a", "search_path", "b"))
		require.NoError(t, err, "what is not ours is pgx's to judge")
	}
	_, _, err := parseDSN("postgres://db/?retry_jitter=full&retry%5Fjitter=none")
	require.ErrorContains(t, err, "given twice")
	_, _, err = parseDSN("postgres://[fe80::1?retry_jitter=a],db2/?retry_jitter=full")
	require.NoError(t, err, "a host is not a parameter")
	_, _, err = parseDSN(`password='a retry_jitter=full \' retry_jitter=full' host=x retry_jitter=full`)
	require.NoError(t, err, "a value is not a parameter")
	_, _, err = parseDSN(`password=a\ retry_jitter=full retry_jitter=full`)
	require.NoError(t, err, "an escaped space does not end a value")
}

func TestKeysThatContradictEachOtherAreAnError(t *testing.T) {
	withoutPGEnv(t)
	for _, dsn := range bothForms {
		_, _, err := parseDSN(dsn("retry_initial_delay", "2s", "retry_max_delay", "1s"))
		require.EqualError(t, err, "retrypg: dsn key retry_initial_delay is longer than retry_max_delay; make it equal or shorter")

		_, _, err = parseDSN(dsn("breaker_window", "2s"))
		require.EqualError(t, err, "retrypg: dsn key breaker_window has no effect without breaker_failures; add breaker_failures=5 or remove it")

		_, s, err := parseDSN(dsn("breaker_failures", "off", "breaker_window", "2s"))
		require.NoError(t, err, "a breaker may be switched off and keep its other keys")
		require.False(t, s.breakerOn)
	}
}

func TestLibpqsSwitchTurnsKeepAliveOffWhateverElseIsGiven(t *testing.T) {
	withoutPGEnv(t)
	_, s, err := parseDSN("host=db keepalives=0 keepalives_idle=5 keepalives_interval=1 keepalives_count=3")
	require.NoError(t, err)
	require.Equal(t, Off, s.tcpKeepAliveIdle)
}

func TestKeysMayComeFromAServiceFileAndTheDSNWins(t *testing.T) {
	withoutPGEnv(t)
	file := filepath.Join(t.TempDir(), "pg_service.conf")
	require.NoError(t, os.WriteFile(file, []byte(
		"[shop]\nhost=db9\npassword=filepw\nretry_jitter=equal\nkeepalives_idle=9\nretry_max_attempts=4\n"+
			"[broken]\nhost=db9\npassword=filepw\nretry_jitter=filepw\n"), 0o600))
	t.Setenv("PGSERVICEFILE", file)

	cfg, s, err := parseDSN("service=shop retry_max_attempts=7 tcp_keepalive_idle=3")
	require.NoError(t, err)
	require.Equal(t, "db9", cfg.Host)
	require.Equal(t, 7, s.maxAttempts)
	require.Equal(t, 3*time.Second, s.tcpKeepAliveIdle)
	require.True(t, s.jitterSet)
	require.Empty(t, cfg.RuntimeParams)

	_, _, err = parseDSN("service=broken")
	require.ErrorContains(t, err, "retrypg: dsn key retry_jitter: the value is not allowed")
	requireNoSecret(t, err, "filepw")

	_, _, err = parseDSN("service=none")
	require.EqualError(t, err, "retrypg: dsn key service names a service that the service file does not have")
	t.Setenv("PGSERVICEFILE", file+".none")
	_, _, err = parseDSN("service=shop")
	require.ErrorContains(t, err, "needs a service file that can be read")
}

func TestAPoolDSNTakesBothKindsOfKeys(t *testing.T) {
	withoutPGEnv(t)
	cfg, s, err := parsePoolDSN(asURL("pool_max_conns", "7", "retry_max_attempts", "3"))
	require.NoError(t, err)
	require.EqualValues(t, 7, cfg.MaxConns)
	require.Equal(t, 3, s.maxAttempts)
	require.Empty(t, cfg.ConnConfig.RuntimeParams)

	_, _, err = parsePoolDSN(asURL("pool_max_conns", "s3cret"))
	require.ErrorContains(t, err, "retrypg: dsn key pool_max_conns")
	requireNoSecret(t, err, "s3cret")
	_, _, err = parsePoolDSN(asURL("retry_jitter", "s3cret"))
	requireNoSecret(t, err, "s3cret")
}

func TestTakeKeysWorksOnAConfigurationThatPgxMade(t *testing.T) {
	params := map[string]string{"retry_max_attempts": "3", "search_path": "a"}
	var s settings
	require.NoError(t, takeKeys(params, "retry_max_attempts=3 search_path=a", &s))
	require.Equal(t, settings{maxAttempts: 3}, s)
	require.Equal(t, map[string]string{"search_path": "a"}, params)

	require.NoError(t, takeKeys(nil, "", &s))

	t.Setenv("PGPASSWORD", "s3cret")
	requireNoSecret(t, takeKeys(map[string]string{"retry_jitter": "s3cret"}, "", &s), "s3cret")

	params = map[string]string{"retry_wat": "3", "retry_jitter": "x"}
	require.Error(t, takeKeys(params, "", &s))
	require.Empty(t, params, "wrong keys do not reach the server either")
}

func TestTheTableHasOneRowForEachKey(t *testing.T) {
	table := dsnKeyTable()
	require.Equal(t, len(dsnKeys)+2, strings.Count(table, "\n"))
	for _, k := range dsnKeys {
		require.Contains(t, table, "| `"+k.name+"`")
		require.NotEmpty(t, k.doc)
		require.NotEmpty(t, k.allowed)
		require.NotEmpty(t, k.def)
	}
	for line := range strings.Lines(table) {
		require.Equal(t, 5, strings.Count(line, "|"), line)
	}
}
