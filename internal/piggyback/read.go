package piggyback

import (
	"bufio"
	"encoding/binary"
	"errors"
	"sync"
)

// Types of the messages of a server.
const (
	msgParseComplete   = '1'
	msgBindComplete    = '2'
	msgCommandComplete = 'C'
	msgDataRow         = 'D'
	msgError           = 'E'
	msgEmptyQuery      = 'I'
	msgNotice          = 'N'
	msgNotification    = 'A'
	msgParameterStatus = 'S'
	msgPortalSuspended = 's'
	msgReady           = 'Z'
)

// readyLen is the length of ReadyForQuery.
const readyLen = headerLen + 1

// flight is a flight that something travels with, and how far it is answered.
type flight struct {
	query    bool // it is a simple Query
	executes int  // the statements that it executes by the extended protocol
	whole    bool // it begins and ends here
	begins   bool // BEGIN travels ahead
	alone    bool // and nothing with it
	asks     bool // something travels behind

	part    part
	pass    int  // bytes of the message that is being handed on
	take    int  // bytes of the message that is being taken out
	keeps   bool // it is the row
	over    bool // the message is the last one
	aborted bool // the transaction was, when the Query was answered
}

// part is what is answered next.
type part uint8

const (
	partBegin part = iota
	partTheirs
	partBehind
	partRest // nothing more is taken out
)

const (
	// maxRow bounds the row that is kept: a few numbers.
	maxRow = 512
	// maxHeld bounds the notices before the answer to a BEGIN that travels alone.
	maxHeld = 64 << 10
	// bufferSize is that of the server's buffer, and of pgx's.
	bufferSize = 8 << 10
)

var errNotices = errors.New("retrypg: more than 64 kB of notices before the answer to BEGIN")

var buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}

// track begins to take answers out of what is read.
func (c *Conn) track(f flight) {
	f.part = partTheirs
	if f.begins {
		f.part = partBegin
	}
	c.flight = f
	if c.buf == nil {
		c.buf = buffers.Get().(*bufio.Reader)
		c.buf.Reset(c.r)
	}
}

// tracking reports whether a flight is being answered.
func (c *Conn) tracking() bool { return c.buf != nil && !c.flight.over }

// Read reads what is not taken out.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.held) > 0 {
		n := copy(p, c.held)
		c.held = c.held[n:]
		return n, nil
	}
	if c.buf == nil {
		return c.r.Read(p)
	}
	n := 0
	for n < len(p) {
		f := &c.flight
		var err error
		switch buffered := c.buf.Buffered(); {
		case f.pass > 0 && (n == 0 || buffered > 0):
			var m int
			m, err = c.buf.Read(p[n:min(len(p), n+f.pass)])
			n += m
			f.pass -= m
		case f.pass > 0:
			return n, nil // rather than to wait
		case f.over && f.take == 0:
			return c.drain(p, n)
		case n > 0 && buffered < max(f.take, readyLen):
			return n, nil
		default:
			err = c.next()
		}
		if err != nil {
			if n > 0 {
				return n, nil // the error comes again
			}
			return 0, err
		}
	}
	return n, nil
}

// drain hands on what was read beyond the end of the flight.
func (c *Conn) drain(p []byte, n int) (int, error) {
	if rest := c.buf.Buffered(); rest > 0 {
		m, err := c.buf.Read(p[n:min(len(p), n+rest)])
		return n + m, err
	}
	c.buf.Reset(nil)
	buffers.Put(c.buf)
	c.buf = nil
	if n > 0 {
		return n, nil
	}
	return c.r.Read(p)
}

// hold keeps bytes to be handed on.
func (c *Conn) hold(n int) error {
	if len(c.held)+n > maxHeld {
		return errNotices
	}
	for n > 0 {
		b, err := c.buf.Peek(min(n, c.buf.Size()))
		if err != nil {
			return err
		}
		c.held = append(c.held, b...)
		n -= len(b)
		if _, err := c.buf.Discard(len(b)); err != nil {
			return err
		}
	}
	return nil
}

