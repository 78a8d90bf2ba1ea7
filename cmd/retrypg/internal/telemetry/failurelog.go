package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// failureInterval is the shortest time between two lines about telemetry that cannot be sent.
const failureInterval = time.Minute

// failureLog is OpenTelemetry's error handler: of many failures it writes one line, and the next one a minute later.
type failureLog struct {
	mu       sync.Mutex
	out      io.Writer // nil once closed
	endpoint string
	next     time.Time // before then failures are only counted
	silent   int       // failures since the last line
}

func newFailureLog(out io.Writer, endpoint string) *failureLog {
	return &failureLog{out: out, endpoint: endpoint}
}

// Handle implements otel.ErrorHandler. An export that was called off is no failure: only the end of a reader does that, which
// sends all of it once more.
func (l *failureLog) Handle(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.out == nil {
		return
	}
	if now.Before(l.next) {
		l.silent++
		return
	}
	more := ""
	if l.silent > 0 {
		more = fmt.Sprintf(" (and %d failures before)", l.silent)
	}
	_, _ = fmt.Fprintf(l.out, "telemetry cannot be sent to %s, and the load goes on without it; look whether a collector listens there%s: %v\n",
		l.endpoint, more, err)
	l.next, l.silent = now.Add(failureInterval), 0
}

// close ends the writing: the handler itself stays with OpenTelemetry, which has no way to take one back.
func (l *failureLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = nil
}
