package piggyback

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"math"
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
	query    bool   // it is a simple Query
	executes int    // the statements that it executes by the extended protocol
	limited  bool   // of one of them not all rows are wanted: it can be executed on
	syncs    int    // how often ReadyForQuery answers it
	ends     bool   // there is a Sync or a Query
	regular  bool   // which is the last message, and a Query the only one: all of it is skipped where BEGIN is refused
	whole    bool   // both
	idle     bool   // that, and it only closes what was prepared
	begins   bool   // BEGIN travels ahead
	ahead    int    // the statements that do
	apart    int    // how often ReadyForQuery answers those
	locks    *Locks // that travel with it; nil if none do
	begun    bool   // BEGIN has traveled alone before it
	alone    bool   // it is that BEGIN
	asks     bool   // something travels behind

	part    part
	pass    int  // bytes of the message that is being handed on
	take    int  // bytes of the message that is being taken out
	keeps   bool // it is the row
	over    bool // the message is the last one
	aborted bool // the transaction was, or had ended, when the Query was answered
	outside bool // it had ended then
	ended   bool // the connection was then, as the answer to what travelled behind it says
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

// maxEnd is the size of the longest CommandComplete that says how a transaction ended.
const maxEnd = headerLen + len(tagRollback)

const (
	tagCommit   = "COMMIT\x00"
	tagRollback = "ROLLBACK\x00"
)

// plainError is in an ErrorResponse that does not end the connection.
var plainError = []byte("\x00VERROR\x00")

var errNotices = errors.New("retrypg: more than 64 kB of notices before the answer to BEGIN")

var buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}

