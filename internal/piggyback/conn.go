package piggyback

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync/atomic"
)

// Conn lies between a user of the protocol and its connection. Like the user it is for one goroutine at a time, except that another one
// may write the rows of a COPY, or the message that ends the connection. While nothing travels it costs a look at a few fields, and at
// the header of each message that is read.
type Conn struct {
	r io.Reader
	w io.Writer

	begin  []byte // travels ahead of the next flight; nil if nothing does
	ahead  int    // the statements of that
	single bool   // a Query must not be sent before BEGIN is answered
	locks  *Locks // that travel with it; nil if none do
	behind []byte // travels behind the next flight that executes something; nil if nothing does

	phase atomic.Uint32 // of BEGIN
	ready byte          // transaction status at the end of the flight of BEGIN

	framing framing // of what was handed on
	digest  *digest // of that; nil while nobody asks for one

	buf    *bufio.Reader // nil while nothing is taken out of what is read
	flight flight        // that is being answered
	held   []byte        // what is to be handed on before anything else
	answer Answer        // to what travelled behind
	row    []byte        // its row
	values [][]byte      // of it
	sent   bool          // it travelled, or was to
	failed error         // what Read fails with for good; nil if it does not
	end    End           // of a transaction, by its command tag

	apart atomic.Bool // what is written is to go without a BEGIN that waits

	scratch  []byte // what was written last
	watching bool   // for what Forgotten reports
	forgot   bool
}

// The phases of BEGIN.
const (
	phaseNone    uint32 = iota // there is none, or what the user of the connection knows is true again
	phaseWaits                 // it travels with the next flight
	phaseSent                  // it was sent, and the flight is not answered to its end
	phaseReady                 // the flight was answered to its end, which the user may not have read
	phaseRefused               // the server has refused it
)

// Answer is what became of that which travelled behind.
type Answer uint8

// The answers.
const (
	NoAnswer Answer = iota // it did not travel, or what it travelled with failed
	Answered               // there is a row
	Failed                 // the server refused it, with an error that the user of the connection saw
)

// End is how that which travelled behind has ended a transaction.
type End uint8

// The ends.
const (
	NoEnd      End = iota // its command tag did not come, or is another one
	Committed             // COMMIT
	RolledBack            // ROLLBACK, which is the answer to COMMIT, too, where the transaction was aborted
)

// New returns a Conn that reads from r and writes to w.
func New(r io.Reader, w io.Writer) *Conn { return &Conn{r: r, w: w} }

// Begin makes msgs, which are those of the extended protocol for one statement that returns no rows, travel ahead of the next flight
// that does anything: one that only closes statements goes by. With single a simple Query is not sent before they are answered, nor is ever a flight of which the server would run a part although
// it has refused them. The user must have read all that answers what it has sent. msgs must not change.
func (c *Conn) Begin(msgs []byte, single bool) {
	c.Reset()
	c.begin, c.ahead, c.single, c.framing.due = msgs, 1, single, 0
	c.phase.Store(phaseWaits)
}

// BeginAgain is Begin in an open transaction: rollback travels ahead of msgs, and ends it. Both are one statement that returns no rows. Until
// then it is open, which its user is to know who sends nothing more.
func (c *Conn) BeginAgain(rollback, msgs []byte) {
	c.Begin(append(bytes.Clone(rollback), msgs...), false)
	c.ahead = 2
}

// Behind makes msgs, which are those of the extended protocol for one statement that returns one row, travel behind the next flight
// that executes something, if that is whole, all that is sent and no COPY from the client, in which other messages are an error; nil
// that nothing does. A statement that returns no row may end a transaction. The user must have read all that answers what it has sent. msgs must not change.
func (c *Conn) Behind(msgs []byte) {
	c.behind, c.answer, c.framing.due = msgs, NoAnswer, 0
	c.sent, c.end = false, NoEnd
}

// Reset forgets all that was not sent, and what became of what was.
func (c *Conn) Reset() {
	c.begin, c.locks, c.behind, c.answer, c.digest = nil, nil, nil, NoAnswer, nil
	c.sent, c.end = false, NoEnd
	c.phase.Store(phaseNone)
}

// Past returns why something must not be written to the connection but by Write: BEGIN waits, and what is written past it would run
// outside of its transaction. pgx writes batches past its Frontend.
func (c *Conn) Past() error {
	if c.phase.Load() == phaseWaits && !c.apart.Load() {
		return errPast
	}
	return nil
}

var errPast = errors.New("retrypg: BEGIN waits for the first statement of its transaction, and what was to be sent would have run outside of that: send it through the transaction, or over the connection that its method Conn returns")

// Waits reports whether BEGIN waits for a flight.
func (c *Conn) Waits() bool { return c.begin != nil }

// Refused reports whether the server has refused BEGIN, with an error that the user of the connection saw.
func (c *Conn) Refused() bool { return c.phase.Load() == phaseRefused }

// Status returns the transaction status of the connection, as in ReadyForQuery, where reported is what its user knows: 'T' from
// Begin until the end of the first flight, as if BEGIN had been answered, and 'E' if it was refused.
func (c *Conn) Status(reported byte) byte {
	switch c.phase.Load() {
	case phaseWaits, phaseSent:
		return 'T'
	case phaseRefused:
		return 'E'
	case phaseReady:
		return c.ready // the user may not have read so far
	}
	return reported
}

// Answer returns what became of what travelled behind last, and the values of its row, which are valid until the next flight with
// something behind; a NULL is nil.
func (c *Conn) Answer() (Answer, [][]byte) {
	if c.answer != Answered {
		return c.answer, nil
	}
	c.values = values(c.values[:0], c.row)
	return Answered, c.values
}

// Sent reports whether what Behind was called with last was written with a flight, or has been begun to be.
func (c *Conn) Sent() bool { return c.sent }

// End returns how it has ended a transaction: that which was open behind the flight that it travelled with. It is read from the command
// tag, and holds whatever followed that.
func (c *Conn) End() End { return c.end }

// Watch makes Forgotten report whether, from now on, a statement begins like one that drops prepared statements.
func (c *Conn) Watch() { c.watching, c.forgot = true, false }

// Forgotten reports what Watch says.
func (c *Conn) Forgotten() bool { return c.forgot }
