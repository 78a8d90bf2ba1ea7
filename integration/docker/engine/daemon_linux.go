package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Bounds of the daemon's life. It answers within a second on an idle machine;
// it stops containers with a grace of ten seconds each, side by side.
const (
	daemonStart = time.Minute
	daemonStop  = 30 * time.Second
	daemonPoll  = 50 * time.Millisecond
)

// daemon is a dockerd that this program started. Its data, sockets and log are
// in one temporary directory.
type daemon struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when dockerd is gone; err is set before
	err    error
	dir    string
	log    string
	docker *client
	net    *networkState
}

// startDaemon starts a dockerd of our own and waits until it answers.
func startDaemon(ctx context.Context, docker *client) (*daemon, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("no Docker engine answers, and starting one needs root: %w", errNoEngine)
	}
	path, err := exec.LookPath("dockerd")
	if err != nil {
		if err := installEngine(ctx); err != nil {
			return nil, fmt.Errorf("no Docker engine answers, and dockerd is not installed: %w", err)
		}
		if path, err = exec.LookPath("dockerd"); err != nil {
			return nil, fmt.Errorf("no dockerd after the installation: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "retrypg-engine-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for dockerd: %w", err)
	}
	d := &daemon{exited: make(chan struct{}), dir: dir, log: filepath.Join(dir, "dockerd.log")}
	host := "unix://" + filepath.Join(dir, "docker.sock")
	d.docker = &client{path: docker.path, env: []string{
		"DOCKER_HOST=" + host,
		// Inside a container testcontainers would hand out the bridge's
		// address as the host's; our engine publishes its ports right here.
		"TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1",
		// The reaper is an image of its own, which may be out of reach; the
		// engine and all its containers end with this program anyway.
		"TESTCONTAINERS_RYUK_DISABLED=true",
	}}
	if d.net, err = saveNetwork(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := d.launch(path, host); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	version, err := d.waitReady(ctx)
	if err != nil {
		return nil, errors.Join(err, d.stop(ctx))
	}
	report("started a Docker engine (%s)", version)
	return d, nil
}

// client returns the docker command for this daemon.
func (d *daemon) client() *client { return d.docker }

// launch starts dockerd in a process group of its own: an interrupt from the
// terminal must reach the tests first, and dockerd only when they are done.
func (d *daemon) launch(path, host string) error {
	log, err := os.Create(d.log)
	if err != nil {
		return fmt.Errorf("make dockerd's log: %w", err)
	}
	defer log.Close()
	d.cmd = exec.Command(path,
		"--host", host,
		"--data-root", filepath.Join(d.dir, "data"),
		"--exec-root", filepath.Join(d.dir, "exec"),
		"--pidfile", filepath.Join(d.dir, "dockerd.pid"),
	)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.exited)
	}()
	return nil
}

// waitReady returns when dockerd answers, has ended, or had time enough.
func (d *daemon) waitReady(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	tick := time.NewTicker(daemonPoll)
	defer tick.Stop()
	for {
		version, err := d.docker.serverVersion(ctx)
		if err == nil {
			return version, nil
		}
		select {
		case <-tick.C:
		case <-d.exited:
			return "", fmt.Errorf("dockerd ended at once (%w); its log ends with:\n%s", d.err, d.logTail())
		case <-ctx.Done():
			return "", fmt.Errorf("dockerd does not answer (%w); its log ends with:\n%s", err, d.logTail())
		}
	}
}

// logTail returns the end of dockerd's log, which says why it did not start.
func (d *daemon) logTail() string {
	const most = 2000 // bytes
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

// stop ends dockerd with its containers, puts the network back and removes the
// directory. The end of ctx does not stop it: an interrupted run must clean up
// as well.
func (d *daemon) stop(ctx context.Context) error {
	var errs []error
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		errs = append(errs, fmt.Errorf("stop dockerd: %w", err))
	}
	select {
	case <-d.exited:
	case <-time.After(daemonStop):
		errs = append(errs, fmt.Errorf("dockerd did not stop within %s and was killed", daemonStop))
		// The group holds containerd too, which dockerd had no chance to end.
		if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL); err != nil {
			errs = append(errs, fmt.Errorf("kill dockerd: %w", err))
		}
		<-d.exited
	}
	if err := d.net.restore(context.WithoutCancel(ctx)); err != nil {
		errs = append(errs, err)
	}
	if err := os.RemoveAll(d.dir); err != nil {
		errs = append(errs, fmt.Errorf("remove dockerd's directory: %w", err))
	}
	if len(errs) == 0 {
		report("stopped the Docker engine and put the network settings back")
	}
	return errors.Join(errs...)
}
