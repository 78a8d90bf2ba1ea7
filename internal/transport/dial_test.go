package transport

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func listen(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

func TestAUsersDialFunctionIsCalledWithWhatPgxAskedFor(t *testing.T) {
	addr := listen(t)
	var got []string
	dial := Dialer(Options{}, 0, func(ctx context.Context, network, addr string) (net.Conn, error) {
		got = []string{network, addr}
		_, bounded := ctx.Deadline()
		require.False(t, bounded)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	})
	nc, err := dial(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer nc.Close()
	require.Equal(t, []string{"tcp", addr}, got)
	require.IsType(t, (*Conn)(nil), nc)
}

func TestTheErrorOfADialFunctionIsPassedOnUnchanged(t *testing.T) {
	want := errors.New("no tunnel")
	dial := Dialer(Options{UserTimeout: time.Second}, time.Second,
		func(context.Context, string, string) (net.Conn, error) { return nil, want })
	nc, err := dial(t.Context(), "tcp", "db:5432")
	require.Nil(t, nc)
	require.Equal(t, want, err)
}

func TestADialFunctionThatReturnsNothingIsAnError(t *testing.T) {
	dial := Dialer(Options{}, 0, func(context.Context, string, string) (net.Conn, error) { return nil, nil })
	nc, err := dial(t.Context(), "tcp", "db:5432")
	require.Nil(t, nc)
	require.ErrorContains(t, err, "neither a connection nor an error")
}

func TestTheConnectTimeoutBoundsAUsersDialFunction(t *testing.T) {
	dial := Dialer(Options{}, time.Millisecond, func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, err := dial(t.Context(), "tcp", "db:5432")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestTheConnectTimeoutBoundsOurOwnDial(t *testing.T) {
	_, err := Dialer(Options{}, time.Nanosecond, nil)(t.Context(), "tcp", listen(t))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestADialObeysItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	nc, err := Dialer(Options{}, 0, nil)(ctx, "tcp", listen(t))
	require.Nil(t, nc)
	require.Error(t, err)
}

func TestARefusedDialGivesNoConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	nc, err := Dialer(Options{UserTimeout: time.Second}, time.Second, nil)(t.Context(), "tcp", addr)
	require.True(t, nc == nil, "not a nil *Conn in an interface")
	require.Error(t, err)
}

func TestADialerOnADialerWrapsOnce(t *testing.T) {
	inner := Dialer(Options{}, 0, nil)
	var first net.Conn
	dial := Dialer(Options{}, 0, func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := inner(ctx, network, addr)
		first = nc
		return nc, err
	})
	nc, err := dial(t.Context(), "tcp", listen(t))
	require.NoError(t, err)
	defer nc.Close()
	require.Same(t, first, nc)
}

func TestAUsersConnectionThatIsNotTCPIsWrappedAsItIs(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	dial := Dialer(Options{UserTimeout: time.Second, KeepAliveIdle: time.Second}, 0,
		func(context.Context, string, string) (net.Conn, error) { return near, nil })
	nc, err := dial(t.Context(), "tcp", "db:5432")
	require.NoError(t, err)
	defer nc.Close()
	require.Same(t, near, nc.(*Conn).NetConn())
}

func TestAnOptionThatCannotBeSetClosesTheConnection(t *testing.T) {
	addr := listen(t)
	closed := false
	dial := Dialer(Options{KeepAliveIdle: Off}, 0, func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		require.NoError(t, err)
		require.NoError(t, nc.Close()) // nothing can be set on it any more
		return closing{wrapper{nc}, &closed}, nil
	})
	nc, err := dial(t.Context(), "tcp", addr)
	require.True(t, nc == nil)
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorContains(t, err, "keepalive")
	require.True(t, closed)
}

type closing struct {
	wrapper
	closed *bool
}

func (c closing) Close() error {
	*c.closed = true
	return nil
}
