package retrypg

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func FuzzNoDSNPanicsOrLeavesAKeyOfOurs(f *testing.F) {
	withoutPGEnv(f)
	for _, dsn := range []string{
		"", "host=db", "postgres://app:pw@db1:1,[::1]:2/shop?retry_jitter=full&tcp_user_timeout=5s",
		"host=db password='a b' retry_jitter=ful", `password=a\ b breaker_failures=3 breaker_probes=2 keepalives=0`,
		"postgres:///?retry_jiter=%66ull&retry_jitter=", "postgres://a:b/c?d=e@f", "retry_max_attempts=\\", "=", "'", "retry_=",
		"postgresql://[?retry_budget=off]/x?retry_budget=on&retry_budget=on",
	} {
		f.Add(dsn)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		if readsFiles(dsn) {
			return
		}
		plain, plainErr := pgx.ParseConfig(dsn)
		cfg, s, err := parseDSN(dsn)
		if plainErr != nil {
			require.Error(t, err, "what pgx refuses is refused")
			return
		}
		requireNoSecretOf(t, err, plain.Password)
		if err != nil {
			require.LessOrEqual(t, len(err.Error()), 600*(1+strings.Count(dsn, "=")))
			return
		}
		require.NoError(t, s.withDefaults().validate())
		for k := range cfg.RuntimeParams {
			require.Nil(t, dsnKeyNamed(k), k)
			require.False(t, misspelt(k), k)
		}
		for k, v := range plain.RuntimeParams {
			if dsnKeyNamed(k) == nil {
				require.Equal(t, v, cfg.RuntimeParams[k], "what is not ours is left alone")
			}
		}
		require.Equal(t, plain.Host, cfg.Host)
		require.Equal(t, plain.Password, cfg.Password)
		// What the scanner sees of an accepted DSN is what pgx saw.
		given, _ := dsnPairs(dsn)
		last := map[string]string{}
		for _, g := range given {
			last[g.Key] = g.Value
		}
		for k, v := range plain.RuntimeParams {
			if dsnKeyNamed(k) != nil {
				require.Equal(t, v, last[k], k)
			}
		}
	})
}

// readsFiles keeps the fuzzer from devices that have no end.
func readsFiles(dsn string) bool {
	lower := strings.ToLower(dsn)
	return strings.Contains(lower, "file") || strings.Contains(lower, "ssl") || strings.Contains(lower, "%") && strings.Contains(lower, "/dev")
}

// requireNoSecretOf is requireNoSecret for secrets that may be part of the texts of errors by chance, as "a" is.
func requireNoSecretOf(tb testing.TB, err error, secret string) {
	tb.Helper()
	if len(secret) < 6 || strings.Contains(fixedTexts(), secret) {
		return
	}
	requireNoSecret(tb, err, secret)
}

func fixedTexts() string {
	var b strings.Builder
	b.WriteString(dsnKeyTable())
	for _, p := range pgxSays {
		b.WriteString(p.key + p.problem + p.allowed)
	}
	b.WriteString("retrypg: dsn key : the value is not allowed; allowed: ; did you mean \"\"? a key is not known" +
		" has no effect without breaker_failures; add breaker_failures=5 or remove it is given twice; give it once" +
		" is the same as , which is given too; give one of them is longer than retry_max_delay; make it equal or shorter")
	return b.String()
}

func FuzzThePasswordIsInNoError(f *testing.F) {
	withoutPGEnv(f)
	f.Add("hunter", "retry_jitter", "ful")
	f.Add("a/b?c=d&retry_jitter=x", "retry_wat", "1")
	f.Add("a@b:c", "port", "x")
	f.Add("%41'\\ ", "tcp_user_timeout", "%zz")
	f.Add("1/?retry_=", "sslmode", "x")
	f.Fuzz(func(t *testing.T, middle, key, value string) {
		// Marks at both ends: not even a part of the password may be seen.
		const head, tail = "9qZ7x", "w8Kv4"
		password := head + middle + tail
		if readsFiles(middle + key + value) {
			return
		}
		quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
		dsns := []string{
			"postgres://app:" + escaped(password) + "@db/shop?" + escaped(key) + "=" + escaped(value),
			"postgres://app:" + escaped(password) + "@db/shop?" + key + "=" + value,
			"postgres://app@db/shop?password=" + escaped(password) + "&" + key + "=" + value,
			"postgres://app:" + escaped(password) + "@db/shop?retry_jitter=" + escaped(value+password),
			"host=db password='" + quoted.Replace(password) + "' " + key + "='" + quoted.Replace(value) + "'",
			"host=db password='" + quoted.Replace(password) + "' " + key + "='" + quoted.Replace(value+password) + "'",
			"postgres://app:" + password + "@db/shop?" + key + "=" + value, // not escaped: taken apart by its / and ?
		}
		if !strings.ContainsAny(password, " \t\n\r\v\f'\\") {
			dsns = append(dsns, "host=db password="+password+" "+key+"="+value)
		}
		for _, dsn := range dsns {
			_, _, err := parseDSN(dsn)
			requireNoSecret(t, err, head, dsn)
			requireNoSecret(t, err, tail, dsn)
			_, _, err = parsePoolDSN(dsn)
			requireNoSecret(t, err, head, dsn)
			requireNoSecret(t, err, tail, dsn)
		}
	})
}

func FuzzSettingsComeBackFromBothForms(f *testing.F) {
	withoutPGEnv(f)
	f.Add(3, int64(time.Second), 1.5, 5, int64(7*time.Second))
	f.Fuzz(func(t *testing.T, attempts int, delay int64, multiplier float64, failures int, idle int64) {
		pairs := []string{
			"retry_max_attempts", strconv.Itoa(attempts),
			"retry_initial_delay", time.Duration(delay).String(),
			"retry_multiplier", strconv.FormatFloat(multiplier, 'g', -1, 64),
			"breaker_failures", strconv.Itoa(failures),
			"tcp_keepalive_idle", time.Duration(idle).String(),
		}
		_, a, errA := parseDSN(asURL(pairs...))
		_, b, errB := parseDSN(asKeywords(pairs...))
		require.Equal(t, a, b)
		if errA != nil {
			require.EqualError(t, errB, errA.Error())
			return
		}
		require.NoError(t, errB)
		want := settings{
			maxAttempts: attempts, initialDelay: time.Duration(delay), multiplier: multiplier,
			tcpKeepAliveIdle: time.Duration(idle),
		}
		if failures > 0 {
			want.breakerOn, want.breaker.Failures = true, failures
		}
		require.Equal(t, want, a)
	})
}
