package pgtest

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// chunk is what one read returned.
type chunk struct {
	at   time.Time
	data []byte
	err  error // the end; data is empty then
}

// readSize is the largest piece read at once; a client's batch arrives in one piece if it is smaller.
const readSize = 64 << 10

// queued is how many pieces a delay may hold before the sender feels it.
const queued = 64

// pump forwards one direction until its end. first is sent before everything else, as it is.
func (c *ProxyConn) pump(dir Direction, first []byte) {
	from := c.client
	if dir == FromServer {
		from = c.server // set by startup, and never again
	}
	chunks := make(chan chunk, queued)
	stop := make(chan struct{})
	var reading sync.WaitGroup
	defer reading.Wait()
	defer close(stop)
	departs := func() {}
	if dir == FromClient {
		c.departed(true)
		departs = func() { c.departed(false) }
	}
	reading.Go(func() { readChunks(from, departs, chunks, stop) })

	if len(first) > 0 && c.gate(dir, time.Now()) {
		c.write(dir, first)
	}
	var rest []byte
	for piece := range chunks {
		pass := c.gate(dir, piece.at)
		switch {
		case piece.err != nil:
			if pass {
				c.write(dir, rest)
				c.deactivate()
				how := RST
				if errors.Is(piece.err, io.EOF) {
					how = FIN
				}
				endSocket(c.peer(dir), how)
			}
			return
		case pass:
			rest = c.forward(dir, append(rest, piece.data...))
		default:
			rest = nil
			c.proxy.count(func(s *Stats) { s.Swallowed += int64(len(piece.data)) })
		}
	}
}

// departed counts what the client has sent if it begins a flight. It is called before a delay on the way to the server; what
// the client is sent counts after the delay on that way. So a client that does not wait for an answer has one flight.
func (c *ProxyConn) departed(first bool) {
	c.mu.Lock()
	begins := first || c.told
	c.told = false
	c.mu.Unlock()
	if begins {
		c.proxy.count(func(s *Stats) { s.Flights++ })
	}
}

// readChunks hands on what it reads. It calls departs for each piece before.
func readChunks(from io.Reader, departs func(), chunks chan<- chunk, stop <-chan struct{}) {
	defer close(chunks)
	for {
		buf := make([]byte, readSize)
		n, err := from.Read(buf)
		now := time.Now()
		if n > 0 {
			departs()
		}
		for _, piece := range []chunk{{at: now, data: buf[:n]}, {at: now, err: err}} {
			if len(piece.data) == 0 && piece.err == nil {
				continue
			}
			select {
			case chunks <- piece:
			case <-stop:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// peer returns the socket that a direction leads to.
func (c *ProxyConn) peer(dir Direction) *net.TCPConn {
	if dir == FromServer {
		return c.client
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server
}

// write sends bytes on. When that fails the sender is reset, as it would be by the receiver.
func (c *ProxyConn) write(dir Direction, data []byte) {
	if len(data) == 0 {
		return
	}
	if dir == FromServer {
		c.mu.Lock()
		c.told = true // before it can answer
		c.mu.Unlock()
	}
	c.writing[dir].Lock()
	_, err := c.peer(dir).Write(data)
	c.writing[dir].Unlock()
	if err == nil {
		return
	}
	c.mu.Lock()
	cut := c.cut
	c.mu.Unlock()
	if !cut {
		c.deactivate()
		endSocket(c.peer(1-dir), RST)
	}
}

// gate waits until bytes that were read at that time may pass, and returns whether they do.
func (c *ProxyConn) gate(dir Direction, at time.Time) bool {
	for {
		c.mu.Lock()
		faults, changed := c.faults, c.changed
		if c.cut || c.swallow {
			c.mu.Unlock()
			return false
		}
		if faults.blackHole(dir) {
			c.lost[dir] = true
			c.mu.Unlock()
			return false
		}
		c.mu.Unlock()
		var due <-chan time.Time
		if !faults.stall(dir) {
			wait := time.Until(at.Add(faults.delay(dir)))
			if faults.delay(dir) <= 0 || wait <= 0 {
				return true
			}
			due = time.After(wait)
		}
		select {
		case <-due:
		case <-changed:
		case <-c.proxy.ctx.Done():
			return false
		}
	}
}

// forward sends the whole messages in buf on, as rules allow, and returns what is left over: part of a message.
func (c *ProxyConn) forward(dir Direction, buf []byte) []byte {
	c.mu.Lock()
	raw := c.raw
	c.mu.Unlock()
	if raw {
		c.write(dir, buf)
		return nil
	}
	rest := buf
	ready := 0 // bytes of buf, before rest, that may go and have not gone yet
	for {
		text, ok := splitMessage(rest)
		if !ok {
			c.mu.Lock()
			c.raw = true
			c.mu.Unlock()
			c.write(dir, buf[len(buf)-len(rest)-ready:])
			return nil
		}
		start := len(buf) - len(rest)
		if text == nil {
			c.write(dir, buf[start-ready:start])
			return rest
		}
		rest = rest[len(text):]
		m := c.read(dir, text)
		rule := c.proxy.ruleFor(m)
		if rule == nil {
			ready += len(text)
			continue
		}
		c.write(dir, buf[start-ready:start])
		ready = 0
		if !c.act(rule, m, text, rest) {
			return nil
		}
	}
}

// read makes a message of its bytes and counts it.
func (c *ProxyConn) read(dir Direction, text []byte) Message {
	m := Message{Conn: c.number, Dir: dir, Type: text[0], Body: text[5:]}
	c.mu.Lock()
	if dir == FromClient {
		c.track.fromClient(&m)
	} else {
		c.track.fromServer(&m)
	}
	c.mu.Unlock()
	c.proxy.count(func(s *Stats) {
		s.messages[dir][m.Type]++
		if dir == FromClient && (m.Type == 'Q' || m.Type == 'E') {
			s.Queries = append(s.Queries, m.SQL)
		}
	})
	return m
}
