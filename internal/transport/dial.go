// Package transport is what lies under every PostgreSQL connection: a dialer that sets the TCP options by which a dead
// peer is noticed, and a connection that counts what went over it and can be asked whether it still lives.
//
// A deadline bounds one call. It does not notice a peer that vanished while nobody waits, and where there is no deadline
// nothing else does: Linux keeps sending into a hole for about 15 minutes. Two options are needed together, because each
// covers only half: TCP_USER_TIMEOUT bounds data that is not acknowledged, keepalive bounds silence while a reply is
// awaited. Neither notices a process that is stopped on a live host: there only a deadline helps.
package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
)

// Off switches the option off that it is given for.
const Off time.Duration = -1

// Options are the TCP options of new connections. Zero leaves an option as package net or the system sets it: the
// defaults of this library are filled in by the caller. They have no effect on Unix sockets.
type Options struct {
	// UserTimeout is how long sent data may stay unacknowledged before the kernel ends the connection. It is rounded
	// up to a millisecond and cut at 2^31-1 of them. Zero and Off leave the system's setting. Only Linux has it: see
	// Supported. With it, Linux 6.15 and later send what is not acknowledged again at least every second.
	UserTimeout time.Duration
	// KeepAliveIdle is the silence before the first probe, rounded up to a second. Off switches keepalive off.
	KeepAliveIdle time.Duration
	// KeepAliveInterval is the time between two probes, rounded up to a second.
	KeepAliveInterval time.Duration
	// KeepAliveCount is how many unanswered probes end the connection.
	KeepAliveCount int
}

// DialFunc opens a connection. It is the form of pgconn.DialFunc and of net.Dialer.DialContext.
type DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// Dialer returns a function that dials through next, or by itself where next is nil, and gives back a *Conn with the
// options of o set. The options are set on what next returns where that is a *net.TCPConn, or leads to one through
// methods NetConn() net.Conn.
//
// connectTimeout bounds each dial, in addition to its context; zero is no bound. The returned function is safe for
// concurrent use if next is. An option that the kernel does not know is left out without an error; any other refusal
// closes the connection and is an error.
func Dialer(o Options, connectTimeout time.Duration, next DialFunc) DialFunc {
	dial := dialer(o, connectTimeout, next)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if Held(network) {
			return nil, errHeld
		}
		return dial(ctx, network, addr)
	}
}

var errHeld = errors.New("retrypg: cancel requests are held back while COMMIT is answered")

func dialer(o Options, connectTimeout time.Duration, next DialFunc) DialFunc {
	if next == nil {
		return ownDialer(o, connectTimeout)
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if connectTimeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, connectTimeout)
			defer cancel()
		}
		nc, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if nc == nil {
			return nil, errors.New("retrypg: the dial function returned neither a connection nor an error")
		}
		if tc := tcpOf(nc); tc != nil {
			if err := o.set(tc); err != nil {
				_ = nc.Close() // the error that matters is the one before
				return nil, err
			}
		}
		if From(nc) != nil {
			return nc, nil
		}
		return newConn(nc, addr), nil
	}
}

func ownDialer(o Options, connectTimeout time.Duration) DialFunc {
	d := &net.Dialer{Timeout: max(connectTimeout, 0), KeepAliveConfig: o.keepAlive()}
	if o.KeepAliveIdle == Off {
		d.KeepAlive = -1
	}
	if o.UserTimeout > 0 {
		d.Control = func(network, _ string, rc syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			return o.setUserTimeout(rc)
		}
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newConn(nc, addr), nil
	}
}

// keepAlive leaves Enable unset where keepalive is off or wholly left to package net, which then has its own default.
func (o Options) keepAlive() net.KeepAliveConfig {
	if o.KeepAliveIdle == Off || o.KeepAliveIdle == 0 && o.KeepAliveInterval == 0 && o.KeepAliveCount == 0 {
		return net.KeepAliveConfig{}
	}
	return net.KeepAliveConfig{
		Enable:   true,
		Idle:     max(o.KeepAliveIdle, 0),
		Interval: max(o.KeepAliveInterval, 0),
		Count:    max(o.KeepAliveCount, 0),
	}
}

// set applies the options to a connection that is open already.
func (o Options) set(tc *net.TCPConn) error {
	if o.UserTimeout > 0 {
		rc, err := tc.SyscallConn()
		if err != nil {
			return fmt.Errorf("retrypg: set TCP_USER_TIMEOUT: %w", err)
		}
		if err := o.setUserTimeout(rc); err != nil {
			return err
		}
	}
	var err error
	if cfg := o.keepAlive(); cfg.Enable {
		err = tc.SetKeepAliveConfig(cfg)
	} else if o.KeepAliveIdle == Off {
		err = tc.SetKeepAlive(false)
	}
	if err != nil && !notKnown(err) {
		return fmt.Errorf("retrypg: set TCP keepalive to %v, %v, %d: %w",
			o.KeepAliveIdle, o.KeepAliveInterval, o.KeepAliveCount, err)
	}
	return nil
}

func (o Options) setUserTimeout(rc syscall.RawConn) error {
	var opErr error
	err := rc.Control(func(fd uintptr) {
		if opErr = setUserTimeout(fd, o.UserTimeout); opErr == nil {
			_ = setMaxResend(fd) // older kernels do not have it, and nothing but time depends on it
		}
	})
	if err == nil {
		err = opErr
	}
	if err != nil && !notKnown(err) {
		return fmt.Errorf("retrypg: set TCP_USER_TIMEOUT to %v: %w", o.UserTimeout, err)
	}
	return nil
}

func tcpOf(nc net.Conn) *net.TCPConn {
	for range maxDepth {
		switch c := nc.(type) {
		case *net.TCPConn:
			return c
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			return nil
		}
	}
	return nil
}
