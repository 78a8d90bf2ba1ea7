package piggyback

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Types of the messages of a client.
const (
	msgBind      = 'B'
	msgClose     = 'C'
	msgCopyData  = 'd'
	msgCopyDone  = 'c'
	msgCopyFail  = 'f'
	msgDescribe  = 'D'
	msgExecute   = 'E'
	msgFlush     = 'H'
	msgParse     = 'P'
	msgQuery     = 'Q'
	msgSync      = 'S'
	msgTerminate = 'X'
)

// headerLen is the length of a message without a body: its type, and its length, which counts itself.
const headerLen = 5

// maxCopied bounds what is copied, so that a flight and what travels with it are one segment of the network. A longer flight
// is many anyway.
const maxCopied = 4 << 10

var (
	syncMsg  = []byte{msgSync, 0, 0, 0, 4}
	flushMsg = []byte{msgFlush, 0, 0, 0, 4}
)

var errRefused = errors.New("retrypg: the server has refused BEGIN, so that what was to follow it was not sent: begin a transaction anew")

var errUnread = errors.New("retrypg: answers are due that were not read, so that the one to BEGIN could not be told from them")

// Write writes p, which holds whole messages, and what travels with it. The count is that of p: 0 where nothing of p was
// written.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return c.w.Write(p)
	}
	switch p[0] {
	case msgTerminate:
		c.apart.Store(true) // for good
		return c.w.Write(p)
	case msgCopyData, msgCopyDone, msgCopyFail:
		// Nothing travels with these, nor with the one before, and no other field is looked at: pgx writes them on other goroutines, also
		// after its own has given up.
		return c.w.Write(p)
	}
	if c.watching && forgets(p) {
		c.watching, c.forgot = false, true
	}
	if c.begin == nil && c.behind == nil && c.phase.Load() != phaseSent {
		return c.w.Write(p)
	}
	return c.writeWith(p)
}

func (c *Conn) writeWith(p []byte) (int, error) {
	f := inspect(p)
	if refused, err := c.awaitBegin(&f); err != nil {
		return 0, err
	} else if refused {
		return c.refuse(p, &f)
	}
	busy := c.tracking() || c.framing.due > 0
	if c.begin != nil {
		switch {
		case f.idle:
			// No transaction is needed for it; and pgx's Deallocate does not expect an error: it reads no further than that.
			c.noteUntracked(&f)
			c.apart.Store(true)
			defer c.apart.Store(false)
			return c.w.Write(p)
		case busy:
			return 0, errUnread
		}
	}
	ahead, behind := c.begin, c.behind
	// While the server waits for a lock it reads no further, and where TCP has no room for the rest, TCP_USER_TIMEOUT ends the connection.
	if large := c.locks != nil && len(p) > maxCopied; c.begin != nil && (c.single && f.query || !f.regular || large) {
		switch refused, err := c.beginAlone(); {
		case err != nil:
			return 0, err
		case refused:
			return c.refuse(p, &f)
		}
		ahead, f.begun = nil, true
	}
	if ahead != nil {
		c.begin, f.begins = nil, true
		c.phase.Store(phaseSent)
	}
	if f.query || f.executes > 0 {
		c.behind = nil
	}
	if busy || !f.whole || !f.query && (f.executes == 0 || f.limited) {
		behind = nil
	}
	f.asks = behind != nil
	c.sent = c.sent || f.asks
	if f.begins || f.begun || f.asks {
		c.track(f)
	} else {
		c.noteUntracked(&f)
	}
	if ahead == nil && behind == nil {
		return c.w.Write(p)
	}
	return c.writeAll(ahead, p, behind, f.query)
}

// noteUntracked notes a flight that nothing travels with, while something waits or travels.
func (c *Conn) noteUntracked(f *flight) {
	due := f.syncs
	if c.tracking() && !c.flight.ends && f.ends {
		c.flight.ends = true // the flight that is tracked ends with the first Sync of this one
		due--
	}
	if c.begin != nil || c.behind != nil {
		c.framing.due += due
	}
}

