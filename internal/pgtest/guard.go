package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	nascentPrefix = "retrypg-new-" // not yet locked, so not yet to be swept
	guardLock     = "owner.lock"
)

// waitScript returns when the other end of its standard input is closed, which the kernel does however a process ends.
const waitScript = `trap '' HUP INT TERM
while read -r _; do :; done
`

// sweepTimeout bounds the cleaning up after one process that was killed together with its watchdog.
const sweepTimeout = 30 * time.Second

// Guard owns a directory, which holds a file that the process keeps locked. The directory, and what works in it, is ended by
// whoever comes first: Close, the watchdog when the process ends without it, or another process that finds the lock free.
type Guard struct {
	dir      string
	lock     *os.File
	watchdog *exec.Cmd
	alive    io.Closer // the write end of the watchdog's standard input
}

// NewGuard makes a directory for temporary files, whose name begins with prefix. script, for a shell, ends what works in the
// directory $1 and removes it. Directories of that prefix whose processes are gone are cleaned up first.
func NewGuard(prefix, script string) (*Guard, error) {
	sweep(prefix, script)
	nascent, err := os.MkdirTemp("", nascentPrefix)
	if err != nil {
		return nil, err
	}
	g := &Guard{dir: filepath.Join(filepath.Dir(nascent), prefix+strings.TrimPrefix(filepath.Base(nascent), nascentPrefix))}
	if err := g.open(nascent, script); err != nil {
		if g.lock != nil {
			_ = g.lock.Close()
		}
		return nil, errors.Join(fmt.Errorf("guard %s: %w", g.dir, err), os.RemoveAll(nascent), os.RemoveAll(g.dir))
	}
	return g, nil
}

func (g *Guard) open(nascent, script string) (err error) {
	// The server's user must be able to enter it; the data directories below are closed to everybody else.
	if err := os.Chmod(nascent, 0o755); err != nil {
		return err
	}
	if g.lock, err = os.OpenFile(filepath.Join(nascent, guardLock), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if ok, err := tryLock(g.lock); err != nil || !ok {
		return errors.Join(fmt.Errorf("lock %s: taken: %t", g.lock.Name(), ok), err)
	}
	if err := os.Rename(nascent, g.dir); err != nil {
		return err
	}
	g.watchdog = exec.Command("/bin/sh", "-c", waitScript+script, "retrypg-test-watchdog", g.dir)
	g.watchdog.Dir = "/"
	ownGroup(g.watchdog)
	if g.alive, err = g.watchdog.StdinPipe(); err != nil {
		return err
	}
	return g.watchdog.Start()
}

// Dir returns the directory.
func (g *Guard) Dir() string { return g.dir }

// Close lets the watchdog end what works in the directory and remove it.
func (g *Guard) Close() error {
	err := g.alive.Close()
	_ = g.watchdog.Wait() // who takes orphans in may have taken its exit code; what is left of the directory tells
	if err = errors.Join(err, os.RemoveAll(g.dir), g.lock.Close()); err != nil {
		return fmt.Errorf("clean up %s: %w", g.dir, err)
	}
	return nil
}

// sweep cleans up after processes that are gone and could not. What it cannot do, because another user owns the directory for
// example, it leaves.
func sweep(prefix, script string) {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*")) // the only error is a malformed pattern
	for _, dir := range dirs {
		lock, err := os.OpenFile(filepath.Join(dir, guardLock), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if free, err := tryLock(lock); err == nil && free {
			ctx, cancel := context.WithTimeout(context.Background(), sweepTimeout)
			_ = exec.CommandContext(ctx, "/bin/sh", "-c", script, "retrypg-test-sweep", dir).Run()
			cancel()
		}
		_ = lock.Close()
	}
}
