package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// server is one run of the postgres program.
type server struct {
	pid      int
	process  *os.Process
	logStart int64         // position in the cluster's log where this run begins
	exited   chan struct{} // closed when the postmaster has ended and was waited for
	state    string        // how it ended; read after exited
	quiet    chan struct{} // closed when every process that holds the log pipe has ended: the backends too
	frozen   []int         // children stopped by Freeze; guarded by Cluster.life
	isFrozen bool          // guarded by Cluster.life
}

// lingering bounds the wait for backends that outlive their postmaster; after it they are killed too.
const lingering = 10 * time.Second

// spawn starts the program as a child of this process, not through pg_ctl: a daemon could not be waited for. The
// caller holds c.life.
func (c *Cluster) spawn() (*server, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	logReader, logWriter, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(c.inst.program("postgres"), "-D", c.DataDir())
	cmd.Dir = c.dir
	cmd.Env = serverEnv()
	cmd.Stdout, cmd.Stderr = logWriter, logWriter
	s := &server{logStart: c.log.position(), exited: make(chan struct{}), quiet: make(chan struct{})}
	err = detach(cmd)
	if err == nil && c.opts.Namespace != "" {
		err = enter(cmd, c.opts.Namespace)
	}
	if err == nil {
		err = cmd.Start()
	}
	_ = logWriter.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", cmd.Path, err), logReader.Close())
	}
	s.pid, s.process = cmd.Process.Pid, cmd.Process
	go func() {
		_, _ = io.Copy(c.log, logReader) // ends when the last process of the server does
		_ = logReader.Close()
		close(s.quiet)
	}()
	go func() {
		_ = cmd.Wait() // the state says it
		s.state = cmd.ProcessState.String()
		close(s.exited)
	}()
	c.mu.Lock()
	c.srv = s
	c.mu.Unlock()
	return s, nil
}

// running returns the current run, or nil.
func (c *Cluster) running() *server {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.srv == nil {
		return nil
	}
	select {
	case <-c.srv.exited:
		return nil
	default:
		return c.srv
	}
}

// settle waits until nothing of an ended server is left: its backends hold the port and the shared memory.
func (c *Cluster) settle(ctx context.Context, s *server, backends []int) error {
	limit := time.NewTimer(lingering)
	defer limit.Stop()
	select {
	case <-s.quiet:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the backends of %s to end: %w", c.Name(), context.Cause(ctx))
	case <-limit.C:
	}
	for _, pid := range backends {
		_ = signalPID(pid, sigKill)
	}
	select {
	case <-s.quiet:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the backends of %s to end: %w", c.Name(), context.Cause(ctx))
	}
}

// stop sends sig to the postmaster and waits for the end of everything. The caller holds c.life.
func (c *Cluster) stop(ctx context.Context, sig os.Signal) error {
	s := c.running()
	if s == nil {
		return nil
	}
	if err := c.thaw(s); err != nil {
		return err
	}
	backends, err := children(s.pid)
	if err != nil {
		return err
	}
	if err := s.process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal the server %s: %w", c.Name(), err)
	}
	select {
	case <-s.exited:
	case <-ctx.Done():
		return fmt.Errorf("wait for the server %s to stop: %w", c.Name(), context.Cause(ctx))
	}
	return c.settle(ctx, s, backends)
}

// destroyServer ends the server without regard to its data. The caller holds c.life.
func (c *Cluster) destroyServer() error {
	ctx, cancel := context.WithTimeout(context.Background(), lingering)
	defer cancel()
	if err := c.stop(ctx, sigImmediate); err == nil {
		return nil
	}
	ctx, cancel = context.WithTimeout(context.Background(), 3*lingering)
	defer cancel()
	return c.stop(ctx, sigKill)
}

// endedError says why a server ended by itself, with the end of its log.
func (c *Cluster) endedError(s *server) error {
	<-s.quiet
	log := strings.TrimSpace(c.log.since(s.logStart))
	if len(log) > 4096 {
		log = "..." + log[len(log)-4096:]
	}
	return &StartError{Name: c.Name(), State: s.state, Log: log}
}

// StartError says that a server ended instead of starting.
type StartError struct {
	Name  string // of the cluster
	State string // how the process ended: "exit status 1"
	Log   string // the end of its log, at most 4 KiB
}

// Error implements error.
func (e *StartError) Error() string {
	return fmt.Sprintf("server %s ended while starting (%s); its log:\n%s", e.Name, e.State, e.Log)
}
