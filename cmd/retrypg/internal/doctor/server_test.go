package doctor

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) { pgt.Main(m) }

// examineDSN examines real servers.
func examineDSN(t *testing.T, dsn string) *Report {
	t.Helper()
	target, err := ParseTarget(dsn)
	require.NoError(t, err)
	r := New(target).Examine(t.Context())
	requireReadable(t, r)
	return r
}

func TestPrimaryAndStandbyAreToldApartAndCompared(t *testing.T) {
	primary := pgt.New(t, pgtest.Options{})
	standby := pgt.Standby(t, primary, pgtest.Options{})
	r := examineDSN(t, pgtest.DSN([]string{primary.Addr(), standby.Addr()}, "target_session_attrs=read-write"))
	require.Equal(t, []string{"primary", "standby"}, []string{r.Hosts[0].Role, r.Hosts[1].Role})
	require.Equal(t, []string{"xid", ""}, []string{r.Hosts[0].Commit, r.Hosts[1].Commit})
	require.Equal(t, primary.Addr(), r.Hosts[0].Address)
	require.Equal(t, []string{"ok: read-write"}, r.of("target_session_attrs"))
	require.Empty(t, r.of("hosts"))
	require.Empty(t, r.of("answers"))

	require.NoError(t, standby.Promote(t.Context()))
	r = examineDSN(t, pgtest.DSN([]string{primary.Addr(), standby.Addr()}))
	require.Len(t, r.of("hosts"), 1)
	require.Contains(t, r.of("hosts")[0], "both are primaries of the same cluster")

	require.NoError(t, standby.StopFast(t.Context()))
	r = examineDSN(t, pgtest.DSN([]string{primary.Addr(), standby.Addr()}))
	require.False(t, r.Hosts[1].Reachable)
	require.Contains(t, r.of("reachable")[1], "connection refused")
}

func TestSettingsAreThoseOfTheSession(t *testing.T) {
	db := pgt.Shared(t)
	r := examineDSN(t, db.DSN("options=-c statement_timeout=250ms -c default_transaction_isolation=serializable", "application_name=x"))
	require.Contains(t, r.of("statement_timeout")[0], "warning: 250ms (from the DSN)")
	require.Len(t, r.of("default_transaction_isolation"), 1)
	require.Contains(t, r.of("fsync")[0], "problem: off")
	require.Regexp(t, `^ok: \d+ of \d+ in use, 3 reserved$`, r.of("max_connections")[0])
	require.Equal(t, Problem, r.Level)
}

func TestARoleThatMayNotAskIsToldWhatToDo(t *testing.T) {
	c := pgt.New(t, pgtest.Options{})
	for _, sql := range []string{
		"create role app login connection limit 5",
		"revoke execute on function pg_control_system() from public",
		"revoke create on schema public from public",
	} {
		require.NoError(t, c.Exec(t.Context(), sql))
	}
	r := examineDSN(t, c.DSN("user=app"))
	require.Equal(t, "none", r.Hosts[0].Commit)
	require.Contains(t, r.of("commit")[0], "permission denied for function pg_control_system")
	require.Contains(t, r.Suggested, "retry_commit_check=ledger")
	require.Equal(t, []string{"note: the role may have 5 connections"}, r.of("connection_limit"))

	r = examineDSN(t, c.DSN("user=app", "retry_commit_check=ledger"))
	require.Contains(t, r.of("commit")[0], "problem: the ledger table")
	require.NoError(t, c.Exec(t.Context(), "create table public.retrypg_ledger (token uuid)"))
	r = examineDSN(t, c.DSN("user=app", "retry_commit_check=ledger"))
	require.Contains(t, r.of("commit")[0], "problem: the role may not use the ledger table")
	require.NoError(t, c.Exec(t.Context(), "grant insert, select, delete on public.retrypg_ledger to app"))
	r = examineDSN(t, c.DSN("user=app", "retry_commit_check=ledger"))
	require.Contains(t, r.of("commit")[0], "ok: a COMMIT whose answer is lost is found out by its token")
}

func TestTLSAndItsCertificateAreLookedAt(t *testing.T) {
	c := pgt.New(t, pgtest.Options{TLS: true})
	r := examineDSN(t, c.DSN("sslmode=require"))
	require.Equal(t, "TLS 1.3", r.Hosts[0].TLS)
	require.Contains(t, r.of("tls")[0], "is not checked")
	r = examineDSN(t, c.DSN("sslmode=verify-full", "sslrootcert="+c.CertFile()))
	require.Contains(t, r.of("tls")[0], "ok: TLS 1.3, and the server's certificate is checked")
	r = examineDSN(t, c.DSN("sslmode=verify-ca", "sslrootcert="+c.CertFile()))
	require.Contains(t, r.of("tls")[0], "is checked")
	r = examineDSN(t, c.DSN("sslmode=verify-full"))
	require.False(t, r.Hosts[0].Reachable)
	require.Contains(t, r.Hosts[0].Findings[0].Advice, "sslrootcert")
}

func TestNothingIsWrittenAndOneSessionIsUsed(t *testing.T) {
	c := pgt.New(t, pgtest.Options{Settings: map[string]string{"log_connections": "on", "autovacuum": "off"}})
	proxy := pgt.Proxy(t, c.Addr())
	before, err := c.Value(t.Context(), "select pg_current_snapshot()::text")
	require.NoError(t, err)
	examineDSN(t, proxy.DSN("application_name=doctor", "retry_commit_check=ledger"))
	ctx, cancel := context.WithTimeout(t.Context(), pgt.Timeout)
	defer cancel()
	require.NoError(t, proxy.Wait(ctx, func(s pgtest.Stats) bool { return s.Messages(pgtest.FromClient, 'X') == 1 }), "the session was closed")
	for _, sql := range proxy.Stats().Queries {
		require.True(t, strings.HasPrefix(sql, "select "), sql)
	}
	after, err := c.Value(t.Context(), "select pg_current_snapshot()::text")
	require.NoError(t, err)
	require.Equal(t, before, after, "no transaction id was taken")
	require.Regexp(t, `^[^\n]*connection authorized: user=postgres database=postgres application_name=doctor[^\n]*$`, lines(c.Log(), "application_name=doctor"))
}

// lines are the lines of a log that contain a part.
func lines(log, part string) string {
	var found []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, part) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, "\n")
}