// track begins to take answers out of what is read.
func (c *Conn) track(f flight) {
	f.part = partTheirs
	if f.begins {
		f.part, f.ahead = partBegin, c.ahead
		if c.locks != nil {
			c.locks.travel(&f)
			c.locks = nil
		}
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
	if c.buf != nil || c.digest != nil || c.phase.Load() == phaseReady { // what is held is so while there is a buffer
		n, err := c.readTaking(p)
		if c.digest != nil {
			c.digest.follow(p[:n])
		}
		return n, err
	}
	n, err := c.r.Read(p) // as pass does; a function less for each statement is worth two lines
	c.framing.follow(p[:n])
	return n, err
}

// readTaking is Read while something is or was taken out.
func (c *Conn) readTaking(p []byte) (int, error) {
	if len(c.held) > 0 {
		n := copy(p, c.held)
		if c.held = c.held[n:]; len(c.held) == 0 {
			c.held = nil
		}
		return n, nil
	}
	if c.phase.Load() == phaseReady && c.handedOn() {
		c.phase.Store(phaseNone) // the user has read all that there was before it reads on
	}
	if c.buf == nil {
		return c.pass(p)
	}
	n := 0
	for n < len(p) {
		f := &c.flight
		var err error
		switch buffered := c.buf.Buffered(); {
		case f.pass > 0 && (n == 0 || buffered > 0):
			var m int
			m, err = c.buf.Read(p[n : n+min(len(p)-n, f.pass)])
			n += m
			f.pass -= m
		case f.pass > 0:
			return n, nil // rather than to wait
		case f.over && f.take == 0:
			return c.drain(p, n)
		case n > 0 && buffered < max(f.take, f.needed()):
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

// needed is how many bytes of a message may be looked at to judge it.
func (f *flight) needed() int {
	if f.part == partBehind {
		return maxEnd
	}
	return readyLen
}

// handedOn reports whether the end of the flight was handed on.
func (c *Conn) handedOn() bool { return c.buf == nil || c.flight.over && c.flight.pass == 0 }

// pass reads past the buffer.
func (c *Conn) pass(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.framing.follow(p[:n])
	return n, err
}

// drain hands on what was read beyond the end of the flight.
func (c *Conn) drain(p []byte, n int) (int, error) {
	if rest := c.buf.Buffered(); rest > 0 {
		m, err := c.buf.Read(p[n:min(len(p), n+rest)])
		c.framing.follow(p[n : n+m])
		return n + m, err
	}
	c.buf.Reset(nil)
	buffers.Put(c.buf)
	c.buf = nil
	if n > 0 {
		return n, nil
	}
	return c.pass(p)
}

// hold keeps bytes to be handed on.
func (c *Conn) hold(n int) error {
	if n > maxHeld-len(c.held) {
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
	if c.failed != nil {
		return c.failed
	}
	if c.flight.take > 0 {
		return c.takeOut()
	}
	if c.framing.inside() {
		return c.resume()
	}
	h, err := c.buf.Peek(headerLen)
	if err != nil {
		return err
	}
	typ, size, status := h[0], sizeOf(h), byte(0)
	if size < headerLen {
		c.flight.pass, c.flight.part = math.MaxInt, partRest // this is not the protocol, as the user will say
		return nil
	}
	if typ == msgReady {
		if h, err = c.buf.Peek(readyLen); err != nil {
			return err
		}
		status = h[headerLen]
	}
	f := &c.flight
	if f.locks != nil && f.part == partBegin {
		if err := c.lookAtLock(typ, size); err != nil {
			return err
		}
	}
	asked := f.part == partBehind
	if asked && f.aborted && typ == msgError {
		if h, err = c.buf.Peek(min(size, c.buf.Size())); err != nil {
			return err
		}
		f.ended = !bytes.Contains(h, plainError)
	}
	if asked && typ == msgCommandComplete && size <= maxEnd && !f.outside {
		if h, err = c.buf.Peek(size); err != nil {
			return err
		}
		c.end = endOf(h[headerLen:])
	}
	if !c.ours(typ, status) {
		f.pass = size
		return nil
	}
	f.take, f.keeps = size, false
	if asked && typ == msgDataRow {
		c.row, f.keeps = c.row[:0], size <= headerLen+maxRow
	}
	return nil
}

// resume goes on with a message of which the user has read the first part before the flight was sent.
func (c *Conn) resume() error {
	h, err := c.buf.Peek(c.framing.missing())
	if err != nil {
		return err
	}
	c.flight.pass = c.framing.rest(h)
	return nil
}

// takeOut takes the rest of a message out.
func (c *Conn) takeOut() error {
	f := &c.flight
	b, err := c.buf.Peek(min(f.take, c.buf.Size()))
	if err != nil {
		return err
	}
	if f.keeps {
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
		if f.apart > 0 {
			f.apart--
			return true
		}
		if f.part == partTheirs && f.query && f.asks {
			f.part, f.aborted, f.outside = partBehind, status != 'T', status == 'I'
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
	case msgDataRow:
		if f.locks != nil {
			return true
		}
	case msgCommandComplete:
		if f.ahead--; f.ahead == 0 {
			f.part = partTheirs
			if f.locks != nil {
				f.locks.Taken(f.locks.late)
			}
		}
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

// count counts the answers to the statements of a flight of the extended protocol. An error is none: the server skips the rest.
func (c *Conn) count(typ byte) {
	f := &c.flight
	switch typ {
	case msgCommandComplete, msgEmptyQuery, msgPortalSuspended:
		if f.executes--; f.executes == 0 {
			f.part = partBehind
		}
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
		return !f.ended // the Query's doing, of which the user knows
	}
	c.answer = Failed
	return false
}

// ended notes the end of the flight.
func (c *Conn) ended(status byte) {
	if phase := c.phase.Load(); phase == phaseSent || phase == phaseReady {
		c.ready = status
		c.phase.Store(phaseReady)
	}
	if c.answer == Answered && c.flight.aborted {
		c.answer = NoAnswer
	}
}

// endOf returns what a command tag says of the end of a transaction.
func endOf(tag []byte) End {
	switch string(tag) {
	case tagCommit:
		return Committed
	case tagRollback:
		return RolledBack
	}
	return NoEnd
}

// values appends the values of a DataRow, and returns none where it is not one.
func values(vs [][]byte, msg []byte) [][]byte {
	if len(msg) < headerLen+2 {
		return nil
	}
	row := msg[headerLen+2:]
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
