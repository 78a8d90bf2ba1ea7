package transport

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxDepth bounds how many wrappers are looked through, so that one which returns itself ends the search. Real stacks
// have two or three: TLS, a tracing or throttling wrapper, the dialer's own.
const maxDepth = 16

// Conn is a network connection that remembers what went over it. It adds no allocation and a few atomic operations to a
// Read or a Write. It is a net.Conn, so every method may be called from several goroutines at once.
//
// Under TLS it sees the encrypted stream: bytes are those of TLS records, and the handshake, session tickets and the
// closing alert are counted too.
type Conn struct {
	nc      net.Conn
	addr    string // that was dialled
	read    atomic.Uint64
	written atomic.Uint64
	asked   atomic.Uint64 // what was read when the last Write began

	attached any          // see Attach
	guard    func() error // nil: none; see Guard

	severed atomic.Pointer[error] // why Sever ended it
	onClose func()                // nil: nothing

	readErr  atomic.Pointer[error]
	writeErr atomic.Pointer[error]

	held atomic.Bool // RemoteAddr names no address

	raw syscall.RawConn // nil where the connection has no file descriptor to look at

	peekMu  sync.Mutex // guards the fields below, which exist so that Peek allocates nothing
	peekFn  func(fd uintptr)
	peekBuf [1]byte
	peekErr error
	peeked  Liveness
}

var (
	_ net.Conn     = (*Conn)(nil)
	_ syscall.Conn = (*Conn)(nil)
)

func newConn(nc net.Conn, addr string) *Conn {
	c := &Conn{nc: nc, addr: addr}
	if sc := syscallConnOf(nc); sc != nil {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
			c.peekFn = c.peekFD
		}
	}
	return c
}

// From finds the Conn of this package in a connection that may be wrapped: *tls.Conn and every type with a method
// NetConn() net.Conn are looked through. It is nil where there is none, as with a wrapper that hides what it wraps.
func From(nc net.Conn) *Conn {
	for range maxDepth {
		switch c := nc.(type) {
		case *Conn:
			return c
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			return nil
		}
	}
	return nil
}

func syscallConnOf(nc net.Conn) syscall.Conn {
	for range maxDepth {
		switch c := nc.(type) {
		case syscall.Conn:
			return c
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			return nil
		}
	}
	return nil
}

// Read reads from the connection, counts the bytes and keeps the first error for ReadErr.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.nc.Read(p)
	if n > 0 {
		c.read.Add(uint64(n))
	}
	if err != nil {
		err = c.reason(err)
		remember(&c.readErr, err)
	}
	return n, err
}

// Write writes to the connection, counts the bytes that were taken and keeps the first error for WriteErr.
func (c *Conn) Write(p []byte) (int, error) {
	if c.guard != nil {
		if err := c.guard(); err != nil {
			return 0, err
		}
	}
	c.asked.Store(c.read.Load())
	n, err := c.nc.Write(p)
	if n > 0 {
		c.written.Add(uint64(n))
	}
	if err != nil {
		err = c.reason(err)
		remember(&c.writeErr, err)
	}
	return n, err
}

// Awaiting reports whether something was written and nothing has come back since: in a protocol of questions and answers,
// that an answer is awaited.
func (c *Conn) Awaiting() bool { return c.written.Load() > 0 && c.asked.Load() == c.read.Load() }

// Sever closes the connection; what Read and Write then fail with is err. It may be called while others use the connection.
func (c *Conn) Sever(err error) {
	c.severed.CompareAndSwap(nil, &err)
	_ = c.nc.Close() // nobody is left to be told
}

// reason is why Sever ended the connection, if it did, and err if not.
func (c *Conn) reason(err error) error {
	if why := c.severed.Load(); why != nil {
		return *why
	}
	return err
}

// Attach keeps v, which is what lies above the connection, for Attached. It must be called before others use the connection.
func (c *Conn) Attach(v any) { c.attached = v }

// Attached returns what Attach was called with last, or nil.
func (c *Conn) Attached() any { return c.attached }

// Guard makes each Write ask f first, whose error keeps it from writing anything. It must be called before others use the connection.
func (c *Conn) Guard(f func() error) { c.guard = f }

// Dialled is the address that was dialled.
func (c *Conn) Dialled() string { return c.addr }

// BytesWritten is the number of bytes handed to the kernel so far (for a connection of the user's own dial function: to
// that connection). A Write counts when it returns, one cut short by an error with the bytes that it had handed over. So
// when a call has returned and the number is what it was before, nothing of what the call was to send can have reached
// the server; a larger number does not say that anything arrived.
func (c *Conn) BytesWritten() uint64 { return c.written.Load() }

// BytesRead is the number of bytes received so far. What Peek sees is not counted until it is read.
func (c *Conn) BytesRead() uint64 { return c.read.Load() }

// ReadErr is the first error of the connection that Read or Peek met, io.EOF included, and nil before. A passed deadline
// and reading after our own Close are not errors of the connection. It stays when later calls fail differently.
func (c *Conn) ReadErr() error { return recalled(&c.readErr) }

// WriteErr is the same for Write.
func (c *Conn) WriteErr() error { return recalled(&c.writeErr) }

// OnClose makes Close call f, each time that it is called. It must be called before others use the connection.
func (c *Conn) OnClose(f func()) { c.onClose = f }

// Close closes the connection.
func (c *Conn) Close() error {
	if c.onClose != nil {
		c.onClose()
	}
	return c.nc.Close()
}

// LocalAddr is the local end of the connection.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr is the server's end of the connection. While cancel requests are held back it is an address that the
// functions of Dialer refuse.
func (c *Conn) RemoteAddr() net.Addr {
	if c.held.Load() {
		return heldAddr{}
	}
	return c.nc.RemoteAddr()
}

// HoldCancels keeps, or no longer keeps, requests to cancel from being sent for this connection: pgx sends one, to the
// address that RemoteAddr says, whenever a connection breaks or a context ends.
func (c *Conn) HoldCancels(hold bool) { c.held.Store(hold) }

// Held reports whether a network is that of a connection whose cancel requests are held back.
func Held(network string) bool { return network == heldAddr{}.Network() }

// heldAddr is the address of no server.
type heldAddr struct{}

func (heldAddr) Network() string { return "retrypg: none" }
func (heldAddr) String() string  { return "retrypg: cancel requests are held back" }

// SetDeadline bounds reads and writes, present and future ones.
func (c *Conn) SetDeadline(t time.Time) error { return c.nc.SetDeadline(t) }

// SetReadDeadline bounds reads, present and future ones.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// SetWriteDeadline bounds writes, present and future ones.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }

// NetConn is the wrapped connection. What is read or written through it is not counted.
func (c *Conn) NetConn() net.Conn { return c.nc }

// SyscallConn gives access to the socket. It is errors.ErrUnsupported where the wrapped connection has none.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc := syscallConnOf(c.nc)
	if sc == nil {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}

func remember(first *atomic.Pointer[error], err error) {
	if first.Load() != nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return
	}
	first.CompareAndSwap(nil, &err)
}

func recalled(first *atomic.Pointer[error]) error {
	if p := first.Load(); p != nil {
		return *p
	}
	return nil
}
