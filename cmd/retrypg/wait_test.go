package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestWaitEndsWith0OnceALateServerIsReady(t *testing.T) {
	c := pgt.New(t, pgtest.Options{})
	require.NoError(t, c.StopFast(t.Context()))
	var once sync.Once
	r := tool(t, func(line string) {
		once.Do(func() {
			require.Contains(t, line, "connection refused")
			require.NoError(t, c.StartAsync())
		})
	}, "wait", c.DSN())
	require.Equal(t, 0, r.status, r.stderr)
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	require.Regexp(t, `^retrypg wait: `+c.Addr()+`: ready \(after \d+\.\ds, attempt \d+\)$`, lines[len(lines)-1])
	require.Empty(t, r.stdout)
}

func TestWaitPrintsOneLinePerChangeOfState(t *testing.T) {
	p := pgt.Proxy(t, pgt.Shared(t).Cluster.Addr())
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	var lines []string
	r := tool(t, func(line string) {
		lines = append(lines, line)
		switch len(lines) {
		case 1:
			require.NoError(t, p.SetAccept(pgtest.AcceptReset))
		case 2:
			require.NoError(t, p.SetAccept(pgtest.AcceptForward))
		}
	}, "wait", p.DSN())
	require.Equal(t, 0, r.status, r.stderr)
	require.Len(t, lines, 3)
}

func TestWaitEndsAtOnceWith2OnAWrongPassword(t *testing.T) {
	const password = "hunter2-wrong"
	c := pgt.New(t, pgtest.Options{HBA: []string{"host all app 127.0.0.1/32 scram-sha-256"}})
	require.NoError(t, c.Exec(t.Context(), "create role app login password 'right'"))
	for _, quiet := range []string{"--quiet=false", "--quiet"} {
		r := tool(t, nil, "wait", quiet, "--timeout", "1h", c.DSN("user=app", "password="+password))
		require.Equal(t, exitNotHealable, r.status, r.stderr)
		require.Contains(t, r.stderr, "password authentication failed")
		require.NotContains(t, r.stderr, password)
	}
}

func TestWaitEndsAtOnceWith2OnAMissingDatabase(t *testing.T) {
	db := pgt.Shared(t)
	r := tool(t, nil, "wait", "--timeout", "1h", db.DSN("dbname=nowhere"))
	require.Equal(t, exitNotHealable, r.status, r.stderr)
	require.Contains(t, r.stderr, "nowhere")
}

func TestWaitEndsWith1IfTheRoleIsNotMetInTime(t *testing.T) {
	db := pgt.Shared(t)
	r := tool(t, nil, "wait", "--timeout", "1s", db.DSN("target_session_attrs=standby"))
	require.Equal(t, exitNotReady, r.status, r.stderr)
	require.Contains(t, r.stderr, "not ready")
}

func TestWaitWaitsUntilAStandbyIsPromoted(t *testing.T) {
	primary := pgt.New(t, pgtest.Options{})
	standby := pgt.Standby(t, primary, pgtest.Options{})
	promoted := make(chan error, 1)
	var once sync.Once
	r := tool(t, func(string) {
		once.Do(func() { go func() { promoted <- standby.Promote(context.WithoutCancel(t.Context())) }() })
	}, "wait", standby.DSN("target_session_attrs=read-write"))
	require.NoError(t, <-promoted)
	require.Equal(t, 0, r.status, r.stderr)
}

func TestWaitEndsWith1IfNobodyListens(t *testing.T) {
	p := pgt.Proxy(t, "127.0.0.1:1")
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	r := tool(t, nil, "wait", "--timeout", "300ms", "--quiet", p.DSN("password=hunter2"))
	require.Equal(t, exitNotReady, r.status, r.stderr)
	require.Contains(t, r.stderr, "refused")
	require.NotContains(t, r.stderr, "hunter2")
	require.Equal(t, 1, strings.Count(strings.TrimSpace(r.stderr), "retrypg wait: "), r.stderr)
}

func TestWaitIsSilentWithQuiet(t *testing.T) {
	r := tool(t, nil, "wait", "-q", pgt.Shared(t).DSN())
	require.Equal(t, ran{}, r)
}

