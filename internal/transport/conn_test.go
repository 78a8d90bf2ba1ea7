package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pair is a connection through Dialer and the server's end of it, over loopback TCP or a Unix socket.
func pair(tb testing.TB, network string) (*Conn, net.Conn) {
	tb.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "transport") //nolint:usetesting // T.TempDir can be longer than the 108 bytes of sun_path
		require.NoError(tb, err)
		tb.Cleanup(func() { os.RemoveAll(dir) })
		addr = dir + "/s"
	}
	ln, err := net.Listen(network, addr)
	require.NoError(tb, err)
	defer ln.Close()
	nc, err := Dialer(Options{}, 0, nil)(tb.Context(), network, ln.Addr().String())
	require.NoError(tb, err)
	tb.Cleanup(func() { nc.Close() })
	server, err := ln.Accept()
	require.NoError(tb, err)
	tb.Cleanup(func() { server.Close() })
	return nc.(*Conn), server
}

func TestBytesAreCountedInBothDirections(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			c, server := pair(t, network)
			n, err := c.Write([]byte("hello"))
			require.NoError(t, err)
			require.Equal(t, 5, n)
			require.EqualValues(t, 5, c.BytesWritten())
			require.Zero(t, c.BytesRead())

			_, err = server.Write([]byte("abc"))
			require.NoError(t, err)
			buf := make([]byte, 2)
			_, err = io.ReadFull(c, buf)
			require.NoError(t, err)
			require.EqualValues(t, 2, c.BytesRead())
			require.EqualValues(t, 5, c.BytesWritten())
		})
	}
}

func TestAWriteCutShortCountsExactlyWhatTheKernelTook(t *testing.T) {
	c, server := pair(t, "tcp")
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
	n, err := c.Write(make([]byte, 64<<20)) // more than both socket buffers hold while the server does not read
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Positive(t, n)
	require.Less(t, n, 64<<20)
	require.EqualValues(t, n, c.BytesWritten())
	require.NoError(t, c.WriteErr(), "a passed deadline is not an error of the connection")

	require.NoError(t, c.Close())
	got, err := io.Copy(io.Discard, server)
	require.NoError(t, err)
	require.EqualValues(t, n, got, "what was counted is what could arrive")
}

func TestAWriteThatNeverLeftCountsNothing(t *testing.T) {
	c, _ := pair(t, "tcp")
	require.NoError(t, c.SetWriteDeadline(time.Unix(1, 0)))
	_, err := c.Write([]byte("x"))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Zero(t, c.BytesWritten())
}

func TestCountersMayBeReadWhileOthersReadAndWrite(t *testing.T) {
	c, server := pair(t, "tcp")
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 200 {
			_, _ = c.Write([]byte("12345"))
		}
	})
	wg.Go(func() { _, _ = io.CopyN(server, server, 1000) })
	wg.Go(func() { _, _ = io.CopyN(io.Discard, onlyReader{c}, 1000) })
	for last := uint64(0); last < 1000; {
		now := c.BytesRead()
		require.GreaterOrEqual(t, now, last)
		require.LessOrEqual(t, c.BytesWritten(), uint64(1000))
		require.NotEqual(t, Dead, c.Peek())
		last = now
	}
	wg.Wait()
	require.EqualValues(t, 1000, c.BytesWritten())
}

type onlyReader struct{ io.Reader }

func TestTheFirstRealErrorIsKept(t *testing.T) {
	c, server := pair(t, "tcp")
	require.NoError(t, c.ReadErr())
	require.NoError(t, c.WriteErr())

	require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.ReadErr(), "a passed deadline is not an error of the connection")

	require.NoError(t, c.SetReadDeadline(time.Time{}))
	require.NoError(t, server.Close())
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, io.EOF, c.ReadErr())

	require.NoError(t, c.Close())
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	require.Equal(t, io.EOF, c.ReadErr(), "what came later does not hide what came first")
	require.NoError(t, c.WriteErr())
}

func TestOurOwnCloseIsNotAnErrorOfTheConnection(t *testing.T) {
	c, _ := pair(t, "tcp")
	require.NoError(t, c.Close())
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = c.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, c.ReadErr())
	require.NoError(t, c.WriteErr())
}

func TestAResetShowsInWriteErr(t *testing.T) {
	c, server := pair(t, "tcp")
	reset(t, server)
	require.Eventually(t, func() bool {
		_, err := c.Write([]byte("x"))
		return err != nil
	}, 5*time.Second, time.Millisecond)
	first := c.WriteErr()
	require.Error(t, first)
	require.True(t, errors.Is(first, syscall.ECONNRESET) || errors.Is(first, syscall.EPIPE), first.Error())
}

func TestFromLooksThroughTLSAndWrappers(t *testing.T) {
	c, _ := pair(t, "tcp")
	require.Same(t, c, From(c))
	require.Same(t, c, From(tls.Client(c, &tls.Config{})))
	require.Same(t, c, From(wrapper{tls.Client(wrapper{c}, &tls.Config{})}))
}

func TestFromIsNilWhereThereIsNone(t *testing.T) {
	c, server := pair(t, "tcp")
	require.Nil(t, From(nil))
	require.Nil(t, From(server))
	require.Nil(t, From(wrapper{nil}))
	require.Nil(t, From(hiding{c}), "a wrapper without NetConn hides what it wraps")
	require.Nil(t, From(circular{}), "a wrapper of itself ends the search")
}

type wrapper struct{ net.Conn }

func (w wrapper) NetConn() net.Conn { return w.Conn }

type hiding struct{ net.Conn }

type circular struct{ net.Conn }

func (c circular) NetConn() net.Conn { return c }

func TestTheRestOfTheConnectionIsForwarded(t *testing.T) {
	c, server := pair(t, "tcp")
	require.Equal(t, server.RemoteAddr().String(), c.LocalAddr().String())
	require.Equal(t, server.LocalAddr().String(), c.RemoteAddr().String())
	require.IsType(t, (*net.TCPConn)(nil), c.NetConn())
	rc, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) { require.NotZero(t, fd) }))

	require.NoError(t, c.SetDeadline(time.Unix(1, 0)))
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetDeadline(time.Time{}))
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
}

func TestAConnectionWithoutASocketSaysSo(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := newConn(near, "")
	defer c.Close()
	_, err := c.SyscallConn()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.Equal(t, Unknown, c.Peek())
}

func TestReadAndWriteAllocateNothing(t *testing.T) {
	c, server := pair(t, "tcp")
	buf := make([]byte, 16)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		_, _ = c.Write(buf)
		_, _ = io.ReadFull(server, buf)
		_, _ = server.Write(buf)
		_, _ = c.Read(buf)
	}))
	require.NoError(t, c.ReadErr())
}

// reset ends the connection with RST in place of FIN.
func reset(t *testing.T, nc net.Conn) {
	t.Helper()
	require.NoError(t, nc.(*net.TCPConn).SetLinger(0))
	require.NoError(t, nc.Close())
}
