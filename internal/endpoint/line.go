package endpoint

import (
	"context"
	"time"
)

// Wire is a connection as a Watch sees it. Its methods must be safe for concurrent use.
type Wire interface {
	// BytesRead is how much the server has sent so far.
	BytesRead() uint64
	// Awaiting reports whether an answer of the server is awaited.
	Awaiting() bool
	// Sever ends the connection, with err as the reason.
	Sever(err error)
}

// Line is one connection of a Watch, from the beginning of its dialling to its end.
type Line struct {
	watch         *Watch
	network, addr string
	abort         context.CancelCauseFunc

	// Guarded by watch.mu.
	wire        Wire // nil while it is dialled
	established bool
	read        uint64    // what wire had read at the last look
	waiting     bool      // an answer was awaited then
	since       time.Time // since when nothing has happened, as far as was looked
}

// Dialled says that there is a connection now; the server has not answered on it yet.
func (l *Line) Dialled(wire Wire) {
	l.watch.mu.Lock()
	defer l.watch.mu.Unlock()
	l.wire = wire
	l.watch.wires[wire] = l
}

// End ends the watch over the connection. It may be called more than once.
func (l *Line) End() { l.watch.end(l) }

func (l *Line) isEstablished() bool {
	l.watch.mu.Lock()
	defer l.watch.mu.Unlock()
	return l.established
}

// moved looks at the line, and reports whether the server has sent anything since the last look.
func (l *Line) moved(now time.Time) bool {
	if l.wire == nil {
		return false
	}
	read, waiting := l.wire.BytesRead(), l.wire.Awaiting()
	moved := read != l.read
	if moved || waiting != l.waiting {
		l.since = now
	}
	l.read, l.waiting = read, waiting
	return moved
}

// cut ends the connection, or the dialling.
func (l *Line) cut(err error) {
	l.watch.mu.Lock()
	wire := l.wire
	l.watch.mu.Unlock()
	if wire == nil {
		l.abort(err)
		return
	}
	wire.Sever(err)
}
