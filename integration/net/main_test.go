//go:build linux && netns

package net_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// inside says to a test binary that it runs in the client's namespace.
const inside = "RETRYPG_TEST_NETNS"

// TestMain runs the test binary again in a network namespace of its own, so that what is tested is the library's own
// dialer, and nothing of the library has to know of namespaces.
func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(again())
	}
	if err := wire(); err != nil {
		fmt.Fprintln(os.Stderr, "make the network:", err)
		os.Exit(1)
	}
	pgt.Main(m)
}

func again() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root, for network namespaces")
		return 1
	}
	for _, program := range []string{"ip", "iptables", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			fmt.Fprintf(os.Stderr, "%v: install iproute2, iptables and util-linux\n", err)
			return 1
		}
	}
	runtime.LockOSThread() // the child is killed when the thread that made it ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in a network namespace:", err)
		return 1
	}
	return 0
}
