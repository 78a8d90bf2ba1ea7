package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestWrongUsageOfLoadEndsWith64AndShowsNoPassword(t *testing.T) {
	noServerNamed(t)
	const dsn = "postgres://app:hunter2@127.0.0.1:1/shop"
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no server":          {nil, "no server named"},
		"two DSNs":           {[]string{dsn, dsn}, "give one DSN"},
		"misspelt key":       {[]string{dsn + "?retry_max_atempts=3"}, "retry_max_attempts"},
		"too often":          {[]string{dsn, "--fault-every", "1ms"}, "too often"},
		"too many workers":   {[]string{dsn, "--workers", "1000"}, "give 1 to"},
		"endpoint not a URL": {[]string{dsn, "--otlp", "here"}, "--otlp: the OTLP endpoint"},
		"interval too short": {[]string{dsn, "--otlp-interval", "1ms"}, "--otlp-interval 1ms is too short"},
	} {
		t.Run(name, func(t *testing.T) {
			r := tool(t, nil, append([]string{"load"}, test.args...)...)
			require.Equal(t, exitUsage, r.status, r.stderr)
			require.Contains(t, r.stderr, test.says)
			require.NotContains(t, r.stderr, "hunter2")
		})
	}
}

func TestLoadEndsWith0AfterItsDuration(t *testing.T) {
	r := tool(t, nil, "load", "--for", "1s", "--workers", "1", pgt.Shared(t).DSN())
	require.Equal(t, 0, r.status, r.stderr)
	require.Contains(t, r.stdout, "the load has ended")
	require.Empty(t, r.stderr)
}

func TestLoadTakesTheServerFromTheEnvironment(t *testing.T) {
	noServerNamed(t)
	t.Setenv(envDSN, pgt.Shared(t).DSN())
	r := tool(t, nil, "load", "--for", "100ms")
	require.Equal(t, 0, r.status, r.stderr)
}

func TestLoadEndsWith2WhereItCannotRun(t *testing.T) {
	r := tool(t, nil, "load", "--for", "1s", pgt.Shared(t).DSN("dbname=nowhere"))
	require.Equal(t, exitLoadFailed, r.status, r.stderr)
	require.Contains(t, r.stderr, "nowhere")
}
