package piggyback

import (
	"bytes"
	"time"
)

// Locks is what takes locks with a BEGIN that waits. Each part is the messages of the extended protocol for one statement, which
// returns one row.
type Locks struct {
	// First travels ahead of BEGIN, with a Sync, so that it is over when BEGIN comes; nil if nothing does. Its row says of each lock
	// whether it was to be had at once.
	First []byte
	// Within travels behind BEGIN. If First is nil its row says that.
	Within []byte
	// Taken is told, while the answer is read, that the server has run all of it, and how long that took where a lock had to be waited for.
	Taken func(waited time.Duration)
	// Refused is told the ErrorResponse of a statement that failed without ending the connection, or as much as has room in a
	// buffer, and returns what Read then fails with, for good. The server has run nothing of what was sent behind Locks, if Within
	// fails where First has.
	Refused func(msg []byte) error

	sent  time.Time
	asked bool // the row was seen
	late  time.Duration
}

// Lock makes locks travel with the BEGIN that waits.
func (c *Conn) Lock(locks *Locks) {
	c.locks = locks
	var msgs []byte
	if locks.First != nil {
		msgs = append(append(msgs, locks.First...), syncMsg...)
		c.ahead++
	}
	c.begin = append(append(msgs, c.begin...), locks.Within...)
	c.ahead++
}

// Failed returns the error that Read fails with for good, as locks were refused; nil if they were not.
func (c *Conn) Failed() error { return c.failed }

// travel notes that the locks travel with f.
func (l *Locks) travel(f *flight) {
	f.locks, l.sent = l, time.Now()
	if l.First != nil {
		f.apart = 1
	}
}

// lookAtLock looks at a message where the answer to what takes locks may be due.
func (c *Conn) lookAtLock(typ byte, size int) error {
	l := c.flight.locks
	switch {
	case typ == msgDataRow && !l.asked:
		row, err := c.buf.Peek(min(size, headerLen+maxRow))
		if err != nil {
			return err
		}
		if l.asked = true; !allTrue(row) {
			l.late = max(time.Since(l.sent), 1)
		}
	case typ == msgError:
		msg, err := c.buf.Peek(min(size, c.buf.Size()))
		if err != nil {
			return err
		}
		if bytes.Contains(msg, plainError) {
			c.phase.Store(phaseRefused)
			c.failed = l.Refused(msg)
			return c.failed
		}
	}
	return nil
}

// allTrue reports whether all columns of a DataRow are true, as text.
func allTrue(row []byte) bool {
	for _, value := range values(nil, row) {
		if string(value) != "t" {
			return false
		}
	}
	return true
}
