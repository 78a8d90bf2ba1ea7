//go:build ha && linux

package ha_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/retrypg/retrypg/internal/pgtest"
)

const (
	dirPrefix     = "retrypg-ha-"
	nascentPrefix = "retrypg-new-ha-" // not yet locked, so not yet to be swept
	lockName      = "owner.lock"
)

// endScript ends everything whose working directory is in or below directory $1, and removes the directory. All of a
// cluster's processes are told by that: Patroni's servers are not its children, and a server's processes overwrite their
// command line and environment. What manages servers goes first; the servers are asked to leave at once, so that they take
// their shared memory with them; what is still there after 5 s, as a process whose postmaster was killed may be, is killed.
const endScript = `
below() {
	ls -ld /proc/[0-9]*/cwd | sed -n 's|.* /proc/\([0-9]*\)/cwd -> \(/.*\)|\1 \2|p' |
		while read -r p d; do
			case "$d" in "$1"|"$1"/*) echo "$p $d";; esac
		done
}
n=0
while [ $n -lt 200 ]; do
	found=
	while read -r p d; do
		[ -n "$p" ] || continue
		found=yes
		case "$d" in
		*/data)
			kill -CONT "$p"
			[ $n -gt 0 ] && [ $n -lt 100 ] && continue
			read -r q <"$d/postmaster.pid" || q=
			if [ $n -ge 100 ]; then kill -KILL "$p"; elif [ "$p" = "$q" ]; then kill -QUIT "$p"; fi ;;
		*) kill -KILL "$p" ;;
		esac
	done <<END
$(below "$1")
END
	[ -z "$found" ] && break
	sleep 0.05
	n=$((n+1))
done 2>/dev/null
for f in "$1"/*/data/postmaster.pid; do
	[ -f "$f" ] && set -- "$1" $(sed -n 7p "$f") && [ $# -eq 3 ] && ipcrm -m "$3"
done 2>/dev/null
rm -rf "$1"
`

// waitScript returns when the other end of its standard input is closed, which the kernel does however a process ends.
const waitScript = `trap '' HUP INT TERM
while read -r _; do :; done
`

// guard owns the directory of a cluster. A shell waits for the end of this process, or for release, and then ends
// everything that works below that directory.
type guard struct {
	dir   string
	lock  *os.File
	shell *exec.Cmd
	alive io.Closer // the write end of the shell's standard input
}

// newGuard makes the directory, and cleans up after processes that were killed together with their shell.
func newGuard() (*guard, error) {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range old {
		lock, err := lockDir(dir)
		if err != nil {
			continue // another process has it, or another user
		}
		_ = exec.Command("/bin/sh", "-c", endScript, "retrypg-ha-sweep", dir).Run() // what it cannot do it leaves
		_ = lock.Close()
	}

	nascent, err := os.MkdirTemp("", nascentPrefix)
	if err != nil {
		return nil, err
	}
	g := &guard{dir: filepath.Join(filepath.Dir(nascent), dirPrefix+strings.TrimPrefix(filepath.Base(nascent), nascentPrefix))}
	if g.lock, err = lockDir(nascent); err != nil {
		return nil, errors.Join(err, os.RemoveAll(nascent))
	}
	if err := errors.Join(os.Chmod(nascent, 0o755), pgtest.GiveToServer(nascent), os.Rename(nascent, g.dir)); err != nil {
		return nil, errors.Join(err, g.lock.Close(), os.RemoveAll(nascent))
	}
	g.shell = exec.Command("/bin/sh", "-c", waitScript+endScript, "retrypg-ha-guard", g.dir)
	g.shell.Dir = "/"
	g.shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C in the terminal does not reach it
	if g.alive, err = g.shell.StdinPipe(); err != nil {
		return nil, errors.Join(err, g.lock.Close(), os.RemoveAll(g.dir))
	}
	if err := g.shell.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the guard: %w", err), g.lock.Close(), os.RemoveAll(g.dir))
	}
	return g, nil
}

// lockDir takes the lock of a directory, unless somebody has it.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// release ends all processes and removes the directory.
func (g *guard) release() error {
	return errors.Join(g.alive.Close(), g.shell.Wait(), g.lock.Close())
}
