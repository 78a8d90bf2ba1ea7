package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// asTool makes the test binary the tool, for tests that need a process of their own.
const asTool = "RETRYPG_TEST_AS_TOOL"

func TestMain(m *testing.M) {
	if os.Getenv(asTool) != "" {
		main()
	}
	pgt.Main(m)
}

// noServerNamed clears the variables that name a server.
func noServerNamed(t *testing.T) {
	t.Helper()
	for _, name := range []string{envDSN, "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSERVICE", "PGTARGETSESSIONATTRS", "PGSSLMODE"} {
		t.Setenv(name, "")
	}
}

// ran is what a run of the tool left behind.
type ran struct {
	status         int
	stdout, stderr string
}

// tool runs the tool in this process and calls onLine, if not nil, with each line of its standard error.
func tool(t *testing.T, onLine func(string), args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pgt.Timeout)
	defer cancel()
	var stdout strings.Builder
	stderr := &lineWriter{onLine: onLine}
	status := run(ctx, args, &stdout, stderr)
	return ran{status, stdout.String(), stderr.text.String()}
}

// lineWriter keeps what is written and calls onLine with each line.
type lineWriter struct {
	mu     sync.Mutex
	text   strings.Builder
	rest   string
	onLine func(string)
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.text.Write(p)
	w.rest += string(p)
	var lines []string
	for {
		line, rest, found := strings.Cut(w.rest, "\n")
		if !found {
			break
		}
		lines, w.rest = append(lines, line), rest
	}
	w.mu.Unlock()
	for _, line := range lines {
		if w.onLine != nil {
			w.onLine(line)
		}
	}
	return len(p), nil
}

// process is the tool in a process of its own.
type process struct {
	cmd    *exec.Cmd
	lines  *bufio.Scanner // of standard output and standard error
	output strings.Builder
}

func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	read, write, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = read.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), pgt.Timeout)
	t.Cleanup(cancel)
	p := &process{cmd: exec.CommandContext(ctx, os.Args[0], args...), lines: bufio.NewScanner(read)}
	p.cmd.Env = append(append(os.Environ(), asTool+"=1"), env...)
	p.cmd.Stdout, p.cmd.Stderr = write, write
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(os.Interrupt) }
	p.cmd.WaitDelay = 10 * time.Second
	require.NoError(t, p.cmd.Start())
	require.NoError(t, write.Close())
	return p
}

// until reads until a line contains text.
func (p *process) until(t *testing.T, text string) {
	t.Helper()
	for p.lines.Scan() {
		p.output.WriteString(p.lines.Text() + "\n")
		if strings.Contains(p.lines.Text(), text) {
			return
		}
	}
	require.Failf(t, "the process ended", "without %q:\n%s", text, p.output.String())
}

// end reads the rest and returns the exit status.
func (p *process) end(t *testing.T) ran {
	t.Helper()
	for p.lines.Scan() {
		p.output.WriteString(p.lines.Text() + "\n")
	}
	require.NoError(t, p.lines.Err())
	err := p.cmd.Wait()
	var ended *exec.ExitError
	if err != nil {
		require.ErrorAs(t, err, &ended)
	}
	return ran{status: p.cmd.ProcessState.ExitCode(), stderr: p.output.String()}
}

func TestEveryCommandIsInTheHelp(t *testing.T) {
	r := tool(t, nil, "--help")
	require.Equal(t, 0, r.status)
	for _, command := range []string{"wait", "demo", "load", "doctor", "backoff", "classify"} {
		require.Contains(t, r.stdout, "\n  "+command+" ")
	}
}

func TestAnUnknownCommandIsWrongUsage(t *testing.T) {
	r := tool(t, nil, "wiat")
	require.Equal(t, exitUsage, r.status)
	require.Contains(t, r.stderr, `unknown command "wiat"`)
	require.Contains(t, r.stderr, "retrypg --help")
}

func TestHelpListsEachExitStatus(t *testing.T) {
	for command, statuses := range map[string][]string{
		"wait":          {"0  ready", "1  not ready", "2  waiting cannot heal", "64  wrong usage", "126 ", "127 ", "130 "},
		"demo":          {"0  retrypg lost nothing", "1  ", "2  ", "3  no PostgreSQL", "64  wrong usage", "130 "},
		"doctor":        {"0  no problem", "1  a problem", "64  wrong usage", "130 "},
		"backoff":       {"0  printed", "1  ", "64  wrong usage"},
		"backoff storm": {"0  printed", "1  ", "64  wrong usage"},
		"classify":      {"0  printed", "1  ", "64  wrong usage"},
		"load":          {"0  the duration is over", "1  money", "2  ", "64  wrong usage", "130 "},
	} {
		r := tool(t, nil, append(strings.Fields(command), "--help")...)
		require.Equal(t, 0, r.status)
		for _, s := range statuses {
			require.Contains(t, r.stdout, s)
		}
	}
}

var _ io.Writer = (*lineWriter)(nil)
