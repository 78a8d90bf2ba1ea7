package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

const introduction = `Three programs move money between accounts on the same PostgreSQL servers, while
these fail on schedule: "pgx" is careful code over database/sql, "pgx + loop"
repeats whatever failed, "retrypg" uses retrypg.WithTx.
At the end each transfer is looked up in the database's ledger: lost, duplicated
and false errors should be 0, and "unknown" is an answer that claims nothing.
`

// How often the rates are shown where the line can be written again, and elsewhere.
const (
	sampleEveryLive  = 500 * time.Millisecond
	sampleEveryPlain = 2 * time.Second
)

// Screen shows the progress of a demo. It is safe for concurrent use.
type Screen struct {
	mu     sync.Mutex
	out    io.Writer
	look   terminal.Look
	began  time.Time
	status string // the line that is written again
}

// NewScreen returns a screen that writes to out. Errors of out are not reported: the demo goes on.
func NewScreen(out io.Writer, look terminal.Look) *Screen {
	return &Screen{out: out, look: look, began: time.Now()}
}

func (s *Screen) introduce() { s.print(introduction) }

func (s *Screen) servers(st *stage) {
	s.printf("\nPostgreSQL %s: a primary and a standby, ready in %v. Replication is synchronous,\n"+
		"so that no program is blamed for commits which the failover would lose.\n",
		st.primary.Installation().Version, readable(time.Since(s.began)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = time.Now()
}

// phase announces a phase.
func (s *Screen) phase(p phase) {
	s.printf("\n%s  %s: %s\n", s.clock(), s.look.Bold(p.name), p.about)
}

// event tells of a fault.
func (s *Screen) event(format string, args ...any) {
	s.printf("%s    %s\n", s.clock(), fmt.Sprintf(format, args...))
}

// phaseEnd sums a phase up.
func (s *Screen) phaseEnd(added scores) {
	var b strings.Builder
	fmt.Fprintf(&b, "%6s    ", "")
	for i, d := range added {
		fmt.Fprintf(&b, "%s: %s ok", programKinds[i].name, terminal.Grouped(d.ok))
		if d.errors > 0 {
			b.WriteString(", " + s.look.Bad(terminal.Grouped(d.errors)+plural(d.errors, " error")))
		}
		if d.unknown > 0 {
			fmt.Fprintf(&b, ", %s unknown", terminal.Grouped(d.unknown))
		}
		if i < len(added)-1 {
			b.WriteString("  |  ")
		}
	}
	s.print(b.String() + "\n")
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// follow shows how many transfers succeed each second until stop is called, which waits for the goroutine that does it.
func (s *Screen) follow(l *load) (stop func()) {
	every := sampleEveryPlain
	if s.look.Live {
		every = sampleEveryLive
	}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		before, at := l.snapshot(), time.Now()
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
			}
			now, passed := l.snapshot(), time.Since(at)
			s.sample(now.since(before), passed)
			before, at = now, at.Add(passed)
		}
	}()
	var once sync.Once
	return func() {
		once.Do(func() { close(ended) })
		<-done
		s.setStatus("")
	}
}

// sample shows the rates of the time that passed.
func (s *Screen) sample(added scores, passed time.Duration) {
	text := s.clock() + "    ok/s"
	for i, d := range added {
		text += fmt.Sprintf("  %s %4.0f", programKinds[i].name, float64(d.ok)/passed.Seconds())
	}
	if !s.look.Live {
		s.print(text + "\n")
		return
	}
	s.setStatus(text)
}

// clock is the time since the load began.
func (s *Screen) clock() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%5.1fs", time.Since(s.began).Seconds())
}

func (s *Screen) printf(format string, args ...any) { s.print(fmt.Sprintf(format, args...)) }

// print writes above the status line.
func (s *Screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.WriteString(s.out, s.erase()+text+s.status)
}

// setStatus replaces the status line.
func (s *Screen) setStatus(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	erase := s.erase()
	s.status = text
	// A line that is broken at the margin cannot be erased.
	if width := s.look.Columns() - 1; len(s.status) > width {
		s.status = s.status[:width]
	}
	_, _ = io.WriteString(s.out, erase+s.status)
}

// erase is what removes the status line.
func (s *Screen) erase() string {
	if s.status == "" {
		return ""
	}
	return "\r\x1b[K"
}
