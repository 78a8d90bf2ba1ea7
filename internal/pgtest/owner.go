package pgtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// The directories of one process lie below one directory with a guard, which ends with the last cluster.
const ownerPrefix = "retrypg-pg-"

// owner holds what this process has started.
type owner struct {
	mu       sync.Mutex
	guard    *Guard // nil when there are no clusters
	clusters map[*Cluster]struct{}
	number   int
}

var owned owner

// adopt gives a cluster its directory, and its name if it has none.
func (o *owner) adopt(c *Cluster) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.guard == nil {
		guard, err := NewGuard(ownerPrefix, cleanScript)
		if err != nil {
			return err
		}
		o.guard, o.clusters = guard, make(map[*Cluster]struct{})
	}
	o.number++
	if c.opts.Name == "" {
		c.opts.Name = fmt.Sprintf("pg%d", o.number)
	}
	c.dir = filepath.Join(o.guard.Dir(), fmt.Sprintf("%d-%s", o.number, c.opts.Name))
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

// release forgets a cluster; the last one takes the directory with it.
func (o *owner) release(c *Cluster) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.clusters, c)
	if len(o.clusters) > 0 || o.guard == nil {
		return nil
	}
	err := o.guard.Close()
	o.guard, o.clusters = nil, nil
	return err
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
