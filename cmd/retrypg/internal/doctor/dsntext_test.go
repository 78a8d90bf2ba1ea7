package doctor

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestADSNIsWrittenAgainWithChangesAndWithoutPasswords(t *testing.T) {
	changes := []Change{{Key: "target_session_attrs", Value: "read-write"}, {Key: "connect_timeout", Value: "5"}}
	for dsn, want := range map[string]string{
		"postgres://app@db/shop":                            "postgres://app@db/shop?target_session_attrs=read-write&connect_timeout=5",
		"postgres://app:geheim@db1:1,db2:2/shop?a=b":        "postgres://app:PASSWORD@db1:1,db2:2/shop?a=b&target_session_attrs=read-write&connect_timeout=5",
		"postgresql://db?connect_timeout=90&password=x%20y": "postgresql://db?password=PASSWORD&target_session_attrs=read-write&connect_timeout=5",
		"postgres://a:p@ss@db/shop#x":                       "postgres://a:PASSWORD@db/shop?target_session_attrs=read-write&connect_timeout=5",
		"postgres:///shop?host=%2Ftmp":                      "postgres:///shop?host=%2Ftmp&target_session_attrs=read-write&connect_timeout=5",
		`host=db password='it\'s' options='-c a=b'`:         `host=db password=PASSWORD options='-c a=b' target_session_attrs=read-write connect_timeout=5`,
		`host = db  password=x\ y user=''`:                  `host=db password=PASSWORD user='' target_session_attrs=read-write connect_timeout=5`,
		"":                                                  "target_session_attrs=read-write connect_timeout=5",
	} {
		text, err := parseText(dsn)
		require.NoError(t, err, dsn)
		require.Equal(t, want, text.with(changes))
	}
}

func TestADSNInWhichAPasswordMayBeTakenForSomethingElseIsNotShown(t *testing.T) {
	for _, dsn := range []string{"postgres://u:12/ge@db/shop", "postgres://u:12?ge@db/shop", "postgres://u:12#ge@db/shop"} {
		_, err := ParseTarget(dsn)
		require.ErrorIs(t, err, errAmbiguous)
		require.NotContains(t, err.Error(), "ge@")
	}
}

// Passwords are printable characters in any order, written in each way that a DSN has.
func TestNoPasswordIsLeftInADSNThatPgxReads(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		secret := make([]byte, 8+rng.IntN(8))
		for i := range secret {
			secret[i] = byte(' ' + rng.IntN(95))
		}
		password := "s" + string(secret) + "t" // no blanks at the ends
		inURL := url.UserPassword("app", password).String() + "@"
		for form, dsn := range map[string]string{
			"user part": "postgres://" + inURL + "db1,db2/shop?sslmode=disable",
			"parameter": "postgres://app@db1,db2/shop?password=" + escaped(password) + "&sslmode=disable",
			"keyword":   "host=db1,db2 user=app dbname=shop sslmode=disable password=" + quoted(password),
			"quoted":    "host=db1,db2 password='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password) + "' user=app dbname=shop sslmode=disable",
		} {
			before, err := pgx.ParseConfig(dsn)
			require.NoError(t, err, dsn)
			require.Equal(t, password, before.Password, form)
			target, err := ParseTarget(dsn)
			require.NoError(t, err, dsn)
			shown := target.text.with([]Change{{Key: "target_session_attrs", Value: "read-write"}})
			require.NotContains(t, shown, password, form)
			require.NotContains(t, shown, escaped(password), form)
			require.NotContains(t, shown, url.PathEscape(password), form)
			after, err := pgx.ParseConfig(shown)
			require.NoError(t, err, shown)
			require.Equal(t, placeholder, after.Password, form)
			require.Equal(t, []any{"app", "shop", "db1", 1}, []any{after.User, after.Database, after.Host, len(after.Fallbacks)}, shown)
			require.NotNil(t, after.ValidateConnect)
			require.Equal(t, "server: *** no", target.redact(fmt.Sprintf("server: %s no", password)))
		}
	}
}

func TestKeysOfRetrypgAndOfPoolsAreNotSentToTheServer(t *testing.T) {
	target, err := ParseTarget("postgres://app@db/shop?retry_max_attempts=3&pool_max_conns=7&application_name=x&search_path=s&retry_commit_check=ledger")
	require.NoError(t, err)
	sent := target.configFor(target.hosts[0]).RuntimeParams
	require.Equal(t, map[string]string{"application_name": "x", "search_path": "s"}, sent)
	require.Equal(t, map[string]string{"retry_max_attempts": "3", "retry_commit_check": "ledger"}, target.keys)
	require.Equal(t, int32(7), target.poolConns)
}

func TestEachHostIsThereOnceWithItsWaysToEncrypt(t *testing.T) {
	target, err := ParseTarget("postgres://app@db1:1,db2:2,db1:1/shop?sslmode=prefer")
	require.NoError(t, err)
	require.Len(t, target.hosts, 2)
	require.Equal(t, "db2:2", target.hosts[1].String())
	require.NotNil(t, target.hosts[1].tls[0])
	require.Nil(t, target.hosts[1].tls[1])
	cfg := target.configFor(target.hosts[1])
	require.Len(t, cfg.Fallbacks, 1)
	require.Equal(t, "db2", cfg.Fallbacks[0].Host)
	require.Equal(t, "any", target.role())
}

func TestTheRoleIsThatOfTheDSN(t *testing.T) {
	for _, r := range roles {
		target, err := ParseTarget("postgres://app@db/shop?target_session_attrs=" + r.name)
		require.NoError(t, err)
		require.Equal(t, r.name, target.role())
	}
}

func TestAWrongDSNIsAnErrorWithoutAnythingOfIt(t *testing.T) {
	for _, dsn := range []string{"postgres://app:geheim@db:99999/shop", "host=db password=geheim port=x", "postgres://app:geheim@db/shop?retry_jitter=geheim", "postgres://app:geheim@db/shop?pool_max_conns=geheim"} {
		_, err := ParseTarget(dsn)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "geheim")
	}
}
