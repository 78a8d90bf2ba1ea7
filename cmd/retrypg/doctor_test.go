package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/doctor"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestDoctorEndsWith0WhereThereIsNoProblem(t *testing.T) {
	// fsync is on here: with the other clusters of the tests it is off, which is a problem.
	c := pgt.New(t, pgtest.Options{Fsync: true})
	r := tool(t, nil, "doctor", c.DSN())
	require.Equal(t, 0, r.status, r.stdout)
	require.Empty(t, r.stderr)
	require.Contains(t, r.stdout, c.Addr()+"  PostgreSQL ")
	require.Contains(t, r.stdout, "found out by its\n            transaction id")
	require.Contains(t, r.stdout, "\nsuggested DSN\n")
	require.NotContains(t, r.stdout, "\x1b", "no terminal, no sequences")
}

func TestDoctorEndsWith1OnAProblemAndPrintsTheReportAllTheSame(t *testing.T) {
	db := pgt.Shared(t)
	r := tool(t, nil, "doctor", "--json", db.DSN("target_session_attrs=standby"))
	require.Equal(t, exitProblems, r.status)
	require.Contains(t, r.stderr, "a problem was found")
	report := strictly[doctor.Report](t, r.stdout)
	require.Equal(t, doctor.Problem, report.Level)
	require.Len(t, report.Hosts, 1)
	require.True(t, report.Hosts[0].Reachable)
	require.Equal(t, "primary", report.Hosts[0].Role)
	require.Contains(t, report.Findings, doctor.Finding{
		Level: doctor.Problem, Check: "target_session_attrs",
		Text: "standby, and no host that answers is a standby: retrypg waits for one", Advice: "name such a host in the DSN, or promote one",
	})
	require.Contains(t, r.stdout, "&", "a DSN is printed as it is")
	require.NotContains(t, r.stdout, `\u0026`)
}

func TestDoctorReportsEveryHostAndWhichOfThemIsNotReached(t *testing.T) {
	db := pgt.Shared(t)
	dsn := pgtest.DSN([]string{db.Cluster.Addr(), "127.0.0.1:1"}, "dbname="+db.Name, "retry_max_attempts=3")
	report := strictly[doctor.Report](t, tool(t, nil, "doctor", "--json", dsn).stdout)
	require.Equal(t, []bool{true, false}, []bool{report.Hosts[0].Reachable, report.Hosts[1].Reachable})
	require.Equal(t, uint16(1), report.Hosts[1].Port)
	require.Contains(t, report.Suggested, "retry_max_attempts=3")
	require.Contains(t, report.Suggested, "target_session_attrs=read-write")
}

func TestDoctorPrintsNoPassword(t *testing.T) {
	const password = "hunter2-geheim"
	noServerNamed(t)
	c := pgt.New(t, pgtest.Options{HBA: []string{"host all app 127.0.0.1/32 scram-sha-256"}})
	require.NoError(t, c.Exec(t.Context(), "create role app login password '"+password+"'"))
	host, port, _ := strings.Cut(c.Addr(), ":")
	file := t.TempDir() + "/pgpass"
	require.NoError(t, os.WriteFile(file, []byte("*:*:*:*:"+password+"\n"), 0o600))
	for form, dsn := range map[string]string{
		"url":              "postgres://app:" + password + "@" + c.Addr() + "/postgres?sslmode=disable",
		"parameter":        "postgres://app@" + c.Addr() + "/postgres?sslmode=disable&password=" + password,
		"keyword":          "host=" + host + " port=" + port + " user=app dbname=postgres sslmode=disable password=" + password,
		"password file":    "postgres://app@" + c.Addr() + "/postgres?sslmode=disable&passfile=" + file,
		"wrong":            "postgres://app:" + password + "-wrong@" + c.Addr() + "/postgres?sslmode=disable",
		"nobody listens":   "postgres://app:" + password + "@127.0.0.1:1/postgres",
		"not escaped":      "postgres://app:12/" + password + "@" + c.Addr() + "/postgres",
		"no DSN":           "postgres://app:" + password + "@:x",
		"where a key is":   "postgres://app@" + c.Addr() + "/postgres?retry_max_attempts=" + password + "&password=" + password,
		"a database of it": "postgres://app:" + password + "@" + c.Addr() + "/nowhere?sslmode=disable",
	} {
		for _, flags := range [][]string{{}, {"--json"}} {
			r := tool(t, nil, append(append([]string{"doctor"}, flags...), dsn)...)
			require.NotContains(t, r.stdout+r.stderr, password, form)
			require.NotContains(t, r.stdout+r.stderr, "geheim", form)
			switch form {
			case "url", "parameter", "keyword", "password file":
				require.Contains(t, r.stdout, "primary", form)
			}
		}
	}
	t.Setenv("PGPASSWORD", password)
	r := tool(t, nil, "doctor", "--json", "postgres://app@"+c.Addr()+"/postgres?sslmode=disable")
	require.True(t, strictly[doctor.Report](t, r.stdout).Hosts[0].Reachable)
	require.NotContains(t, r.stdout+r.stderr, password)
}

func TestDoctorTakesTheServerFromTheEnvironment(t *testing.T) {
	db := pgt.Shared(t)
	noServerNamed(t)
	t.Setenv(envDSN, db.DSN())
	require.Contains(t, tool(t, nil, "doctor").stdout, db.Cluster.Addr())
}

func TestWrongUsageOfDoctorEndsWith64(t *testing.T) {
	noServerNamed(t)
	for says, args := range map[string][]string{
		"no server named":          {},
		"2 arguments given":        {"host=db", "password=geheim"},
		"retry_max_attempts":       {"postgres://app:geheim@db/shop?retry_max_attempts=0"},
		"neither a URL":            {"geheim"},
		"an @ after its hosts":     {"postgres://app:12/geheim@db/shop"},
		"unknown flag: --password": {"--password", "geheim"},
	} {
		r := tool(t, nil, append([]string{"doctor"}, args...)...)
		require.Equal(t, exitUsage, r.status, r.stderr)
		require.Contains(t, r.stderr, says)
		require.NotContains(t, r.stderr, "geheim")
		require.Empty(t, r.stdout)
	}
}

func TestAnInterruptedDoctorEndsWith130(t *testing.T) {
	p := pgt.Proxy(t, pgt.Shared(t).Cluster.Addr())
	require.NoError(t, p.SetAccept(pgtest.AcceptSilent))
	proc := start(t, nil, "doctor", p.DSN("connect_timeout=100"))
	require.NoError(t, p.Wait(t.Context(), func(s pgtest.Stats) bool { return s.Accepted > 0 }))
	require.NoError(t, proc.cmd.Process.Signal(os.Interrupt))
	require.Equal(t, 130, proc.end(t).status)
}
