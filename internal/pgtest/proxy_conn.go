package pgtest

import (
	"net"
	"sync"
)

// ProxyConn is one connection through a [Proxy]. Its methods are safe for concurrent use.
type ProxyConn struct {
	proxy  *Proxy
	number int64
	client *net.TCPConn

	mu      sync.Mutex // guards the fields below
	server  *net.TCPConn
	faults  Faults
	changed chan struct{} // closed and replaced when faults, cut or swallow change
	lost    [2]bool       // bytes of that direction were swallowed by faults
	cut     bool          // nothing passes any more
	swallow bool          // nothing passes any more, and the sockets stay open
	track   tracker
	raw     bool // not the protocol, or not readable
	active  bool // counted in Stats.Active
	told    bool // the client was sent something since its last flight

	writing [2]sync.Mutex // one writer at a time, by the direction of what is written
}

// Number returns the number of the connection: the first that the proxy took is 1.
func (c *ProxyConn) Number() int64 { return c.number }

// PID returns the process id that the server announced on this connection, 0 before that.
func (c *ProxyConn) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(c.track.pid)
}

// SetFaults puts faults in force for this connection and ends those before.
func (c *ProxyConn) SetFaults(f Faults) {
	c.mu.Lock()
	c.faults = f
	broken := c.lost[FromClient] && !f.BlackHoleUp || c.lost[FromServer] && !f.BlackHoleDown
	c.notifyLocked()
	c.mu.Unlock()
	if broken {
		c.Cut(Both, RST)
	}
}

// Cut ends the connection of one side or both. What the other side sends goes nowhere from then on. It can be called
// again for the side that was left.
func (c *ProxyConn) Cut(side Side, how Cut) { c.end(side, how) }

// end is Cut; it reports whether the connection was open at both ends before.
func (c *ProxyConn) end(side Side, how Cut) bool {
	c.mu.Lock()
	c.cut = true
	server := c.server
	c.notifyLocked()
	c.mu.Unlock()
	was := c.deactivate() // before the pumps notice and do the same
	if side != Server {
		endSocket(c.client, how)
	}
	if side != Client && server != nil {
		endSocket(server, how)
	}
	return was
}

func endSocket(conn *net.TCPConn, how Cut) {
	if how == RST {
		_ = conn.SetLinger(0)
		_ = conn.Close()
		return
	}
	// The pump goes on reading: closing a socket with unread bytes would reset it.
	_ = conn.CloseWrite()
}

func (c *ProxyConn) notifyLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *ProxyConn) closeSockets() {
	c.mu.Lock()
	c.cut = true
	server := c.server
	c.notifyLocked()
	c.mu.Unlock()
	_ = c.client.Close()
	if server != nil {
		_ = server.Close()
	}
}

// deactivate takes the connection out of Stats.Active, and reports whether it was in.
func (c *ProxyConn) deactivate() bool {
	c.mu.Lock()
	was := c.active
	c.active = false
	c.mu.Unlock()
	if was {
		c.proxy.count(func(s *Stats) { s.Active-- })
	}
	return was
}

// open takes a client to the server and returns when the connection is over.
func (p *Proxy) open(client *net.TCPConn) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.numbers++
	c := &ProxyConn{
		proxy: p, number: p.numbers, client: client, faults: p.faults,
		changed: make(chan struct{}), track: newTracker(),
	}
	p.conns[c] = struct{}{}
	delete(p.opening, client)
	p.mu.Unlock()

	first, ok := c.startup()
	if ok {
		c.mu.Lock()
		c.active = !c.cut
		active := c.active
		c.mu.Unlock()
		p.count(func(s *Stats) {
			s.Opened++
			if active {
				s.Active++
			}
		})
		var pumps sync.WaitGroup
		pumps.Go(func() { c.pump(FromClient, first) })
		pumps.Go(func() { c.pump(FromServer, nil) })
		pumps.Wait()
		c.deactivate()
	} else {
		_ = client.CloseWrite()
		drain(client)
	}
	c.closeSockets()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}
