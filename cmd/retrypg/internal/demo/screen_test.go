package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

func TestAFileGetsPlainLinesOnly(t *testing.T) {
	var b strings.Builder
	s := NewScreen(&b, terminal.Look{})
	s.introduce()
	s.phase(schedule[0])
	s.event("event %d", 1)
	s.sample(scores{{ok: 10}}, 2*time.Second)
	s.phaseEnd(scores{{ok: 10, errors: 1}, {ok: 1000, errors: 2}, {ok: 3, unknown: 4}})
	require.NotContains(t, b.String(), "\x1b")
	require.NotContains(t, b.String(), "\r")
	require.Contains(t, b.String(), "ok/s  pgx    5  ")
	require.Contains(t, b.String(), "pgx: 10 ok, 1 error  |  pgx + loop: 1,000 ok, 2 errors  |  retrypg: 3 ok, 4 unknown\n")
}

func TestTheFirstScreenFitsAStandardTerminal(t *testing.T) {
	for _, line := range strings.Split(introduction, "\n") {
		require.LessOrEqual(t, len(line), 80, line)
	}
}

func TestTheStatusLineIsErasedBeforeOtherText(t *testing.T) {
	var b strings.Builder
	s := NewScreen(&b, terminal.Look{Live: true, Width: 10})
	s.setStatus("status that is too long")
	s.print("text\n")
	s.setStatus("")
	const erase = "\r\x1b[K"
	require.Equal(t, "status th"+erase+"text\n"+"status th"+erase, b.String())
}
