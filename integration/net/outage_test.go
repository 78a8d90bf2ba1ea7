//go:build linux && netns

package net_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/integration/leak"
)

// Where a fault meets a caller.
const (
	idle       = "idle connections"    // the call begins after the fault, with connections that were made before
	statement  = "statement under way" // the server works on it
	commit     = "COMMIT under way"    // the server works on it
	before     = "before COMMIT"       // which is sent after the fault has begun
	connecting = "connecting"          // the server has taken the connection, and not answered yet
	later      = "connecting later"    // the call begins after the fault, without a connection
)

var moments = []string{idle, statement, commit, before, connecting, later}

// quick makes the kernel of the client give a connection up soon: 2 s after it has sent something that is not acknowledged,
// and after about 3 s of silence.
var quick = []string{"tcp_user_timeout=2s", "tcp_keepalive_idle=1s", "tcp_keepalive_interval=1s", "tcp_keepalive_count=2"}

// commitGrace is how much longer than its deadline a call may take to find out what became of a COMMIT, by the contract: the
// time for its answer and that of a check.
const commitGrace = 250*time.Millisecond + 3*time.Second

// slack is how much longer than it should anything may take here: a machine that is busy with something else is not what
// these tests are about.
const slack = 10 * time.Second

func TestEveryCallEndsAndIsToldTheTruthThroughAnOutage(t *testing.T) {
	for _, f := range []fault{linkDown, dropAll, dropAnswers, reset} {
		t.Run(f.name, func(t *testing.T) { newOutage(t, f).run(within(t)) })
	}
}

// outage is one fault, and the callers that it meets.
type outage struct {
	t       *testing.T
	fault   fault
	server  *server
	handles map[string]*handle // by moment
	callers []*caller
	begun   chan struct{} // closed when the fault has begun
	written atomic.Int32  // transactions that are to send COMMIT then
}

func newOutage(t *testing.T, f fault) *outage {
	leak.Check(t)
	checkFiles(t)
	o := &outage{t: t, fault: f, server: newServer(t), handles: map[string]*handle{}, begun: make(chan struct{})}
	dsn := o.server.across(quick...)
	for _, moment := range moments {
		h := open(t, dsn)
		o.handles[moment] = h
		for _, w := range ways {
			if (moment == commit || moment == before) && !w.whole {
				continue
			}
			for _, bounded := range []bool{false, true} {
				c := &caller{way: w, moment: moment, handle: h, bounded: bounded, done: make(chan struct{})}
				c.entry.id = strconv.Itoa(len(o.callers) + 1)
				switch moment {
				case statement, commit:
					c.entry.hold = map[string]string{statement: "statement", commit: "commit"}[moment]
				case before:
					c.entry.written = func() { o.written.Add(1); <-o.begun }
				}
				o.callers = append(o.callers, c)
			}
		}
	}
	return o
}

// those returns the callers that satisfy a condition.
func (o *outage) those(condition func(*caller) bool) (found []*caller) {
	for _, c := range o.callers {
		if condition(c) {
			found = append(found, c)
		}
	}
	return found
}

// start starts the callers of some moments, with or without a deadline.
func (o *outage) start(ctx context.Context, bounded bool, moments ...string) {
	for _, moment := range moments {
		for _, c := range o.those(func(c *caller) bool { return c.moment == moment && c.bounded == bounded }) {
			c.start(ctx)
		}
	}
}

// stand waits until n callers wait in statements and half as many each in COMMIT and before it.
func (o *outage) stand(ctx context.Context, n int) {
	o.t.Helper()
	until(ctx, o.t, "the callers are where the fault is to meet them", func() bool {
		return o.server.held(ctx, statementLock) == n && o.server.held(ctx, commitLock) == n/2 && int(o.written.Load()) == n/2
	})
}

func (o *outage) run(ctx context.Context) {
	s, port := o.server, o.server.Port()
	for _, moment := range []string{statement, commit, before, idle} {
		o.handles[moment].fill(ctx, o.t)
	}
	s.hold(ctx, statementLock)
	s.hold(ctx, commitLock)
	o.start(ctx, false, statement, commit, before)
	o.stand(ctx, 4)
	hear := s.deaf()
	open := count(o.t, port, func(s socket) bool { return s.state == established })
	o.start(ctx, false, connecting)
	o.start(ctx, true, statement, commit, before, connecting)
	o.stand(ctx, 8)
	until(ctx, o.t, "connections are being made", func() bool {
		return count(o.t, port, func(s socket) bool { return s.state == established }) >= open+2
	})

	o.handles[idle].fill(ctx, o.t)
	heal := o.fault.inject(o.t, port)
	began := time.Now()
	for _, c := range o.callers {
		if c.hasEnded() {
			require.FailNow(o.t, "a caller has ended before the fault", "%v: %v", c, c.err)
		}
	}
	close(o.begun)
	hear()
	o.start(ctx, false, idle, later)
	o.start(ctx, true, idle, later)

	for _, c := range o.callers {
		if c.bounded || c.moment == statement && !c.whole {
			c.wait(ctx, o.t)
		}
	}
	until(ctx, o.t, "nothing that was sent can still arrive", func() bool { return count(o.t, port, socket.lives) == 0 })
	o.t.Logf("the last connection was given up after %v", time.Since(began).Round(time.Millisecond))
	for _, c := range o.those(func(c *caller) bool { return !c.bounded && c.whole }) {
		if c.hasEnded() {
			require.FailNow(o.t, "a caller without a deadline has ended while the server could not be reached", "%v: %v", c, c.err)
		}
	}

	// The server does what reached it, and its answers are lost, if they were not already.
	s.release(ctx, statementLock)
	s.release(ctx, commitLock)
	until(ctx, o.t, "the server has done what it was sent", func() bool {
		return s.number(ctx, "select count(*) from entry where hold <> ''") == 8
	})
	healed := time.Now()
	heal()
	for _, c := range o.callers {
		c.wait(ctx, o.t)
	}
	o.t.Logf("healed after %v", healed.Sub(began).Round(time.Millisecond))
	o.after(ctx)
	o.judge(ctx, began, healed)
}

