package main

import (
	"encoding/json"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// publicDir returns a directory that other users may enter, for servers that do not run as root.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "retrypg-tool-") //nolint:usetesting // t.TempDir is closed to others
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755)) // the server's user must enter it
	return dir
}

func TestWrongUsageOfDemoEndsWith64BeforeAnythingStarts(t *testing.T) {
	for says, args := range map[string][]string{
		"unexpected argument":   {"now"},
		"too short":             {"--duration", "1s"},
		"give 1 to":             {"--workers", "1000"},
		"-1 workers":            {"--workers", "-1"},
		"invalid argument":      {"--seed", "-1"},
		"unknown flag: --fast":  {"--fast"},
		"there is no directory": {"--report", filepath.Join(t.TempDir(), "missing", "report.html")},
		"it is a directory":     {"--report", t.TempDir()},
		"no host and port":      {"--otlp", "here"},
		"100ms":                 {"--otlp-interval", "1ms"},
	} {
		r := tool(t, nil, append([]string{"demo"}, args...)...)
		require.Equal(t, exitUsage, r.status, r.stderr)
		require.Contains(t, r.stderr, says)
		require.Empty(t, r.stdout)
	}
}

func TestDemoWithoutPostgreSQLEndsWith3AndSaysWhatToInstall(t *testing.T) {
	t.Setenv(pgtest.EnvBin, t.TempDir())
	r := tool(t, nil, "demo")
	require.Equal(t, exitNoPostgreSQL, r.status, r.stderr)
	require.Contains(t, r.stderr, "install a server")
}

func TestAnInterruptedDemoEndsWith130AndLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a PostgreSQL server, and -short was given")
	}
	for _, moment := range []string{
		"Three programs", // servers are being started
		"calm",           // the load runs
	} {
		t.Run(moment, func(t *testing.T) {
			dir := publicDir(t)
			p := start(t, []string{"TMPDIR=" + dir}, "demo", "--duration", "20s", "--report", filepath.Join(dir, "report.html"))
			p.until(t, moment)
			require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
			r := p.end(t)
			require.Equal(t, 130, r.status, r.stderr)
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// It also runs the demo as a whole: what the reports say is tested where they are made.
func TestDemoPrintsItsReportAsJSONAndAllElseElsewhere(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a PostgreSQL server, and -short was given")
	}
	path := filepath.Join(t.TempDir(), "report of the demo.html")
	r := tool(t, nil, "demo", "--json", "--duration", "8s", "--workers", "2", "--seed", "7", "--report", path)
	require.Equal(t, 0, r.status, r.stderr)
	var report demo.Report
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &report))
	require.True(t, report.Kept)
	require.Equal(t, uint64(7), report.Seed)
	require.Len(t, report.Programs, 3)
	require.Contains(t, r.stderr, "failover")
	require.NotContains(t, r.stderr, "\x1b", "no terminal, no sequences")

	require.True(t, strings.HasSuffix(r.stderr, "\n\nreport: "+fileURL(path)+"\n"), "the last line names the HTML report:\n%s", r.stderr)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	text := html.UnescapeString(string(content))
	for _, row := range report.Programs {
		want := fmt.Sprintf("of %s transfers %s lost 0", terminal.Grouped(row.Asked), row.Name)
		require.True(t, strings.Contains(text, want), want) // without the whole file in the message
	}
	require.True(t, strings.Contains(text, "--duration 8s --workers 2 --seed 7"), "how to repeat it")
	require.True(t, strings.Contains(text, "<dt>pgx</dt><dd>v5."), "the version of pgx")
}
