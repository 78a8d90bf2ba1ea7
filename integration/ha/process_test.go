//go:build ha && linux

package ha_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// children are the processes that this one has started itself, by process id. Everything else that becomes its child is an
// orphan: Patroni starts a server through a process that ends at once.
var children = struct {
	sync.Mutex
	known map[int]bool
}{known: map[int]bool{}}

// adoptOrphans makes this process the parent of orphans among its descendants, and takes note of their end until stop is
// called. A postmaster that was killed would otherwise stay a zombie for as long as process 1 takes, which in a container
// may be for ever, and PostgreSQL would not start again: to it a zombie is a process that has the lock.
func adoptOrphans() (stop func(), err error) {
	const prSetChildSubreaper = 36 // linux/prctl.h
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return nil, fmt.Errorf("adopt orphans: %w", errno)
	}
	ended := make(chan os.Signal, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	signal.Notify(ended, syscall.SIGCHLD)
	wg.Go(func() {
		for {
			select {
			case <-ended:
				reapOrphans()
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(ended)
		close(done)
		wg.Wait()
	}, nil
}

func reapOrphans() {
	children.Lock()
	defer children.Unlock()
	self := os.Getpid()
	for _, pid := range processes() {
		if parent, zombie := status(pid); parent == self && zombie && !children.known[pid] {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // it says nothing of use
		}
	}
}

// processes lists the ids of all processes.
func processes() (pids []int) {
	entries, _ := os.ReadDir("/proc") // it is there
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// status returns the parent of a process, 0 if it is not there any more, and whether it has ended.
func status(pid int) (parent int, zombie bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// "pid (name) state ppid ...", where the name may hold spaces and parentheses.
	var state string
	if _, err := fmt.Sscan(string(text[strings.LastIndexByte(string(text), ')')+1:]), &state, &parent); err != nil {
		return 0, false
	}
	return parent, state == "Z"
}

// below lists the processes whose working directory is dir or below it.
func below(dir string) (pids []int) {
	for _, pid := range processes() {
		at, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err == nil && (at == dir || strings.HasPrefix(at, dir+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// signalAll sends a signal to every process below dir until no further one turns up.
func signalAll(dir string, sig syscall.Signal) error {
	var signalled []int
	for {
		fresh := slices.DeleteFunc(below(dir), func(pid int) bool { return slices.Contains(signalled, pid) })
		if len(fresh) == 0 {
			return nil
		}
		for _, pid := range fresh {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("signal process %d: %w", pid, err)
			}
		}
		signalled = append(signalled, fresh...)
	}
}

// process is a program that runs in a directory of its own below the cluster's. There is no goroutine for it: its end is
// looked for by who waits for something of it.
type process struct {
	name string
	dir  string
	cmd  *exec.Cmd
}

// start starts a program as the servers' user. What it prints is in its directory, in the file log.
func start(dir, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := command(context.Background(), dir, program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := pgtest.AsServer(cmd); err != nil {
		return nil, err
	}
	children.Lock()
	defer children.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	children.known[cmd.Process.Pid] = true
	return &process{name: filepath.Base(dir), dir: dir, cmd: cmd}, nil
}

// command is a program in dir that reads no settings of the user who runs the tests.
func command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8", "LANG=C.UTF-8", "PYTHONUNBUFFERED=1"}
	return cmd
}

// run runs a program to its end and returns what it printed.
func run(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := command(ctx, dir, program, args...)
	cmd.WaitDelay = time.Second // what it has started may keep the pipe open
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := pgtest.AsServer(cmd); err != nil {
		return "", err
	}
	children.Lock()
	err := cmd.Start()
	if err == nil {
		children.known[cmd.Process.Pid] = true
	}
	children.Unlock()
	if err == nil {
		err = cmd.Wait()
		forget(cmd)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

// wait waits for the end of a process that was signalled.
func (p *process) wait() {
	_ = p.cmd.Wait() // it was killed
	forget(p.cmd)
}

func forget(cmd *exec.Cmd) {
	children.Lock()
	defer children.Unlock()
	delete(children.known, cmd.Process.Pid)
}

// ended returns an error with the end of its log if the process is not there any more, unless its end was waited for.
func (p *process) ended() error {
	if p.cmd.ProcessState != nil {
		return nil
	}
	if parent, zombie := status(p.cmd.Process.Pid); parent != 0 && !zombie {
		return nil
	}
	return fmt.Errorf("%s has ended: %s", p.name, p.log(2000))
}

// log returns the last n bytes of what the process has printed.
func (p *process) log(n int) string {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-n):])
}