func TestWaitTakesTheServerFromTheEnvironment(t *testing.T) {
	db := pgt.Shared(t)
	for name, env := range map[string]map[string]string{
		"RETRYPG_DSN": {envDSN: db.DSN()},
		"PGHOST": {
			"PGHOST": "127.0.0.1", "PGPORT": strconv.Itoa(db.Cluster.Port()), "PGUSER": "postgres",
			"PGDATABASE": db.Name, "PGSSLMODE": "disable",
		},
	} {
		t.Run(name, func(t *testing.T) {
			noServerNamed(t)
			for k, v := range env {
				t.Setenv(k, v)
			}
			r := tool(t, nil, "wait")
			require.Equal(t, 0, r.status, r.stderr)
			require.Contains(t, r.stderr, db.Cluster.Addr())
		})
	}
}

func TestTheArgumentOfWaitWinsOverTheEnvironment(t *testing.T) {
	db := pgt.Shared(t)
	noServerNamed(t)
	t.Setenv(envDSN, "postgres://127.0.0.1:1/nowhere")
	r := tool(t, nil, "wait", db.DSN())
	require.Equal(t, 0, r.status, r.stderr)
}

func TestWrongUsageOfWaitEndsWith64AndShowsNoPassword(t *testing.T) {
	noServerNamed(t)
	const dsn = "postgres://app:hunter2@127.0.0.1:1/shop"
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no server":          {nil, "no server named"},
		"empty DSN":          {[]string{""}, "no server named"},
		"two DSNs":           {[]string{dsn, dsn}, "give one DSN"},
		"command without --": {[]string{dsn, "sh", "-c", "exit"}, "unknown shorthand flag"},
		"nothing after --":   {[]string{dsn, "--"}, "must follow --"},
		"unknown flag":       {[]string{dsn, "--tiemout", "1s"}, "unknown flag"},
		"no duration":        {[]string{dsn, "--timeout", "60"}, "missing unit"},
		"timeout 0":          {[]string{dsn, "--timeout", "0"}, "positive duration"},
		"negative timeout":   {[]string{dsn, "--timeout", "-1s"}, "positive duration"},
		"DSN not parsable":   {[]string{"postgres://app:hunter2@127.0.0.1:port/shop"}, "from 1 to 65535"},
		"misspelt key":       {[]string{dsn + "?retry_max_atempts=3"}, "retry_max_attempts"},
	} {
		t.Run(name, func(t *testing.T) {
			r := tool(t, nil, append([]string{"wait"}, test.args...)...)
			require.Equal(t, exitUsage, r.status, r.stderr)
			require.Contains(t, r.stderr, test.says)
			require.NotContains(t, r.stderr, "hunter2")
		})
	}
}

func TestASignalEndsWaitWithTheStatusOfAShell(t *testing.T) {
	p := pgt.Proxy(t, "127.0.0.1:1")
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	for signal, status := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		t.Run(signal.String(), func(t *testing.T) {
			tool := start(t, nil, "wait", "--timeout", "1h", p.DSN())
			tool.until(t, "connection refused")
			require.NoError(t, tool.cmd.Process.Signal(signal))
			r := tool.end(t)
			require.Equal(t, status, r.status, r.stderr)
			require.Contains(t, r.stderr, "ended by signal: "+signal.String())
		})
	}
}

func TestTheCommandAfterWaitTakesThePlaceOfTheTool(t *testing.T) {
	tool := start(t, nil, "wait", pgt.Shared(t).DSN(), "--", "sh", "-c", `echo "pid $$ $1"; exit 7`, "sh", "--flag of its own")
	r := tool.end(t)
	require.Equal(t, 7, r.status)
	require.Contains(t, r.stderr, fmt.Sprintf("pid %d --flag of its own\n", tool.cmd.Process.Pid))
}

func TestTheCommandIsNotRunIfTheServerIsNotReady(t *testing.T) {
	p := pgt.Proxy(t, "127.0.0.1:1")
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	r := start(t, nil, "wait", "--timeout", "200ms", p.DSN(), "--", "echo", "was run").end(t)
	require.Equal(t, exitNotReady, r.status)
	require.NotContains(t, r.stderr, "was run")
}

func TestACommandThatCannotBeRunHasTheStatusOfAShell(t *testing.T) {
	dsn := pgt.Shared(t).DSN()
	plain := filepath.Join(t.TempDir(), "plain")
	require.NoError(t, os.WriteFile(plain, []byte("text"), 0o600))
	for command, status := range map[string]int{
		"retrypg-no-such-command": exitNotFound,
		plain + ".missing":        exitNotFound,
		plain:                     exitNotExecutable,
	} {
		r := tool(t, nil, "wait", dsn, "--", command)
		require.Equal(t, status, r.status, r.stderr)
		require.Contains(t, r.stderr, command)
	}
}