// after requires that every handle works again: the first call on it succeeds.
func (o *outage) after(ctx context.Context) {
	id := len(o.callers)
	began := time.Now()
	for _, moment := range moments {
		for _, w := range ways {
			id++
			require.NoError(o.t, w.write(ctx, o.handles[moment], entry{id: strconv.Itoa(id)}), "%s, %s", moment, w.name)
		}
	}
	there := o.server.entries(ctx)
	for i := len(o.callers) + 1; i <= id; i++ {
		require.Equal(o.t, 1, there[strconv.Itoa(i)])
	}
	o.t.Logf("%d calls after the outage took %v", id-len(o.callers), time.Since(began).Round(time.Millisecond))
}

// judge compares what each caller was told, and when, with what is there and with what it should have been told.
func (o *outage) judge(ctx context.Context, began, healed time.Time) {
	there := o.server.entries(ctx)
	latest := map[string]time.Duration{}
	note := func(what string, d time.Duration) { latest[what] = max(latest[what], d) }
	for _, c := range o.callers {
		o.t.Run(c.String(), func(t *testing.T) {
			got, n := c.told(c.err), there[c.entry.id]
			t.Logf("told %s, there %d, %v after the fault began: %v", got, n, c.ended.Sub(began).Round(time.Millisecond), c.err)
			require.Contains(t, o.wanted(c), ending{got, n}, "%v", c.err)
			if got == audit.Unknown && c.whole {
				require.Equal(t, n == 1, resolve(ctx, t, c))
			}
			switch late := c.ended.Sub(c.began.Add(deadline)); {
			case c.bounded && got == audit.Unknown && c.whole:
				note("after the deadline, of those with a COMMIT", late)
				require.Less(t, late, commitGrace+slack)
			case c.bounded:
				note("after the deadline", late)
				require.Less(t, late, slack)
			case c.ended.Before(healed):
				note("after the fault, of those without a deadline that it ended", c.ended.Sub(began))
				require.Less(t, c.ended.Sub(began), 4*time.Second+slack)
			default:
				note("after the network was back, of those without a deadline", c.ended.Sub(healed))
				require.Less(t, c.ended.Sub(healed), 2*slack)
			}
			if c.bounded && !o.fault.answers {
				require.ErrorIs(t, c.err, context.DeadlineExceeded)
			}
		})
	}
	for what, d := range latest {
		o.t.Logf("the last ended %v %s", d.Round(time.Millisecond), what)
	}
}

// ending is what a caller was told, and how often its entry is there.
type ending struct {
	told  audit.Told
	there int
}

// wanted returns how a caller should have ended: in one of these ways.
func (o *outage) wanted(c *caller) []ending {
	lost := ending{audit.Unknown, 0} // sent, without an answer
	if o.fault.arrives {
		lost.there = 1
	}
	unsent := ending{audit.OK, 1} // at once, or after the outage
	if c.bounded {
		unsent = ending{audit.NotApplied, 0}
	}
	switch {
	case c.moment == statement && !c.whole, c.moment == commit && c.bounded:
		return []ending{{audit.Unknown, 1}}
	case c.moment == idle && !c.whole:
		// What was idle for a second is pinged first, and a keepalive probe may have met the reset before.
		return []ending{lost, unsent}
	case c.moment == before && c.bounded && o.fault.answers:
		return []ending{lost, unsent} // by the same probe
	case c.moment == before && c.bounded:
		return []ending{lost}
	}
	return []ending{unsent}
}

// resolve asks what became of a transaction that its caller could not be told of, now that the server can be asked.
func resolve(ctx context.Context, t *testing.T, c *caller) bool {
	t.Helper()
	var lost *retrypg.CommitUnknownError
	require.ErrorAs(t, c.err, &lost)
	committed, err := c.resolve(ctx, c.handle, lost)
	require.NoError(t, err)
	return committed
}
