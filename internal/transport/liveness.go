package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
)

// Liveness is what a look at a connection shows without reading from it.
type Liveness int8

const (
	// Unknown means that this system or this connection cannot be looked at.
	Unknown Liveness = iota
	// Alive means that the connection is open as far as this host knows and nothing waits to be read. A peer that
	// vanished without a word is Alive until the TCP options of the dialer notice.
	Alive
	// Pending means that unread bytes wait: a notice, a notification, a TLS session ticket, or the FATAL of a server
	// that is going away. The end of the connection may wait behind them; only reading tells.
	Pending
	// Dead means that the peer closed or reset the connection, that the kernel gave it up, or that it was closed here.
	Dead
)

// String is the name of l in lower case.
func (l Liveness) String() string {
	switch l {
	case Unknown:
		return "unknown"
	case Alive:
		return "alive"
	case Pending:
		return "pending"
	case Dead:
		return "dead"
	}
	return fmt.Sprintf("liveness(%d)", int8(l))
}

// Support says what this system offers.
type Support struct {
	UserTimeout bool // Options.UserTimeout has an effect
	Peek        bool // Conn.Peek can tell more than Unknown
}

// Supported says what this system offers. Keepalive exists on all of them.
func Supported() Support { return Support{UserTimeout: hasUserTimeout, Peek: hasPeek} }

// Peek looks at the connection: one system call that never waits, takes no byte away and allocates nothing while the
// connection lives. It may be called while another goroutine reads or writes. An error that the look brings up is kept
// for ReadErr, because the kernel reports it only once. Bytes that a layer above, TLS or pgx, has already read are not
// seen.
func (c *Conn) Peek() Liveness {
	if c.readErr.Load() != nil || c.writeErr.Load() != nil {
		return Dead
	}
	if c.raw == nil || !hasPeek {
		return Unknown
	}
	c.peekMu.Lock()
	defer c.peekMu.Unlock()
	// Control, and not Read: the latter would wait for a Read in progress and fail once a deadline has passed.
	if err := c.raw.Control(c.peekFn); err != nil {
		return Dead // the only reason is that the connection was closed here
	}
	if c.peeked == Dead {
		err := c.peekErr
		if !errors.Is(err, io.EOF) {
			err = &net.OpError{
				Op: "read", Net: c.nc.RemoteAddr().Network(),
				Source: c.nc.LocalAddr(), Addr: c.nc.RemoteAddr(), Err: err,
			}
		}
		remember(&c.readErr, err)
	}
	return c.peeked
}
