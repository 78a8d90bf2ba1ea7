package reach_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// TestNobodyHangsAfterABlackHole: callers have no deadline. What was connected is reset when the network is there again, or
// stays silent for ever, although its packets are acknowledged, which nothing but retry_statement_timeout finds.
func TestNobodyHangsAfterABlackHole(t *testing.T) {
	for name, forgotten := range map[string]bool{"connections are reset": false, "connections stay silent": true} {
		t.Run(name, func(t *testing.T) {
			each(t, ours, func(t *testing.T, k kind) {
				r := blackHole(t, k, forgotten, 3*time.Second)
				r.untold(t)
				r.sound(t)
				r.within(t, 20*time.Second)
			})
		})
	}
}

// blackHole: for as long as d every byte is swallowed, and whoever connects gets no answer, then or later. The kernel at
// the other end, which is the proxy's, acknowledges: no timeout of TCP ends a connection.
func blackHole(t *testing.T, k kind, forgotten bool, d time.Duration) *result {
	ctx := within(t)
	server := newServer(t, "hole", nil)
	p := pgt.Proxy(t, server.Addr())
	dsn := p.DSN()
	if forgotten && k.ours {
		dsn = p.DSN("retry_statement_timeout=1s")
	}
	l := (&load{client: k.open(t, dsn, workers), record: newRecord(ctx, t, server)}).start(t, workers)
	require.NoError(t, l.progress(ctx))
	require.NoError(t, p.SetAccept(pgtest.AcceptSilent))
	p.SetFaults(pgtest.Faults{BlackHoleUp: true, BlackHoleDown: true}, pgtest.Existing)
	time.Sleep(d) // the callers' situation
	t0 := time.Now()
	require.NoError(t, p.SetAccept(pgtest.AcceptForward))
	if !forgotten {
		p.SetFaults(pgtest.Faults{}, pgtest.Existing)
	}
	l.allBack(ctx, t0, patience())
	r := l.judge(ctx, t, t0, server)
	p.CutAll(pgtest.Both, pgtest.RST) // else closing the client takes as long as pgx waits for an answer
	return r
}
