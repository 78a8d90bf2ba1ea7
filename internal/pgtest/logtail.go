package pgtest

import (
	"io"
	"sync"
)

// logKept is how much of a server's log is kept: enough for the story of one test.
const logKept = 256 << 10

// logTail keeps the last part of what is written to it and passes all of it on.
type logTail struct {
	mu    sync.Mutex
	buf   []byte
	total int64
	next  io.Writer
}

func newLogTail(next io.Writer) *logTail { return &logTail{next: next} }

// Write implements io.Writer. An error of the next writer is not reported: the server must be able to go on.
func (l *logTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.buf = append(l.buf, p...)
	l.total += int64(len(p))
	if extra := len(l.buf) - logKept; extra > logKept { // cut seldom, because it copies
		l.buf = append([]byte(nil), l.buf[extra:]...)
	}
	l.mu.Unlock()
	if l.next != nil {
		_, _ = l.next.Write(p)
	}
	return len(p), nil
}

func (l *logTail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf[max(0, len(l.buf)-logKept):])
}

// position returns a mark for since.
func (l *logTail) position() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// since returns what was written after the mark, as far as it is kept.
func (l *logTail) since(position int64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := min(l.total-position, int64(len(l.buf)))
	return string(l.buf[int64(len(l.buf))-wanted:])
}
