package retrypg

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

func TestWhatPgxCannotParseIsExplainedWithoutTheDSN(t *testing.T) {
	withoutPGEnv(t)
	missing := filepath.Join(t.TempDir(), "s3cret.pem")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for dsn, want := range map[string]string{
		"postgres://app:s3cret@db/%zz":                                                "it is not a valid URL",
		"postgres://app:s3cret@db/shop?s3cret":                                        "it is not a valid URL",
		"host db password=s3cret x":                                                   "neither a URL that begins with postgres:// nor",
		"postgresqls://app:s3cret@db/shop":                                            "neither a URL",
		"postgres://app:s3cret@db:99999/shop":                                         "key port: the value is not allowed; allowed: a whole number from 1",
		"postgres://app:s3cret/x@db/shop":                                             "key port: the value is not allowed",
		"password=s3cret host=a,b,c port=1,2":                                         "key port must be one for all hosts",
		"password=s3cret host=db connect_timeout=s3cret":                              "key connect_timeout",
		"password=s3cret host=db sslmode=s3cret":                                      "key sslmode: the value is not allowed; allowed: disable",
		"password=s3cret host=db sslcertmode=s3cret":                                  "key sslcertmode",
		"password=s3cret host=db sslmode=require sslrootcert=" + missing:              "key sslrootcert names a file that cannot be read: ",
		"password=s3cret host=db sslmode=require sslrootcert=" + empty:                "key sslrootcert names a file without a PEM certificate",
		"password=s3cret host=db sslmode=require sslcert=" + empty + " sslkey=" + "/": "key sslkey names a file that cannot be read",
		"password=s3cret host=db sslmode=require sslcert=" + empty + " sslkey=":       "TLS cannot be set up",
		"password=s3cret host=db target_session_attrs=s3cret":                         "key target_session_attrs",
		"password=s3cret host=db min_protocol_version=s3cret":                         "key min_protocol_version",
		"password=s3cret host=db max_protocol_version=s3cret":                         "key max_protocol_version",
		"password=s3cret host=db max_protocol_version=3.0 min_protocol_version=3.2":   "key min_protocol_version is above",
		"password=s3cret host=db channel_binding=s3cret":                              "key channel_binding",
		"password=s3cret host=db require_auth=s3cret":                                 "key require_auth",
		"password=s3cret host=db statement_cache_capacity=s3cret":                     "key statement_cache_capacity",
		"password=s3cret host=db description_cache_capacity=s3cret":                   "key description_cache_capacity",
		"password=s3cret host=db default_query_exec_mode=s3cret":                      "key default_query_exec_mode",
		"password=s3cret host=db\x00":                                                 "neither a URL",
	} {
		_, _, err := parseDSN(dsn)
		var de *DSNError
		require.ErrorAs(t, err, &de, dsn)
		require.ErrorContains(t, err, "retrypg: dsn")
		require.ErrorContains(t, err, want, dsn)
		requireNoSecret(t, err, "s3cret")
		require.NotContains(t, err.Error(), "cannot be parsed", "each of these has a text of its own")
	}
	_, _, err := parseDSN("password=s3cret host=db sslmode=require sslrootcert=" + missing)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestNoPartOfAMislaidPasswordIsShown(t *testing.T) {
	withoutPGEnv(t)
	for _, dsn := range []string{
		"postgres://app:12/s3cret?retry_jitter=s3cret&x=y@db/shop",   // an unescaped / and ? in the password
		"postgres://app:12/x?retry_s3cret=1&retry_jitter=s3cret@db/", // the same with an unknown key
		"password=s3cret retry_jitter=xs3cretx",
		"password=s3cret retry_s3cret=1",
		"password=s3cret retry_jitter=" + strings.Repeat("x", 60) + "s3cret", // the cut would leave the half of it
		"sslpassword=s3cret retry_jitter=s3cret",
		"postgres://db/?sslpassword=s3%63ret&retry_jitter=s3cret",
		"postgres://app:s3%63ret@db/?retry_jitter=s3cret",
	} {
		_, _, err := parseDSN(dsn)
		var de *DSNError
		require.ErrorAs(t, err, &de, dsn)
		requireNoSecret(t, err, "s3c", dsn)
	}
	t.Setenv("PGPASSWORD", "s3cret")
	t.Setenv("PGSSLPASSWORD", "hidd3n")
	for _, value := range []string{"s3cret", "hidd3n"} {
		_, _, err := parseDSN("host=db retry_jitter=" + value)
		require.Error(t, err)
		requireNoSecret(t, err, value)
	}
}

func TestAWrongValueNamesTheKeyTheValueAndWhatIsAllowed(t *testing.T) {
	withoutPGEnv(t)
	for key, values := range map[string][]string{
		"retry_max_attempts":          {"0", "-1", "1000001", "1.5", "ten", "off", "", "99999999999999999999"},
		"retry_max_elapsed":           {"-1s", "0", "25h", "30 s", "on", "9223372036854775807", "-5", "18446744074"},
		"retry_initial_delay":         {"off", "1ns", "-1ms", "999999999999"},
		"retry_max_delay":             {"0s", "off", "1d"},
		"retry_multiplier":            {"0.5", "NaN", "Inf", "-2", "1001", "two", "1e400"},
		"retry_jitter":                {"ful", "", "FULL", "proportional:2", "proportional:x", "proportional:NaN"},
		"retry_connect_max_elapsed":   {"off", "0", "-1"},
		"retry_statement_timeout":     {"-1", "0", "never"},
		"retry_ping_after":            {"-1", "0", "always"},
		"load_balance_hosts":          {"on", "Random", ""},
		"tcp_server_side":             {"1", "yes", ""},
		"retry_budget":                {"yes", "1", "true", "ON"},
		"retry_budget_ratio":          {"0", "1.1", "NaN", "-0.1"},
		"retry_budget_min_per_second": {"0", "-1", "Inf"},
		"retry_contention_control":    {"yes", ""},
		"retry_escalate_after":        {"0", "off"},
		"retry_advisory_locks":        {"yes", "1"},
		"breaker_failures":            {"-1", "on", "1.5", "10001"},
		"tcp_user_timeout":            {"-1", "1us", "2147483648", "600h", "soon"},
		"tcp_keepalive_idle":          {"0", "999ms", "32768", "-1"},
		"keepalives_idle":             {"0", "x"},
		"tcp_keepalive_interval":      {"off", "0"},
		"tcp_keepalive_count":         {"0", "128", "off"},
		"keepalives":                  {"2", "yes"},
	} {
		for _, value := range values {
			for form, dsn := range bothForms {
				_, _, err := parseDSN(dsn(key, value))
				var de *DSNError
				require.ErrorAs(t, err, &de, "%s %s=%q", form, key, value)
				require.Equal(t, key, de.Key)
				require.Equal(t, value, de.Value)
				require.Equal(t, dsnKeyNamed(key).allowed, de.Allowed)
				require.Contains(t, err.Error(), "retrypg: dsn key "+key+": ")
				require.Contains(t, err.Error(), "; allowed: "+de.Allowed)
			}
		}
	}
}

func TestAWrongWordNamesTheNearestRightOne(t *testing.T) {
	withoutPGEnv(t)
	_, _, err := parseDSN(asURL("retry_jitter", "ful"))
	require.EqualError(t, err, `retrypg: dsn key retry_jitter: "ful" is not allowed; allowed: none, full, equal, `+
		`decorrelated, proportional; proportional takes a factor, as in "proportional:0.25"; did you mean "full"?`)
	for value, want := range map[string]string{"Of": "off", "xyzzy-plugh": "", "": ""} {
		_, _, err = parseDSN(asKeywords("retry_max_elapsed", value))
		var de *DSNError
		require.ErrorAs(t, err, &de)
		require.Equal(t, want, de.Nearest, value)
	}
}

func TestAMisspeltKeyNamesTheNearestRightOne(t *testing.T) {
	withoutPGEnv(t)
	for key, want := range map[string]string{
		"retry_max_attempt":        "retry_max_attempts",
		"retry_jiter":              "retry_jitter",
		"retry_budjet":             "retry_budget",
		"rtery_jitter":             "retry_jitter",
		"Retry_Jitter":             "retry_jitter",
		"retry_":                   "retry_jitter",
		"breaker_failure":          "breaker_failures",
		"tcp_keepalive_idel":       "tcp_keepalive_idle",
		"tcp_keepalives_intervall": "tcp_keepalive_interval",
		"tcp_user_timeouts":        "tcp_user_timeout",
		"tcp_usertimeout":          "tcp_user_timeout",
		"keepalive":                "keepalives",
		"keepalives_idel":          "keepalives_idle",
	} {
		for form, dsn := range bothForms {
			_, _, err := parseDSN(dsn(key, "1"))
			var de *DSNError
			require.ErrorAs(t, err, &de, "%s %s", form, key)
			require.Equal(t, key, de.Key)
			require.Equal(t, want, de.Nearest)
			require.EqualError(t, err, `retrypg: dsn key `+key+` is not known; did you mean "`+want+`"?`)
		}
	}
}

func TestAllThatIsWrongIsReportedAtOnce(t *testing.T) {
	withoutPGEnv(t)
	_, _, err := parseDSN(asURL("retry_jitter", "x", "retry_max_attempts", "0", "retry_wat", "1"))
	require.ErrorContains(t, err, "retry_jitter")
	require.ErrorContains(t, err, "retry_max_attempts")
	require.ErrorContains(t, err, "retry_wat")
	first := err.Error()
	for range 20 {
		_, _, err = parseDSN(asURL("retry_jitter", "x", "retry_max_attempts", "0", "retry_wat", "1"))
		require.EqualError(t, err, first, "in the same order each time")
	}
}

func TestLongValuesAndKeysAreCut(t *testing.T) {
	withoutPGEnv(t)
	long := strings.Repeat("ä", 5000)
	_, _, err := parseDSN(asURL("retry_jitter", long))
	require.Less(t, len(err.Error()), 500)
	require.NotContains(t, err.Error(), `\x`, "not cut within a character")
	_, _, err = parseDSN(asKeywords("retry_"+strings.Repeat("x", 1<<20), "1"))
	require.Less(t, len(err.Error()), 500)
}

// requireNoSecret looks at everything that a program or a log could get out of err.
func requireNoSecret(tb testing.TB, err error, secret string, context ...any) {
	tb.Helper()
	if err == nil {
		return
	}
	var pe *pgconn.ParseConfigError
	require.NotErrorAs(tb, err, &pe)
	walk(err, func(e error) {
		require.NotContains(tb, e.Error(), secret, context...)
		var de *DSNError
		if errors.As(e, &de) {
			for _, field := range []string{de.Key, de.Value, de.Allowed, de.Nearest, de.Problem} {
				require.NotContains(tb, field, secret, context...)
			}
		}
	})
}

func walk(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	walk(errors.Unwrap(err), visit)
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			walk(e, visit)
		}
	}
}
