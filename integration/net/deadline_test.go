//go:build linux && netns

package net_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/integration/leak"
)

// patient leaves it to the system when a connection is given up: after a quarter of an hour, or never.
var patient = []string{"tcp_user_timeout=off", "keepalives=0", "retry_connect_max_elapsed=24h", "connect_timeout=86400"}

// TestADeadlineEndsACallWhereTheSystemGivesNothingUp: the deadline of the caller needs nothing of the kernel.
func TestADeadlineEndsACallWhereTheSystemGivesNothingUp(t *testing.T) {
	leak.Check(t)
	checkFiles(t)
	s := newServer(t)
	ctx := within(t)
	filled, fresh := open(t, s.across(patient...)), open(t, s.across(patient...))
	var callers []*caller
	begin := func(moment, hold string, h *handle) {
		for _, w := range ways {
			c := &caller{way: w, moment: moment, handle: h, bounded: true, done: make(chan struct{})}
			c.entry = entry{id: strconv.Itoa(len(callers) + 1), hold: hold}
			c.start(ctx)
			callers = append(callers, c)
		}
	}
	filled.fill(ctx, t)
	s.hold(ctx, statementLock)
	begin(statement, "statement", filled)
	until(ctx, t, "the statements are under way", func() bool { return s.held(ctx, statementLock) == len(ways) })
	heal := dropAll.inject(t, s.Port())
	begin(idle, "", filled)
	begin(later, "", fresh)
	latest := time.Duration(0)
	for _, c := range callers {
		c.wait(ctx, t)
		require.ErrorIs(t, c.err, context.DeadlineExceeded, "%v", c)
		latest = max(latest, c.ended.Sub(c.began)-deadline)
	}
	require.Less(t, latest, slack)
	t.Logf("the last ended %v after its deadline", latest.Round(time.Millisecond))
	s.release(ctx, statementLock)
	heal()
	filled.fill(ctx, t)
	fresh.fill(ctx, t)
	there := s.entries(ctx)
	for _, c := range callers {
		// What was sent may arrive late: that is why it was not said to be not applied.
		require.LessOrEqual(t, there[c.entry.id], 1, "%v", c)
		if c.told(c.err) == audit.NotApplied {
			require.Zero(t, there[c.entry.id], "%v", c)
		}
	}
}

// TestCloseDuringAnOutageEndsWhatConnectsAtOnce: also an attempt of which nothing is heard, and nothing is left of it.
func TestCloseDuringAnOutageEndsWhatConnectsAtOnce(t *testing.T) {
	leak.Check(t)
	checkFiles(t)
	s := newServer(t)
	ctx := within(t)
	dropAll.inject(t, s.Port())
	before := len(openFiles(t))
	h := open(t, s.across(patient...))
	var callers []*caller
	for i, w := range ways {
		c := &caller{way: w, moment: later, handle: h, entry: entry{id: strconv.Itoa(i)}, done: make(chan struct{})}
		c.start(ctx)
		callers = append(callers, c)
	}
	asking := func(s socket) bool { return s.state == synSent }
	until(ctx, t, "both connect", func() bool { return count(t, s.Port(), asking) >= 2 })
	began := time.Now()
	require.NoError(t, h.db.Close())
	h.pool.Close()
	for _, c := range callers {
		c.wait(ctx, t)
		require.ErrorIs(t, c.err, retrypg.ErrClosed, "%v", c)
	}
	t.Logf("closed within %v", time.Since(began).Round(time.Millisecond))
	require.Less(t, time.Since(began), slack)
	until(ctx, t, "nothing is left", func() bool {
		return count(t, s.Port(), func(socket) bool { return true }) == 0 && len(openFiles(t)) <= before
	})
	require.Empty(t, s.entries(ctx))
}
