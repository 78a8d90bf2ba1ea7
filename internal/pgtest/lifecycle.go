package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// startLimit bounds a start whose context has no earlier deadline.
	startLimit = time.Minute
	// retryLimit and retryPause bound the repetition of a start that met the remains of a killed server.
	retryLimit = 10 * time.Second
	retryPause = 20 * time.Millisecond
	// readyPoll is how often a starting server is asked: a start takes 40 ms and more.
	readyPoll = 5 * time.Millisecond
)

// Start starts the server of a stopped cluster and waits until it answers or ctx is done, at most one minute. Started
// already, it only waits. When the server ends instead, the error is a [*StartError].
func (c *Cluster) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	began := time.Now()
	for {
		if err := c.StartAsync(); err != nil {
			return err
		}
		err := c.WaitReady(ctx)
		var ended *StartError
		if !errors.As(err, &ended) || time.Since(began) > retryLimit {
			return err
		}
		switch {
		case strings.Contains(ended.Log, "pre-existing shared memory block"):
			// Backends of a killed postmaster are still leaving.
		case strings.Contains(ended.Log, "Address already in use"):
			if !strings.Contains(c.log.String(), readyText) && !c.movePort() {
				return err // a port that was asked for belongs to somebody else
			}
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return err
		// The remains of the old server send no event.
		case <-time.After(retryPause):
		}
	}
}

// readyText is in the log of a server that has been up.
const readyText = "ready to accept connections"

// movePort takes another port, unless the present one was asked for.
func (c *Cluster) movePort() bool {
	if c.opts.Port != 0 {
		return false
	}
	port, err := freePort()
	if err != nil {
		return false
	}
	c.mu.Lock()
	c.port = port
	c.mu.Unlock()
	return c.writeConf() == nil
}

// StartAsync starts the server and returns at once, while it is still starting; started already, it does nothing.
// WaitReady waits for it.
func (c *Cluster) StartAsync() error {
	c.life.Lock()
	defer c.life.Unlock()
	if c.running() != nil {
		return nil
	}
	_, err := c.spawn()
	return err
}

