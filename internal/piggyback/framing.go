package piggyback

import (
	"encoding/binary"
	"math"
)

// framing knows where in a message the bytes end that were handed on. A user may have read the first part of a message that belongs to
// no flight, such as a notification, when it sends the next one: what is read then does not begin with a message.
type framing struct {
	left int             // bytes of the message that are to come
	head [headerLen]byte // of a message of which not even that has come
	had  int             // bytes of head
	due  int             // how often ReadyForQuery is to come before a question may be asked
}

// follow is told of bytes that were handed on.
func (f *framing) follow(b []byte) {
	if f.had > 0 {
		if b = f.complete(b); f.had > 0 {
			return
		}
	}
	at := f.left // where the next message begins
	for at <= len(b)-headerLen {
		header := b[at : at+headerLen]
		size := sizeOf(header)
		if size < headerLen || header[0] == msgReady {
			size = f.begun(header)
		}
		if at += size; at < 0 {
			at = math.MaxInt
		}
	}
	f.left = at - len(b)
	if f.left < 0 {
		f.left, f.had = 0, copy(f.head[:], b[at:])
	}
}

// complete adds bytes to a header, and returns those behind it once it is whole.
func (f *framing) complete(b []byte) []byte {
	n := copy(f.head[f.had:], b)
	if f.had += n; f.had == headerLen {
		f.left, f.had = f.begun(f.head[:])-headerLen, 0
	}
	return b[n:]
}

// begun notes that a message has begun and returns its size.
func (f *framing) begun(header []byte) int {
	if header[0] == msgReady && f.due > 0 {
		f.due--
	}
	if size := sizeOf(header); size >= headerLen {
		return size
	}
	return math.MaxInt // this is not the protocol, as the user will say
}

// inside reports whether a message has begun and not ended.
func (f *framing) inside() bool { return f.left > 0 || f.had > 0 }

// missing returns how many bytes must be looked at to know how long the message is.
func (f *framing) missing() int {
	if f.had > 0 {
		return headerLen - f.had
	}
	return 0
}

// rest ends the framing: it returns how many bytes of the message are to come, of which b are those that were missing.
func (f *framing) rest(b []byte) int {
	if f.had > 0 {
		copy(f.head[f.had:], b)
		f.left = f.begun(f.head[:]) - f.had
	}
	n := f.left
	f.left, f.had = 0, 0
	return n
}

// sizeOf returns the size of the message that begins with header; it is below headerLen where there is none of that size.
func sizeOf(header []byte) int { return 1 + int(int32(binary.BigEndian.Uint32(header[1:]))) }
