//go:build linux && netns

package net_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
)

// TestAShortOutageCostsNothingButTime: what TCP rides out by itself is not made worse. No connection is given up, nothing is
// run again, nobody is told anything.
func TestAShortOutageCostsNothingButTime(t *testing.T) {
	for _, f := range []fault{linkDown, dropAll, dropAnswers} {
		t.Run(f.name, func(t *testing.T) {
			leak.Check(t)
			checkFiles(t)
			s := newServer(t)
			ctx := within(t)
			var noticed atomic.Int32
			h := open(t, s.across(quick...), retrypg.WithHooks(retrypg.Hooks{
				Backoff:    func(context.Context, retrypg.BackoffInfo) { noticed.Add(1) },
				Evicted:    func(string) { noticed.Add(1) },
				ServerDown: func(error) { noticed.Add(1) },
			}))
			h.fill(ctx, t)
			const clients = "select count(*) from pg_stat_activity where client_addr is not null"
			require.Equal(t, 2*perKind, s.number(ctx, clients))

			heal := f.inject(t, s.Port())
			callers := make([]*caller, 0, 2*len(ways))
			for i := range 2 * len(ways) {
				c := &caller{way: ways[i%len(ways)], moment: idle, handle: h, entry: entry{id: strconv.Itoa(i)}, done: make(chan struct{})}
				c.start(ctx)
				callers = append(callers, c)
			}
			until(ctx, t, "all that was sent was lost and sent again", func() bool {
				return count(t, s.Port(), func(s socket) bool { return s.retransms > 0 }) == len(callers)
			})
			heal()
			for _, c := range callers {
				c.wait(ctx, t)
				require.NoError(t, c.err, "%v", c)
			}
			require.Zero(t, noticed.Load())
			require.Equal(t, 2*perKind, s.number(ctx, clients))
			there := s.entries(ctx)
			for _, c := range callers {
				require.Equal(t, 1, there[c.entry.id], "%v", c)
			}
		})
	}
}