// WaitReady waits until the server accepts connections, or ctx is done. A standby without hot_standby never does.
// When the server ends instead, the error is a [*StartError]; so it is when the server was not running.
func (c *Cluster) WaitReady(ctx context.Context) error {
	c.mu.Lock()
	s := c.srv
	c.mu.Unlock()
	if s == nil {
		return &StartError{Name: c.Name(), State: "never started"}
	}
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	var last error
	for {
		err := c.ping(ctx)
		if err == nil {
			return nil
		}
		// At the end of ctx the error says only that, and an earlier one says more.
		var timeout net.Error
		if last == nil || ctx.Err() == nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
			last = err
		}
		select {
		case <-s.exited:
			return c.endedError(s)
		case <-ctx.Done():
			return fmt.Errorf("wait for the server %s to accept connections: %w: last answer: %w",
				c.Name(), context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// ping returns nil when the server lets somebody in, or refuses for a reason that waiting does not change.
func (c *Cluster) ping(ctx context.Context) error {
	conn, err := pgconn.Connect(ctx, c.adminDSN())
	if err == nil {
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		// The port may be that of a stranger, while our server is ending because it is taken.
		results, err := conn.Exec(ctx, "show data_directory").ReadAll()
		if err != nil {
			return err
		}
		if dir := string(results[0].Rows[0][0]); dir != c.DataDir() {
			return fmt.Errorf("port %d belongs to the server of %s", c.Port(), dir)
		}
		return nil
	}
	const cannotConnectNow = "57P03" // PostgreSQL appendix A: starting up, recovering, shutting down
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code != cannotConnectNow {
		return nil
	}
	return err
}

// Running reports whether the server's first process is there, frozen or not.
func (c *Cluster) Running() bool { return c.running() != nil }

// PID returns the process id of the postmaster, 0 when the server is not running.
func (c *Cluster) PID() int {
	if s := c.running(); s != nil {
		return s.pid
	}
	return 0
}

// StopFast shuts the server down in good order: clients are told 57P01, a checkpoint is written. A frozen server is
// thawed first. Not running is no error. It blocks until every process has ended or ctx is done.
func (c *Cluster) StopFast(ctx context.Context) error {
	c.life.Lock()
	defer c.life.Unlock()
	return c.stop(ctx, sigFast)
}

// StopImmediate ends the server without a checkpoint; clients are told 57P02 in a warning, and the next start
// recovers. Otherwise as StopFast.
func (c *Cluster) StopImmediate(ctx context.Context) error {
	c.life.Lock()
	defer c.life.Unlock()
	return c.stop(ctx, sigImmediate)
}

// Kill kills the postmaster with SIGKILL; its backends notice, tell their clients 57P01 and leave. Kill waits until
// they have, so that the port and the shared memory are free; after 10 s it kills them too. Otherwise as StopFast.
func (c *Cluster) Kill(ctx context.Context) error {
	c.life.Lock()
	defer c.life.Unlock()
	return c.stop(ctx, sigKill)
}

// Restart stops the server with StopFast and starts it again on the same port.
func (c *Cluster) Restart(ctx context.Context) error {
	if err := c.StopFast(ctx); err != nil {
		return err
	}
	return c.Start(ctx)
}

// CrashBackend kills one backend with SIGKILL. The postmaster then ends all the others and recovers by itself, as
// after an out-of-memory kill; Log and WaitReady show the rest. It is an error when pid is not a child of this server.
func (c *Cluster) CrashBackend(pid int) error {
	c.life.Lock()
	defer c.life.Unlock()
	s := c.running()
	if s == nil {
		return fmt.Errorf("kill backend %d: server %s is not running", pid, c.Name())
	}
	pids, err := children(s.pid)
	if err != nil {
		return err
	}
	if !slices.Contains(pids, pid) {
		return fmt.Errorf("kill backend %d: it is not a process of server %s", pid, c.Name())
	}
	return signalPID(pid, sigKill)
}

// Freeze stops every process of the server with SIGSTOP: connections stay open, nothing answers, and the kernel goes
// on accepting new ones until its queue is full. Frozen already is no error.
func (c *Cluster) Freeze() error {
	c.life.Lock()
	defer c.life.Unlock()
	s := c.running()
	if s == nil {
		return fmt.Errorf("freeze: server %s is not running", c.Name())
	}
	// The postmaster first: then it makes no more children.
	if err := signalPID(s.pid, sigFreeze); err != nil {
		return fmt.Errorf("freeze the server %s: %w", c.Name(), err)
	}
	s.isFrozen = true
	for {
		pids, err := children(s.pid)
		if err != nil {
			return err
		}
		fresh := slices.DeleteFunc(pids, func(pid int) bool { return slices.Contains(s.frozen, pid) })
		if len(fresh) == 0 {
			return nil
		}
		for _, pid := range fresh {
			if err := signalPID(pid, sigFreeze); err != nil {
				return fmt.Errorf("freeze process %d of server %s: %w", pid, c.Name(), err)
			}
		}
		s.frozen = append(s.frozen, fresh...)
	}
}

// Thaw lets a frozen server go on. Not frozen is no error.
func (c *Cluster) Thaw() error {
	c.life.Lock()
	defer c.life.Unlock()
	s := c.running()
	if s == nil {
		return nil
	}
	return c.thaw(s)
}

// thaw is Thaw for a caller that holds c.life.
func (c *Cluster) thaw(s *server) error {
	if !s.isFrozen {
		return nil
	}
	var errs []error
	for _, pid := range s.frozen {
		errs = append(errs, signalPID(pid, sigThaw))
	}
	errs = append(errs, signalPID(s.pid, sigThaw))
	s.frozen, s.isFrozen = nil, false
	return errors.Join(errs...)
}
