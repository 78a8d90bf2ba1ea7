package pgtest

import (
	"encoding/binary"
	"io"
	"time"
)

// Codes of the packets that may come instead of a startup message (PostgreSQL documentation, "Message Formats").
const (
	cancelRequest  = 80877102
	sslRequest     = 80877103
	gssEncRequest  = 80877104
	largestStartup = 10000 // MAX_STARTUP_PACKET_LENGTH in src/include/libpq/pqcomm.h
	tlsHandshake   = 0x16  // first byte of a TLS connection (RFC 8446, content type handshake)
)

// startup handles a new connection up to its startup message, which it returns, with the server connected. ok is
// false when there is nothing more to do for this client.
func (c *ProxyConn) startup() (first []byte, ok bool) {
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(c.client, head); err != nil {
			return nil, false
		}
		if head[0] == tlsHandshake { // TLS without asking, as PostgreSQL 17 allows
			c.setRaw()
			return head, c.connect()
		}
		n := binary.BigEndian.Uint32(head)
		if n < uint32(len(head)) || n > largestStartup {
			return nil, false
		}
		packet := append(head, make([]byte, int(n)-len(head))...)
		if _, err := io.ReadFull(c.client, packet[len(head):]); err != nil {
			return nil, false
		}
		switch binary.BigEndian.Uint32(packet[4:]) {
		case cancelRequest:
			c.passCancel(packet)
			return nil, false
		case gssEncRequest:
			if !c.gate(FromServer, time.Now()) {
				return nil, false
			}
			c.write(FromServer, []byte{'N'})
		case sslRequest:
			answer, ok := c.askTLS(packet)
			if !ok || !c.gate(FromServer, time.Now()) {
				return nil, false
			}
			c.write(FromServer, []byte{answer})
			if answer == 'S' {
				c.setRaw()
				return nil, true
			}
		default:
			return packet, c.connect()
		}
	}
}

func (c *ProxyConn) setRaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = true
}

// askTLS returns the server's answer to a request for TLS, or 'N' if requests are not passed on.
func (c *ProxyConn) askTLS(packet []byte) (answer byte, ok bool) {
	c.proxy.mu.Lock()
	pass := c.proxy.tls
	c.proxy.mu.Unlock()
	if !pass {
		return 'N', true
	}
	if !c.gate(FromClient, time.Now()) || !c.connect() {
		return 0, false
	}
	c.write(FromClient, packet)
	reply := make([]byte, 1)
	if _, err := io.ReadFull(c.peer(FromClient), reply); err != nil {
		return 0, false
	}
	return reply[0], true
}

// passCancel takes a cancel request to the server, unless told not to, and waits until the server has closed the
// connection: it has sent the signal then.
func (c *ProxyConn) passCancel(packet []byte) {
	c.proxy.mu.Lock()
	drop := c.proxy.noCancel
	c.proxy.mu.Unlock()
	defer c.proxy.count(func(s *Stats) { s.Cancels++ })
	if drop || !c.gate(FromClient, time.Now()) || !c.connect() {
		return
	}
	c.write(FromClient, packet)
	drain(c.peer(FromClient))
}

// connect reaches the server, once.
func (c *ProxyConn) connect() bool {
	if c.peer(FromClient) != nil {
		return true
	}
	server, err := c.proxy.dial()
	if err != nil {
		return false
	}
	c.mu.Lock()
	c.server = server
	cut := c.cut
	c.mu.Unlock()
	if cut || c.proxy.ctx.Err() != nil {
		_ = server.Close()
		return false
	}
	return true
}