// refuse is Write where the server has refused BEGIN before p was sent: nothing of it ever is. The user reads the refusal as the answer
// to its Query. Where it would await more than that answer it must not go on.
func (c *Conn) refuse(p []byte, f *flight) (int, error) {
	if c.flight.alone && f.query && f.regular {
		return len(p), nil
	}
	return 0, errRefused
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

// beginAlone sends BEGIN with a Sync and reads the answer, so that what is to follow need not be sent where it is refused.
func (c *Conn) beginAlone() (refused bool, err error) {
	msgs := append(append(c.scratch[:0], c.begin...), syncMsg...)
	c.scratch, c.begin = msgs, nil
	c.phase.Store(phaseSent)
	if _, err := c.w.Write(msgs); err != nil {
		return false, err
	}
	c.track(flight{begins: true, alone: true})
	return c.answerToBegin()
}

// awaitBegin reads the answer to a BEGIN that was sent with an earlier flight, where the server would run f although it has refused
// that.
func (c *Conn) awaitBegin(f *flight) (refused bool, err error) {
	if c.phase.Load() != phaseSent || c.flight.part != partBegin || !c.flight.ends && f.regular && !f.query {
		return false, nil
	}
	if !c.flight.ends {
		if _, err := c.w.Write(flushMsg); err != nil {
			return false, err
		}
	}
	return c.answerToBegin()
}

// answerToBegin reads until BEGIN is answered, and if it was sent alone to the end of its flight.
func (c *Conn) answerToBegin() (refused bool, err error) {
	for f := &c.flight; ; {
		switch {
		case c.phase.Load() == phaseRefused:
			return true, nil
		case f.pass > 0: // a notice
			if err := c.hold(f.pass); err != nil {
				return false, err
			}
			f.pass = 0
		case f.take == 0 && (f.over || f.part != partBegin && !f.alone):
			return false, nil
		default:
			if err := c.next(); err != nil {
				return false, err
			}
		}
	}
}

// inspect reads the types of the messages of p.
func inspect(p []byte) (f flight) {
	f.regular, f.idle = true, true
	for first := true; len(p) >= headerLen; first = false {
		size := sizeOf(p)
		if size < headerLen || size > len(p) {
			f.regular = false
			return f
		}
		if f.ends {
			f.regular = false
		}
		switch p[0] {
		case msgClose, msgSync, msgFlush:
		default:
			f.idle = false
		}
		switch p[0] {
		case msgQuery:
			f.query, f.ends, f.regular = true, true, f.regular && first
			f.syncs++
		case msgSync:
			f.ends = true
			f.syncs++
		case msgExecute:
			f.executes++
			f.limited = f.limited || binary.BigEndian.Uint32(p[size-4:size]) != 0
		case msgParse, msgBind, msgDescribe, msgClose, msgFlush:
		default: // such as FunctionCall, which has a ReadyForQuery of its own
			f.regular = false
		}
		p = p[size:]
	}
	f.regular = f.regular && len(p) == 0
	f.whole = f.regular && f.ends
	f.idle = f.idle && f.whole
	return f
}

// forgets reports whether p begins with a Query, or the Parse of a statement, that drops prepared statements: DISCARD or DEALLOCATE. One
// that stands behind something else is not noticed.
func forgets(p []byte) bool {
	if len(p) < headerLen {
		return false
	}
	text := p[headerLen:]
	switch p[0] {
	case msgQuery:
	case msgParse:
		_, text, _ = bytes.Cut(text, []byte{0}) // its name
	default:
		return false
	}
	text = bytes.TrimLeft(text, " \t\r\n")
	for _, word := range [...]string{"discard", "deallocate"} {
		if len(text) > len(word) && bytes.EqualFold(text[:len(word)], []byte(word)) {
			return true
		}
	}
	return false
}
