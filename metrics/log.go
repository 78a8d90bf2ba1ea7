package metrics

import (
	"log/slog"
	"sync"
	"time"
)

// Logger writes one line for each change of state to a [log/slog.Logger]: server down, server back, server fenced,
// failover, state of the breaker, unknown or unreplicated commit. It never writes one per retry, and no error texts, which may hold user data. Each kind
// of line is limited to a burst of 5 and then one per 10 s; the next line that is written says in "suppressed" how many
// were left out. What was reported as bad is always reported as good again.
//
// It is safe for concurrent use; a nil *Logger does nothing. The handler is called without a lock held; its time is the
// only time for which a method blocks.
type Logger struct {
	to *slog.Logger

	mu           sync.Mutex
	down         bool // guarded by mu: the last line written about the server said that it is down
	open         bool // guarded by mu: the last line written about the breaker said that it is open
	downs        lineLimit
	opens        lineLimit
	fences       lineLimit
	failovers    lineLimit
	unknown      lineLimit
	unreplicated lineLimit
}

// The states of package breaker that are reported.
const (
	breakerClosed = "closed"
	breakerOpen   = "open"
)

// NewLogger returns a Logger that writes to l, or nil if l is nil. Attributes that all lines should have, such as
// server.address, belong to l (its With).
func NewLogger(l *slog.Logger) *Logger {
	if l == nil {
		return nil
	}
	return &Logger{to: l}
}

// Down says, at level Warn, that the server cannot be reached or does not accept connections. Calls while a line says so
// already do nothing, so it may be called after each failed attempt. reason is a SQLSTATE, a class or another short word,
// cut off after 64 bytes, not an error text.
func (l *Logger) Down(op Operation, reason string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	ok := !l.down
	var suppressed int
	if ok {
		ok, suppressed = l.downs.take(time.Now())
		l.down = ok
	}
	l.mu.Unlock()
	if ok {
		l.line(slog.LevelWarn, "postgres server down", suppressed,
			slog.String("operation", string(operations[operationIndex(op)])), slog.String("reason", boundedName(reason)))
	}
}

// Up says, at level Info, that the server accepts connections again, after it had been down for the given time. Without
// a line that said that it is down, it does nothing.
func (l *Logger) Up(after time.Duration) {
	if l == nil {
		return
	}
	l.mu.Lock()
	ok := l.down
	l.down = false
	l.mu.Unlock()
	if ok {
		l.line(slog.LevelInfo, "postgres server up", 0, slog.Duration("after", after))
	}
}

// Fenced says, at level Warn, that the server turned out not to be the primary any more, and that its pooled connections
// are dropped. code is the SQLSTATE or the short word that told so.
func (l *Logger) Fenced(code string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	ok, suppressed := l.fences.take(time.Now())
	l.mu.Unlock()
	if ok {
		l.line(slog.LevelWarn, "postgres server fenced", suppressed, slog.String("reason", boundedName(code)))
	}
}

// Failover says, at level Info, that another server is the primary now. The addresses are those that were dialled; they are the
// same behind a proxy.
func (l *Logger) Failover(from, to string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	ok, suppressed := l.failovers.take(time.Now())
	l.mu.Unlock()
	if ok {
		l.line(slog.LevelInfo, "postgres failover", suppressed, slog.String("from", boundedName(from)), slog.String("to", boundedName(to)))
	}
}

// Breaker says that the breaker opened, at level Warn, or closed again, at level Info. Half-open states, and openings
// between an opening that was reported and the next closing, are no news and not reported. The states are those of package
// breaker: "closed", "half-open", "open".
func (l *Logger) Breaker(from, to string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	var ok bool
	var suppressed int
	switch {
	case to == breakerClosed:
		ok = l.open
		l.open = false
	case to == breakerOpen && !l.open:
		ok, suppressed = l.opens.take(time.Now())
		l.open = ok
	}
	l.mu.Unlock()
	if !ok {
		return
	}
	level := slog.LevelWarn
	if to == breakerClosed {
		level = slog.LevelInfo
	}
	l.line(level, "circuit breaker "+to, suppressed, slog.String("from", boundedWord(from)))
}

// CommitUnknown says, at level Error, that it could not be found out whether a COMMIT took effect. code is the SQLSTATE
// that came in place of the command tag; empty leaves it out.
func (l *Logger) CommitUnknown(code string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	ok, suppressed := l.unknown.take(time.Now())
	l.mu.Unlock()
	if !ok {
		return
	}
	var args []any
	if c := parseSQLState(code); c != (sqlstate{}) {
		args = append(args, slog.String("code", c.String()))
	}
	l.line(slog.LevelError, "outcome of a postgres commit unknown", suppressed, args...)
}

// CommitUnreplicated says, at level Warn, that a transaction committed although the wait for its synchronous standbys was
// ended: a failover may lose it.
func (l *Logger) CommitUnreplicated() {
	if l == nil {
		return
	}
	l.mu.Lock()
	ok, suppressed := l.unreplicated.take(time.Now())
	l.mu.Unlock()
	if ok {
		l.line(slog.LevelWarn, "postgres commit not replicated", suppressed)
	}
}

// line writes one line, outside of any call's context: a state of the server belongs to none.
func (l *Logger) line(level slog.Level, message string, suppressed int, args ...any) {
	if suppressed > 0 {
		args = append(args, slog.Int("suppressed", suppressed))
	}
	switch level {
	case slog.LevelError:
		l.to.Error(message, args...)
	case slog.LevelWarn:
		l.to.Warn(message, args...)
	default:
		l.to.Info(message, args...)
	}
}
