//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const supported = true

// serverUser is who the server runs as. PostgreSQL refuses to run as root.
type serverUser struct {
	uid, gid int
	switched bool // it is another user than ours
}

// asServer decides once: user postgres for root, else nobody, and ourselves for everybody else.
var asServer = sync.OnceValues(func() (serverUser, error) {
	if os.Geteuid() != 0 {
		return serverUser{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errU := strconv.Atoi(u.Uid)
		gid, errG := strconv.Atoi(u.Gid)
		if errU == nil && errG == nil && uid > 0 {
			return serverUser{uid: uid, gid: gid, switched: true}, nil
		}
	}
	return serverUser{}, errors.New("PostgreSQL refuses to run as root, and there is no user postgres or nobody for it")
})

// detach makes cmd run as the server's user in its own process group, so that a Ctrl-C in the terminal does not
// reach it.
func detach(cmd *exec.Cmd) error {
	u, err := asServer()
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if u.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid)}
	}
	return nil
}

// ownGroup puts cmd into its own process group.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// giveAway hands a file, directory or link to the server's user.
func giveAway(path string) error {
	u, err := asServer()
	if err != nil || !u.switched {
		return err
	}
	return os.Lchown(path, u.uid, u.gid)
}

// reachable says whether the server's user can enter dir and every directory above it.
func reachable(dir string) error {
	u, err := asServer()
	if err != nil || !u.switched {
		return err
	}
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		mode := info.Mode().Perm()
		enter := mode&0o001 != 0 ||
			ok && int(st.Uid) == u.uid && mode&0o100 != 0 ||
			ok && int(st.Gid) == u.gid && mode&0o010 != 0
		if !enter {
			return fmt.Errorf("user %d, which runs the server in place of root, cannot enter %s", u.uid, d)
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// Signals with the meaning PostgreSQL gives them.
var (
	sigFast      os.Signal = syscall.SIGINT
	sigImmediate os.Signal = syscall.SIGQUIT
	sigKill      os.Signal = syscall.SIGKILL
	sigFreeze    os.Signal = syscall.SIGSTOP
	sigThaw      os.Signal = syscall.SIGCONT
)

// signalPID signals a process; that it is gone already is no error.
func signalPID(pid int, sig os.Signal) error {
	err := syscall.Kill(pid, sig.(syscall.Signal))
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// children lists the direct children of a process: for a postmaster, all its backends.
func children(parent int) ([]int, error) {
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		return childrenFromProc(parent)
	}
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil, fmt.Errorf("list processes with ps: %w", err)
	}
	var pids []int
	for line := range strings.Lines(string(out)) {
		var pid, ppid int
		if _, err := fmt.Sscan(line, &pid, &ppid); err == nil && ppid == parent {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func childrenFromProc(parent int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it ended meanwhile
		}
		// "pid (name) state ppid ...", where the name may hold spaces and parentheses.
		var state string
		var ppid int
		_, err = fmt.Sscan(string(text[strings.LastIndexByte(string(text), ')')+1:]), &state, &ppid)
		if err == nil && ppid == parent {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file))) // the pattern allows digits only
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
