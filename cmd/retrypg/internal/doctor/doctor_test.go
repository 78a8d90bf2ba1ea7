package doctor

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// says is a server that answers each question with the first answer whose part of the question fits, and all others with
// an error.
func says(parameters map[string]string, answers map[string][]string) script.Conversation {
	return script.Serve(script.Script{Parameters: parameters, Run: func(_ *script.Session, sql string) script.Result {
		for part, row := range answers {
			if strings.Contains(sql, part) {
				columns := make([]script.Column, len(row))
				return script.Result{Columns: columns, Rows: [][]string{row}}
			}
		}
		return script.Result{Err: script.Error("42883", "function does not exist")}
	}})
}

// examined examines scripted servers by address.
func examinedServers(t *testing.T, ctx context.Context, dsn string, servers map[string]*script.Server) *Report {
	t.Helper()
	target, err := ParseTarget(dsn)
	require.NoError(t, err)
	d := New(target)
	d.prepare = func(cfg *pgconn.Config) {
		cfg.DialFunc, cfg.LookupFunc = script.Route(servers), script.Lookup
	}
	r := d.Examine(ctx)
	requireReadable(t, r)
	return r
}

func TestAServerThatIsNotPostgreSQLIsKnownAndLeftAlone(t *testing.T) {
	server := script.New(says(map[string]string{"server_version": "13.0.0"}, map[string][]string{
		"select version()": {"CockroachDB CCL v25.1.2 (x86_64-pc-linux-gnu)", "1"},
	}))
	defer server.Close()
	r := examinedServers(t, t.Context(), "postgres://app@127.0.0.1:1/shop?sslmode=disable", map[string]*script.Server{"127.0.0.1:1": server})
	h := r.Hosts[0]
	require.Equal(t, []any{true, "CockroachDB", "25.1.2", "", "none"}, []any{h.Reachable, h.Kind, h.Version, h.Role, h.Commit})
	require.Contains(t, r.of("commit")[0], "CockroachDB has no transaction ids")
	require.Len(t, r.of("answers"), 4, "role, settings, ledger, connections")
	require.Empty(t, r.Changes)
}

func TestAPoolerIsKnownByTheServerProcess(t *testing.T) {
	answers := func(pid string) map[string]*script.Server {
		server := script.New(says(nil, map[string][]string{
			"select version()": {"PostgreSQL 17.0", pid}, "select pg_catalog.pg_is_in_recovery": {"f"},
		}))
		t.Cleanup(server.Close)
		return map[string]*script.Server{"127.0.0.1:1": server}
	}
	const dsn = "postgres://app@127.0.0.1:1/shop?sslmode=disable"
	r := examinedServers(t, t.Context(), dsn, answers("4711"))
	require.True(t, r.Hosts[0].Pooler)
	require.Contains(t, r.of("pooler")[0], "a pooler is in between")
	require.Contains(t, r.Suggested, "default_query_exec_mode=exec")
	r = examinedServers(t, t.Context(), dsn+"&default_query_exec_mode=exec&tcp_server_side=on", answers("4711"))
	require.Empty(t, r.of("exec_mode"))
	require.Len(t, r.of("tcp_server_side"), 1)
	r = examinedServers(t, t.Context(), dsn, answers("1")) // a scripted server announces the number of its connection
	require.False(t, r.Hosts[0].Pooler)
	require.Empty(t, r.of("pooler"))
	require.Equal(t, "primary", r.Hosts[0].Role)
}

func TestAHostThatDoesNotAnswerTakesItsConnectTimeoutAndKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := script.Accept(func(*script.Session, string) script.Result { return script.Result{Hang: true} })
		servers := map[string]*script.Server{
			"127.0.0.1:1": script.New(script.DialHangs()), "127.0.0.1:2": script.New(script.Silent()), "127.0.0.1:3": script.New(hangs),
		}
		began := time.Now()
		r := examinedServers(t, t.Context(), "postgres://app@127.0.0.1:1,127.0.0.1:2,127.0.0.1:3/shop?sslmode=disable&connect_timeout=3", servers)
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, []bool{false, false, true}, []bool{r.Hosts[0].Reachable, r.Hosts[1].Reachable, r.Hosts[2].Reachable})
		for _, s := range servers {
			s.Close()
		}
	})
}

func TestExaminingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := script.New(script.Silent())
		defer silent.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		r := examinedServers(t, ctx, "postgres://app@127.0.0.1:1/shop?sslmode=disable", map[string]*script.Server{"127.0.0.1:1": silent})
		require.Equal(t, time.Second, time.Since(began))
		require.False(t, r.Hosts[0].Reachable)
	})
}

func TestWhatToDoIsSaidOfTheLastAttempt(t *testing.T) {
	server := script.New(script.Fatal("08P01", "unsupported startup parameter: search_path")) // and it speaks no TLS
	defer server.Close()
	r := examinedServers(t, t.Context(), "postgres://app@127.0.0.1:1/shop?search_path=x", map[string]*script.Server{"127.0.0.1:1": server})
	require.Contains(t, r.of("reachable")[0], "server refused TLS connection; 127.0.0.1:1 (127.0.0.1): server error: FATAL: unsupported startup parameter")
	require.Contains(t, r.Hosts[0].Findings[0].Advice, "ignore_startup_parameters")
	refused := script.New(script.Refused())
	defer refused.Close()
	r = examinedServers(t, t.Context(), "postgres://app@127.0.0.1:1/shop", map[string]*script.Server{"127.0.0.1:1": refused})
	require.Equal(t, 1, strings.Count(r.of("reachable")[0], "connection refused"), "with TLS and without it is the same")
	require.Contains(t, r.Hosts[0].Findings[0].Advice, "start the server")
}

func TestAPasswordThatTheServerRepeatsIsTakenOut(t *testing.T) {
	const password = "geheim-17"
	echo := script.Fatal("28P01", "password "+password+" is wrong")
	fails := script.New(echo)
	defer fails.Close()
	asks := script.New(script.Accept(func(*script.Session, string) script.Result {
		return script.Result{Err: &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "42501", Message: "no " + password}}
	}))
	defer asks.Close()
	dsn := "postgres://app:" + password + "@127.0.0.1:1,127.0.0.1:2/shop?sslmode=disable"
	r := examinedServers(t, t.Context(), dsn, map[string]*script.Server{"127.0.0.1:1": fails, "127.0.0.1:2": asks})
	var b strings.Builder
	require.NoError(t, r.WriteJSON(&b))
	require.NotContains(t, b.String(), password)
	require.Contains(t, b.String(), "password *** is wrong")
	require.Contains(t, b.String(), "no ***")
	require.Contains(t, r.of("reachable")[0], "problem: not reached (retrypg ends at once)")
}

func TestNothingIsLeftBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	target, err := ParseTarget("postgres://app@127.0.0.1:1,127.0.0.1:2/shop?sslmode=disable")
	require.NoError(t, err)
	New(target).Examine(t.Context())
	goleak.VerifyNone(t, before)
}
