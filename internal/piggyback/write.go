package piggyback

import (
	"bytes"
	"encoding/binary"
)

// Types of the messages of a client.
const (
	msgExecute   = 'E'
	msgQuery     = 'Q'
	msgSync      = 'S'
	msgTerminate = 'X'
)

// headerLen is the length of a message without a body: its type, and its length, which counts itself.
const headerLen = 5

// maxCopied bounds what is copied, so that a flight and what travels with it are one segment of the network. A longer flight
// is many anyway.
const maxCopied = 4 << 10

var syncMsg = []byte{msgSync, 0, 0, 0, 4}

// Write writes p, which holds whole messages, and what travels with it. The count is that of p: 0 where nothing of p was
// written.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) > 0 && p[0] == msgTerminate {
		return c.w.Write(p) // pgx writes it on a goroutine of its own, when it gives the connection up
	}
	if c.watching && forgets(p) {
		c.watching, c.forgot = false, true
	}
	if c.phase.Load() == phaseReady {
		c.phase.Store(phaseNone) // the user has read to the end before it writes again
	}
	if c.begin == nil && c.behind == nil {
		return c.w.Write(p)
	}
	return c.writeWith(p)
}

func (c *Conn) writeWith(p []byte) (int, error) {
	f := inspect(p)
	if c.begin != nil && c.single && f.query {
		switch refused, err := c.beginAlone(); {
		case err != nil:
			return 0, err
		case refused:
			return len(p), nil // nothing of it was sent; the user reads why
		}
		c.track(f)
	}
	ahead, behind := c.begin, c.behind
	if ahead != nil {
		c.begin, f.begins = nil, true
		c.phase.Store(phaseSent)
	}
	if f.query || f.executes > 0 {
		c.behind = nil
	}
	if !f.query && (f.executes == 0 || !f.whole) || c.tracking() {
		behind = nil
	}
	if ahead == nil && behind == nil {
		return c.w.Write(p)
	}
	f.asks = behind != nil
	c.track(f)
	return c.writeAll(ahead, p, behind, f.query)
}

// writeAll writes a flight with what travels ahead and behind.
func (c *Conn) writeAll(ahead, p, behind []byte, query bool) (int, error) {
	body, tail := p, []byte(nil)
	if behind != nil {
		if tail = syncMsg; !query {
			body = p[:len(p)-headerLen] // Sync goes to the end
		}
	}
	if len(ahead)+len(body)+len(behind)+len(tail) <= maxCopied {
		b := append(append(c.scratch[:0], ahead...), body...)
		b = append(append(b, behind...), tail...)
		c.scratch = b
		n, err := c.w.Write(b)
		if err == nil {
			return len(p), nil
		}
		return min(max(n-len(ahead), 0), len(p)), err
	}
	if len(ahead) > 0 {
		if _, err := c.w.Write(ahead); err != nil {
			return 0, err
		}
	}
	n, err := c.w.Write(body)
	if err == nil && behind != nil {
		_, err = c.w.Write(append(bytes.Clone(behind), tail...))
	}
	if err != nil {
		return n, err
	}
	return len(p), nil
}

// beginAlone sends BEGIN with a Sync and reads the answer, so that the Query that is to follow need not be sent where it is refused:
// then the user reads the refusal as the answer to its Query.
func (c *Conn) beginAlone() (refused bool, err error) {
	msgs := append(append(c.scratch[:0], c.begin...), syncMsg...)
	c.scratch, c.begin = msgs, nil
	c.phase.Store(phaseSent)
	if _, err := c.w.Write(msgs); err != nil {
		return false, err
	}
	c.track(flight{begins: true, alone: true})
	for f := &c.flight; !f.over && c.phase.Load() != phaseRefused || f.take > 0; {
		if err := c.next(); err != nil {
			return false, err
		}
		if f.pass > 0 && c.phase.Load() != phaseRefused { // a notice
			if err := c.hold(f.pass); err != nil {
				return false, err
			}
			f.pass = 0
		}
	}
	return c.phase.Load() == phaseRefused, nil
}

// inspect reads the types of the messages of p.
func inspect(p []byte) (f flight) {
	syncs := 0
	for len(p) >= headerLen {
		typ, size := p[0], 1+int(binary.BigEndian.Uint32(p[1:]))
		if size < headerLen || size > len(p) {
			break
		}
		switch typ {
		case msgQuery:
			f.query = true
		case msgExecute:
			f.executes++
		case msgSync:
			syncs++
		}
		if p = p[size:]; len(p) == 0 {
			f.whole = f.query || syncs == 1 && typ == msgSync
		}
	}
	return f
}

// forgets reports whether p is a Query that drops prepared statements: DISCARD or DEALLOCATE. One that stands behind something else
// is not noticed.
func forgets(p []byte) bool {
	if len(p) < headerLen || p[0] != msgQuery {
		return false
	}
	text := bytes.TrimLeft(p[headerLen:], " \t\r\n")
	for _, word := range [...]string{"discard", "deallocate"} {
		if len(text) > len(word) && bytes.EqualFold(text[:len(word)], []byte(word)) {
			return true
		}
	}
	return false
}
