package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The directories of one process lie below one directory, which holds a file that the process keeps locked. That
// directory is removed by whoever comes first: the last Close, the watchdog when the process ends without Close, or
// another process that finds the lock free.
const (
	ownerPrefix   = "retrypg-pg-"
	nascentPrefix = "retrypg-new-" // not yet locked, so not yet to be swept
	ownerLock     = "owner.lock"
)

// owner holds what this process has started.
type owner struct {
	mu       sync.Mutex
	dir      string // empty when there are no clusters
	lock     *os.File
	watchdog *exec.Cmd
	alive    io.Closer // the write end of the watchdog's standard input
	clusters map[*Cluster]struct{}
	number   int
}

var owned owner

// adopt gives a cluster its directory, and its name if it has none.
func (o *owner) adopt(c *Cluster) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dir == "" {
		if err := o.openLocked(); err != nil {
			return err
		}
	}
	o.number++
	if c.opts.Name == "" {
		c.opts.Name = fmt.Sprintf("pg%d", o.number)
	}
	c.dir = filepath.Join(o.dir, fmt.Sprintf("%d-%s", o.number, c.opts.Name))
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return err
	}
	if err := giveAway(c.dir); err != nil {
		return err
	}
	c.own = o
	o.clusters[c] = struct{}{}
	return nil
}

// release forgets a cluster; the last one takes the directory and the watchdog with it.
func (o *owner) release(c *Cluster) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.clusters, c)
	if len(o.clusters) > 0 || o.dir == "" {
		return nil
	}
	err := os.RemoveAll(o.dir)
	_ = o.alive.Close()
	// The watchdog finds nothing to do. Its exit code says nothing.
	_ = o.watchdog.Wait()
	_ = o.lock.Close()
	o.dir, o.lock, o.watchdog, o.alive, o.clusters = "", nil, nil, nil, nil
	return err
}

func (o *owner) openLocked() error {
	sweep(os.TempDir())
	dir, err := os.MkdirTemp("", nascentPrefix)
	if err != nil {
		return err
	}
	// The server's user must be able to enter it; the data directories below are closed to everybody else.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, ownerLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if ok, err := tryLock(lock); err != nil || !ok {
		return errors.Join(fmt.Errorf("lock %s: taken: %t", lock.Name(), ok), err, lock.Close(), os.RemoveAll(dir))
	}
	final := filepath.Join(filepath.Dir(dir), ownerPrefix+strings.TrimPrefix(filepath.Base(dir), nascentPrefix))
	if err := os.Rename(dir, final); err != nil {
		return errors.Join(err, lock.Close(), os.RemoveAll(dir))
	}
	watchdog, alive, err := startWatchdog(final)
	if err != nil {
		return errors.Join(err, lock.Close(), os.RemoveAll(final))
	}
	o.dir, o.lock, o.watchdog, o.alive = final, lock, watchdog, alive
	o.clusters = make(map[*Cluster]struct{})
	return nil
}

// cleanScript stops every server below directory $1 at once and removes the directory. A process id is used only if
// its command line names the directory, because the file may be that of a server killed long ago. A frozen server
// is thawed to hear the signal; it kills frozen children itself after 5 s. A line 7 that is still there after the
// server ended names the shared memory segment that a killed server left.
const cleanScript = `
for f in "$1"/*/data/postmaster.pid; do
	[ -f "$f" ] || continue
	read -r p <"$f"
	if tr '\000' ' ' <"/proc/$p/cmdline" | grep -qF "$1/" || ps -p "$p" -o args= | grep -qF "$1/"; then
		kill -CONT "$p"; kill -QUIT "$p"
		n=0
		while [ -f "$f" ] && kill -0 "$p" && [ $n -lt 200 ]; do sleep 0.05; n=$((n+1)); done
	fi
	[ -f "$f" ] && set -- "$1" $(sed -n 7p "$f") && [ $# -eq 3 ] && ipcrm -m "$3"
done 2>/dev/null
rm -rf "$1"
`

// waitScript returns when the other end of its standard input is closed, which the kernel does however a process ends.
const waitScript = `trap '' HUP INT TERM
while read -r _; do :; done
`

// startWatchdog starts a shell that cleans up dir when this process ends.
func startWatchdog(dir string) (*exec.Cmd, io.Closer, error) {
	cmd := exec.Command("/bin/sh", "-c", waitScript+cleanScript, "retrypg-test-watchdog", dir)
	cmd.Dir = "/"
	ownGroup(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return cmd, stdin, nil
}

// sweepTimeout bounds the cleaning up after one process that was killed together with its watchdog.
const sweepTimeout = 15 * time.Second

// sweep cleans up after processes that are gone and could not. What it cannot do, because another user owns the
// directory for example, it leaves.
func sweep(tmp string) {
	dirs, _ := filepath.Glob(filepath.Join(tmp, ownerPrefix+"*")) // the only error is a malformed pattern
	for _, dir := range dirs {
		lock, err := os.OpenFile(filepath.Join(dir, ownerLock), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if free, err := tryLock(lock); err == nil && free {
			ctx, cancel := context.WithTimeout(context.Background(), sweepTimeout)
			_ = exec.CommandContext(ctx, "/bin/sh", "-c", cleanScript, "retrypg-test-sweep", dir).Run()
			cancel()
		}
		_ = lock.Close()
	}
}

// removeSharedMemory removes the System V segment that a killed server leaves; a server that was stopped has removed
// it, and its postmaster.pid, itself. Line 7 of that file is "key id". It is a courtesy, so errors do not count.
func removeSharedMemory(dataDir string) {
	f, err := os.Open(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if fields := strings.Fields(lines.Text()); n == 7 && len(fields) == 2 {
			_ = exec.Command("ipcrm", "-m", fields[1]).Run()
		}
	}
}
