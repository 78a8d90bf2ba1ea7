package transport

import (
	"context"
	"errors"
	"math"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sockopts is what the kernel says about a socket.
type sockopts struct {
	UserTimeoutMillis, KeepAlive, Idle, Interval, Count int
}

func sockoptsOf(t *testing.T, nc net.Conn) (o sockopts) {
	t.Helper()
	rc, err := nc.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		for _, g := range []struct {
			level, name int
			to          *int
		}{
			{syscall.IPPROTO_TCP, tcpUserTimeout, &o.UserTimeoutMillis},
			{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, &o.KeepAlive},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, &o.Idle},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, &o.Interval},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, &o.Count},
		} {
			v, err := syscall.GetsockoptInt(int(fd), g.level, g.name)
			require.NoError(t, err)
			*g.to = v
		}
	}))
	return o
}

// dialers are the two ways to a connection: our own dialer, and a user's function whose result gets the options later.
func dialers(o Options) map[string]DialFunc {
	return map[string]DialFunc{
		"own":  Dialer(o, 0, nil),
		"user": Dialer(o, 0, (&net.Dialer{}).DialContext),
		"user wrapped": Dialer(o, 0, func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return wrapper{nc}, err
		}),
	}
}

func TestTheKernelHasTheOptionsThatWereAskedFor(t *testing.T) {
	addr := listen(t)
	for _, tc := range []struct {
		name string
		o    Options
		want sockopts
	}{
		{
			"all",
			Options{UserTimeout: 1500 * time.Millisecond, KeepAliveIdle: 2 * time.Second, KeepAliveInterval: time.Second, KeepAliveCount: 3},
			sockopts{1500, 1, 2, 1, 3},
		},
		{
			"fractions are rounded up, never to nothing",
			Options{UserTimeout: 1, KeepAliveIdle: 1, KeepAliveInterval: 1100 * time.Millisecond, KeepAliveCount: 1},
			sockopts{1, 1, 1, 2, 1},
		},
		{
			"a user timeout beyond the kernel's range is cut",
			Options{UserTimeout: math.MaxInt64, KeepAliveIdle: 2 * time.Second, KeepAliveInterval: time.Second, KeepAliveCount: 3},
			sockopts{math.MaxInt32, 1, 2, 1, 3},
		},
		{
			"zero leaves package net's defaults",
			Options{},
			sockopts{0, 1, 15, 15, 9},
		},
		{
			"an interval alone leaves the rest to package net",
			Options{UserTimeout: Off, KeepAliveInterval: 3 * time.Second},
			sockopts{0, 1, 15, 3, 9},
		},
	} {
		for how, dial := range dialers(tc.o) {
			t.Run(tc.name+"/"+how, func(t *testing.T) {
				nc, err := dial(t.Context(), "tcp", addr)
				require.NoError(t, err)
				defer nc.Close()
				require.Equal(t, tc.want, sockoptsOf(t, nc))
			})
		}
	}
}

func TestOffSwitchesKeepAliveAndUserTimeoutOff(t *testing.T) {
	addr := listen(t)
	for how, dial := range dialers(Options{UserTimeout: Off, KeepAliveIdle: Off, KeepAliveInterval: time.Second, KeepAliveCount: 3}) {
		t.Run(how, func(t *testing.T) {
			nc, err := dial(t.Context(), "tcp", addr)
			require.NoError(t, err)
			defer nc.Close()
			got := sockoptsOf(t, nc)
			require.Zero(t, got.KeepAlive)
			require.Zero(t, got.UserTimeoutMillis)
		})
	}
}

func TestTheUserTimeoutHoldsForTheHandshakeToo(t *testing.T) {
	require.True(t, Supported().UserTimeout)
	set := -1
	d := Options{UserTimeout: time.Second}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	own := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		require.NoError(t, d.setUserTimeout(rc))
		return rc.Control(func(fd uintptr) { set, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout) })
	}}
	nc, dialErr := own.DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, dialErr)
	defer nc.Close()
	require.NoError(t, err)
	require.Equal(t, 1000, set)
}

func TestAKernelThatLacksTheOptionIsTolerated(t *testing.T) {
	// A Unix socket refuses options of the TCP level as a kernel without them does.
	c, _ := pair(t, "unix")
	rc, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		require.ErrorIs(t, setUserTimeout(fd, time.Second), syscall.EOPNOTSUPP)
	}))
	require.NoError(t, Options{UserTimeout: time.Second}.setUserTimeout(rc))
}

// TestUnacknowledgedDataIsSentAgainEverySecond asks the kernel, where it knows the option.
func TestUnacknowledgedDataIsSentAgainEverySecond(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	for _, next := range []DialFunc{nil, (&net.Dialer{}).DialContext} {
		nc, err := Dialer(Options{UserTimeout: 10 * time.Second}, 0, next)(t.Context(), "tcp", ln.Addr().String())
		require.NoError(t, err)
		defer nc.Close()
		rc, err := nc.(*Conn).SyscallConn()
		require.NoError(t, err)
		var ms int
		var optErr error
		require.NoError(t, rc.Control(func(fd uintptr) { ms, optErr = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpRTOMax) }))
		if errors.Is(optErr, syscall.ENOPROTOOPT) {
			t.Log("this kernel does not have it")
			return
		}
		require.NoError(t, optErr)
		require.Equal(t, 1000, ms)
	}
}
