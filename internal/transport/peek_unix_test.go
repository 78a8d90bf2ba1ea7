//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package transport

import (
	"crypto/tls"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// becomes waits until Peek gives want: over loopback the other end's deed shows a moment later.
func becomes(t *testing.T, c *Conn, want Liveness) {
	t.Helper()
	require.Eventually(t, func() bool { return c.Peek() == want }, 5*time.Second, time.Millisecond)
}

func TestAnIdleConnectionIsAlive(t *testing.T) {
	require.True(t, Supported().Peek)
	for _, network := range []string{"tcp", "unix"} {
		c, _ := pair(t, network)
		require.Equal(t, Alive, c.Peek(), network)
	}
}

func TestPeekSeesUnreadBytesAndLeavesThem(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		c, server := pair(t, network)
		_, err := server.Write([]byte("E"))
		require.NoError(t, err)
		becomes(t, c, Pending)
		require.Equal(t, Pending, c.Peek())
		require.Zero(t, c.BytesRead())
		buf := make([]byte, 1)
		_, err = io.ReadFull(c, buf)
		require.NoError(t, err)
		require.Equal(t, "E", string(buf))
		require.Equal(t, Alive, c.Peek())
	}
}

func TestAClosedPeerIsDead(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		c, server := pair(t, network)
		require.NoError(t, server.Close())
		becomes(t, c, Dead)
		require.Equal(t, io.EOF, c.ReadErr(), network)
		require.Equal(t, Dead, c.Peek())
	}
}

func TestAResetPeerIsDeadAndPeekKeepsTheErrorThatTheKernelTellsOnce(t *testing.T) {
	c, server := pair(t, "tcp")
	reset(t, server)
	becomes(t, c, Dead)
	require.ErrorIs(t, c.ReadErr(), syscall.ECONNRESET)
	var op *net.OpError
	require.ErrorAs(t, c.ReadErr(), &op)
	require.Equal(t, c.RemoteAddr(), op.Addr)
	require.Equal(t, Dead, c.Peek())
}

func TestBytesBeforeTheEndHideTheEndUntilTheyAreRead(t *testing.T) {
	c, server := pair(t, "tcp")
	_, err := server.Write([]byte("FATAL"))
	require.NoError(t, err)
	require.NoError(t, server.Close())
	becomes(t, c, Pending)
	got, err := io.ReadAll(onlyReader{c})
	require.NoError(t, err)
	require.Equal(t, "FATAL", string(got))
	require.Equal(t, Dead, c.Peek())
}

func TestAConnectionClosedHereIsDead(t *testing.T) {
	c, _ := pair(t, "tcp")
	require.NoError(t, c.Close())
	require.Equal(t, Dead, c.Peek())
	require.NoError(t, c.ReadErr())
}

func TestAConnectionWhoseReadFailedIsDeadWithoutAnotherLook(t *testing.T) {
	c, server := pair(t, "tcp")
	require.NoError(t, server.Close())
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, Dead, c.Peek())
}

func TestPeekDoesNotWaitForAReadInProgressNorFailAfterADeadline(t *testing.T) {
	c, server := pair(t, "tcp")
	require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
	require.Equal(t, Alive, c.Peek())
	require.NoError(t, c.SetReadDeadline(time.Time{}))

	done := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		close(started)
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	<-started
	for range 1000 {
		require.Equal(t, Alive, c.Peek())
	}
	_, err := server.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, <-done)
}

func TestPeekLooksUnderTheTLSOfADialFunction(t *testing.T) {
	plain, server := pair(t, "tcp")
	c := newConn(tls.Client(plain.NetConn(), &tls.Config{}), "")
	require.Equal(t, Alive, c.Peek())
	require.NoError(t, server.Close())
	becomes(t, c, Dead)
}

func TestPeekAllocatesNothing(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		c, server := pair(t, network)
		require.Zero(t, testing.AllocsPerRun(200, func() { c.Peek() }), network)
		_, err := server.Write([]byte("x"))
		require.NoError(t, err)
		becomes(t, c, Pending)
		require.Zero(t, testing.AllocsPerRun(200, func() { c.Peek() }), network)
	}
}

func TestLivenessHasNames(t *testing.T) {
	for l, want := range map[Liveness]string{
		Unknown: "unknown", Alive: "alive", Pending: "pending", Dead: "dead", 9: "liveness(9)",
	} {
		require.Equal(t, want, l.String())
	}
}

func BenchmarkPeek(b *testing.B) {
	c, _ := pair(b, "tcp")
	b.ReportAllocs()
	for b.Loop() {
		c.Peek()
	}
}