// next goes on with the message that is being taken out, or looks at the next one.
func (c *Conn) next() error {
	if c.flight.take > 0 {
		return c.takeOut()
	}
	h, err := c.buf.Peek(headerLen)
	if err != nil {
		return err
	}
	typ, size, status := h[0], 1+int(binary.BigEndian.Uint32(h[1:])), byte(0)
	if size < headerLen {
		size, c.flight.part = headerLen, partRest // this is not the protocol, as the user will say
	}
	if typ == msgReady {
		if h, err = c.buf.Peek(readyLen); err != nil {
			return err
		}
		status = h[headerLen]
	}
	f := &c.flight
	asked := f.part == partBehind
	if !c.ours(typ, status) {
		f.pass = size
		return nil
	}
	f.take = size
	if f.keeps = asked && typ == msgDataRow; f.keeps {
		c.row = c.row[:0]
	}
	return nil
}

// takeOut takes the rest of a message out.
func (c *Conn) takeOut() error {
	f := &c.flight
	b, err := c.buf.Peek(min(f.take, c.buf.Size()))
	if err != nil {
		return err
	}
	if f.keeps && len(c.row)+len(b) <= maxRow+headerLen {
		c.row = append(c.row, b...)
	}
	f.take -= len(b)
	_, err = c.buf.Discard(len(b))
	return err
}

// ours judges the next message and reports whether it is to be taken out.
func (c *Conn) ours(typ, status byte) bool {
	f := &c.flight
	switch typ {
	case msgNotice, msgNotification, msgParameterStatus:
		return false
	case msgReady:
		if f.part == partTheirs && f.query && f.asks {
			f.part, f.aborted = partBehind, status != 'T'
			return true // the next one stands for both
		}
		f.over = true
		if f.alone && c.phase.Load() == phaseSent {
			return true // the Query comes now
		}
		c.ended(status)
		return false
	}
	switch f.part {
	case partBegin:
		return c.oursOfBegin(typ)
	case partTheirs:
		if f.asks && !f.query {
			c.count(typ)
		}
	case partBehind:
		return c.oursBehind(typ)
	}
	return false
}

// oursOfBegin judges a message where the answer to BEGIN is due.
func (c *Conn) oursOfBegin(typ byte) bool {
	f := &c.flight
	switch typ {
	case msgParseComplete, msgBindComplete:
		return true
	case msgCommandComplete:
		f.part = partTheirs
		return true
	}
	// An error; or something that is no answer to BEGIN, which the user will not understand either.
	f.part = partRest
	c.phase.Store(phaseRefused)
	if f.query && !f.asks {
		_, _ = c.w.Write(syncMsg) // up to which the server skips; if this fails, so will reading
	}
	return false
}

// count counts the answers to the statements of a flight of the extended protocol.
func (c *Conn) count(typ byte) {
	f := &c.flight
	switch typ {
	case msgCommandComplete, msgEmptyQuery, msgPortalSuspended:
		if f.executes--; f.executes == 0 {
			f.part = partBehind
		}
	case msgError:
		f.part = partRest // the server skips the rest
	}
}

// oursBehind judges a message where the answer to what travelled behind is due.
func (c *Conn) oursBehind(typ byte) bool {
	f := &c.flight
	switch typ {
	case msgParseComplete, msgBindComplete:
		return true
	case msgDataRow:
		c.answer = Answered
		return true
	case msgCommandComplete:
		f.part = partRest
		return true
	}
	f.part = partRest
	if f.aborted {
		return true // the Query's doing, of which the user knows
	}
	c.answer = Failed
	return false
}

// ended notes the end of the flight.
func (c *Conn) ended(status byte) {
	if c.phase.Load() == phaseSent {
		c.ready = status
		c.phase.Store(phaseReady)
	}
	if c.answer == Answered && c.flight.aborted {
		c.answer = NoAnswer
	}
}

// values returns the values of a DataRow, and none where it is not one.
func values(msg []byte) [][]byte {
	if len(msg) < headerLen+2 {
		return nil
	}
	row := msg[headerLen+2:]
	vs := make([][]byte, 0, 8)
	for range binary.BigEndian.Uint16(msg[headerLen:]) {
		if len(row) < 4 {
			return nil
		}
		size := int32(binary.BigEndian.Uint32(row))
		row = row[4:]
		if size < 0 {
			vs = append(vs, nil)
			continue
		}
		if int(size) > len(row) {
			return nil
		}
		vs = append(vs, row[:size:size])
		row = row[size:]
	}
	return vs
}
