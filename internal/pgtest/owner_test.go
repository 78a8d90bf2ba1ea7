//go:build unix

package pgtest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// childEnv makes this test binary start two clusters, say where they are, and wait to be ended.
const childEnv = "RETRYPG_PGTEST_CHILD"

func childMain() {
	ctx := context.Background()
	for range 2 {
		c, err := pgtest.Start(ctx, pgtest.Options{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(pgtest.WatchdogPID(), c.PID(), c.Dir())
	}
	switch os.Getenv(childEnv) {
	case "panic":
		panic("the child was told to")
	case "exit":
		os.Exit(3)
	}
	select {}
}

type child struct {
	cmd      *exec.Cmd
	watchdog int
	servers  []int
	dirs     []string
}

func startChild(t *testing.T, mode string) *child {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a PostgreSQL server, and -short was given")
	}
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childEnv+"="+mode)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for range 2 {
		require.True(t, lines.Scan(), "the child did not start its clusters")
		var pid int
		var dir string
		_, err := fmt.Sscan(lines.Text(), &c.watchdog, &pid, &dir)
		require.NoError(t, err)
		require.True(t, alive(pid))
		c.servers = append(c.servers, pid)
		c.dirs = append(c.dirs, dir)
	}
	return c
}

// alive says whether a process exists. One that ended and was not yet waited for by the process that inherited it
// counts as ended.
func alive(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

// goneLimit is below the minute after which a server notices by itself that its data directory is gone.
const goneLimit = 30 * time.Second

// requireGone waits until nothing of the child is left. There is no event to wait for: they are no children of ours.
func (c *child) requireGone(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		for i, dir := range c.dirs {
			if _, err := os.Stat(filepath.Dir(dir)); err == nil || alive(c.servers[i]) {
				return false
			}
		}
		return true
	}, goneLimit, 10*time.Millisecond, "servers %v or directories %v are left", c.servers, c.dirs)
}

func TestNothingIsLeftHoweverTheProcessEnds(t *testing.T) {
	t.Parallel()
	// Where these tests run without a terminal, hang-ups may be ignored, which children inherit; a signal that is caught
	// they do not.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(signals) })
	for _, tc := range []struct {
		name, mode string
		signal     syscall.Signal
	}{
		{"Ctrl-C", "wait", syscall.SIGINT},
		{"SIGTERM", "wait", syscall.SIGTERM},
		{"hang-up", "wait", syscall.SIGHUP},
		{"kill -9", "wait", syscall.SIGKILL},
		{"panic", "panic", 0},
		{"os.Exit", "exit", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := startChild(t, tc.mode)
			if tc.signal != 0 {
				require.NoError(t, c.cmd.Process.Signal(tc.signal))
			}
			require.Error(t, c.cmd.Wait())
			c.requireGone(t)
		})
	}
}

func TestNextStartSweepsAfterAProcessThatDiedWithItsWatchdog(t *testing.T) {
	c := startChild(t, "wait")
	require.NoError(t, syscall.Kill(c.watchdog, syscall.SIGKILL))
	require.NoError(t, c.cmd.Process.Kill())
	require.Error(t, c.cmd.Wait())
	for _, pid := range c.servers {
		require.True(t, alive(pid), "nobody was there to stop it")
	}

	// The first cluster of a process sweeps: use another process.
	other := startChild(t, "exit")
	require.Error(t, other.cmd.Wait())
	c.requireGone(t)
	other.requireGone(t)
}
