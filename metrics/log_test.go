package metrics

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// newLog returns a Logger and the function that returns the lines written since the last call, without their time.
func newLog() (*Logger, func() []string) {
	var buf bytes.Buffer
	handler := slog.NewTextHandler(&buf, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})
	lines := func() []string {
		text := strings.TrimSpace(buf.String())
		buf.Reset()
		if text == "" {
			return nil
		}
		return strings.Split(text, "\n")
	}
	return NewLogger(slog.New(handler).With("server.address", "db.example")), lines
}

func TestAnOutageIsOneLineDownAndOneLineUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, lines := newLog()
		l.Up(time.Second) // was never down
		for range 1000 {
			l.Down(OpConnect, "57P03")
			time.Sleep(time.Second)
		}
		l.Up(1000 * time.Second)
		l.Up(time.Second)
		require.Equal(t, []string{
			`level=WARN msg="postgres server down" server.address=db.example operation=connect reason=57P03`,
			`level=INFO msg="postgres server up" server.address=db.example after=16m40s`,
		}, lines())
	})
}

func TestAFailoverIsOneLineWithBothAddresses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, lines := newLog()
		l.Failover("10.0.0.1:5432", "10.0.0.2:5432")
		require.Equal(t, []string{
			`level=INFO msg="postgres failover" server.address=db.example from=10.0.0.1:5432 to=10.0.0.2:5432`,
		}, lines())
		for range 100 {
			l.Failover("10.0.0.1:5432", "10.0.0.2:5432")
		}
		require.Len(t, lines(), lineBurst-1)
	})
}

func TestFlappingIsLimitedAndEndsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, lines := newLog()
		flap := func() {
			l.Down(OpConnect, "refused")
			l.Up(time.Millisecond)
		}
		for range 100 {
			flap()
		}
		got := lines()
		require.Len(t, got, 2*lineBurst)
		require.Contains(t, got[len(got)-1], "server up")

		time.Sleep(lineEvery)
		flap()
		flap()
		got = lines()
		require.Len(t, got, 2)
		require.Contains(t, got[0], "suppressed=95")
		require.Contains(t, got[1], "server up")

		time.Sleep(time.Hour) // no more than the burst is saved up
		for range 100 {
			flap()
		}
		require.Len(t, lines(), 2*lineBurst)
	})
}

func TestAnOutageThatBeginsWhileLimitedIsReportedOnceTheLimitAllows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, lines := newLog()
		for range lineBurst {
			l.Down(OpConnect, "refused")
			l.Up(time.Millisecond)
		}
		lines()
		for range 2 * int(lineEvery/time.Second) {
			l.Down(OpConnect, "refused")
			time.Sleep(time.Second)
		}
		require.Len(t, lines(), 1)
		l.Up(time.Second)
		require.Len(t, lines(), 1)
	})
}

func TestBreakerIsReportedWhenItOpensAndWhenItCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, lines := newLog()
		l.Breaker("half-open", "closed") // was never open
		l.Breaker("closed", "open")
		for range 100 {
			time.Sleep(5 * time.Second)
			l.Breaker("open", "half-open")
			l.Breaker("half-open", "open")
		}
		l.Breaker("open", "half-open")
		l.Breaker("half-open", "closed")
		require.Equal(t, []string{
			`level=WARN msg="circuit breaker open" server.address=db.example from=closed`,
			`level=INFO msg="circuit breaker closed" server.address=db.example from=half-open`,
		}, lines())
	})
}

func TestFencedAndCommitUnknownAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, lines := newLog()
		l.Fenced("25006")
		l.CommitUnknown("57P01")
		l.CommitUnknown("password=hunter2")
		require.Equal(t, []string{
			`level=WARN msg="postgres server fenced" server.address=db.example reason=25006`,
			`level=ERROR msg="outcome of a postgres commit unknown" server.address=db.example code=57P01`,
			`level=ERROR msg="outcome of a postgres commit unknown" server.address=db.example`,
		}, lines())
		for range 100 {
			l.Fenced("25006")
			l.CommitUnknown("")
		}
		require.Len(t, lines(), lineBurst-1+lineBurst-2)
		time.Sleep(lineEvery)
		l.CommitUnknown("")
		require.Contains(t, lines()[0], "suppressed=97")
	})
}

func TestNilLoggerDoesNothing(t *testing.T) {
	t.Parallel()
	l := NewLogger(nil)
	require.Nil(t, l)
	l.Down(OpConnect, "")
	l.Up(0)
	l.Fenced("")
	l.Breaker("", "open")
	l.CommitUnknown("")
}

// reentrant is a handler that uses the Logger that writes to it.
type reentrant struct {
	slog.Handler
	onWarn func()
}

func (h *reentrant) Enabled(context.Context, slog.Level) bool { return true }

func (h *reentrant) Handle(_ context.Context, record slog.Record) error {
	if record.Level == slog.LevelWarn {
		h.onWarn()
	}
	return nil
}

func TestHandlerIsCalledWithoutALockHeld(t *testing.T) {
	t.Parallel()
	h := &reentrant{Handler: slog.DiscardHandler}
	l := NewLogger(slog.New(h))
	h.onWarn = func() { l.Up(time.Second) }
	l.Down(OpConnect, "refused") // would deadlock
	require.False(t, l.down)
}
