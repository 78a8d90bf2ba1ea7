//go:build ha && linux

package ha_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/integration/leak"
)

const (
	// limit ends an event that hangs.
	limit = 2 * time.Minute
	// patience is how long a way may take after the cluster has recovered before the rest of the event goes on without
	// it. It is more than slack, so that who hangs until a frozen node goes on does not pass for one who recovered.
	patience = slack + time.Second
	// slack is how much longer than the cluster a way may be without a success. The goal is 300 ms; this is what fails.
	slack = 10 * time.Second
)

// event is something that happens to the leader of the cluster.
type event struct {
	name string
	// strike makes it happen; other is the synchronous standby.
	strike func(ctx context.Context, c *cluster, leader, other *node) error
	// mend lets the old leader come back.
	mend func(ctx context.Context, c *cluster, old *node) error
	// cuts is how often a connection to a primary may break while COMMIT is under way: each time the outcome of one
	// transaction of each writer may stay unknown, as a failover follows and only the transaction's id is asked about.
	cuts int
}

func nothing(context.Context, *cluster, *node) error { return nil }

// TestEveryWayRidesOutASwitchover: an operator hands the leadership on.
func TestEveryWayRidesOutASwitchover(t *testing.T) {
	rideOut(t, event{"switchover", func(ctx context.Context, c *cluster, leader, other *node) error {
		return c.switchover(ctx, leader, other)
	}, nothing, 0})
}

// TestEveryWayRidesOutTheDeathOfThePrimary: Patroni lives, and hands the leadership on at once.
func TestEveryWayRidesOutTheDeathOfThePrimary(t *testing.T) {
	rideOut(t, event{"primary killed", func(_ context.Context, c *cluster, leader, _ *node) error {
		return c.killPostmaster(leader)
	}, nothing, 1})
}

// TestEveryWayRidesOutTheLossOfANode: Patroni dies with its server, and its leadership has to expire.
func TestEveryWayRidesOutTheLossOfANode(t *testing.T) {
	rideOut(t, event{"node lost", func(_ context.Context, c *cluster, leader, _ *node) error {
		return c.loseNode(leader)
	}, func(_ context.Context, c *cluster, old *node) error {
		return c.startNode(old)
	}, 1})
}

// TestEveryWayRidesOutANodeThatStandsStill and then goes on, as the primary that it was for a moment: connections stay open,
// and nobody answers.
func TestEveryWayRidesOutANodeThatStandsStill(t *testing.T) {
	rideOut(t, event{"node frozen", func(_ context.Context, c *cluster, leader, _ *node) error {
		return c.freeze(leader)
	}, func(_ context.Context, c *cluster, old *node) error {
		return c.thaw(old)
	}, 2})
}

// rideOut lets an event happen under load, once with each commit check, and requires that nobody is told of it, that what
// was told is there, once, and that each way goes on about as soon as the cluster.
func rideOut(t *testing.T, e event) {
	for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
		t.Run(check.String(), func(t *testing.T) {
			c := sharedCluster(t)
			leak.Check(t)
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(c.logs())
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			old, err := c.healthy(ctx)
			require.NoError(t, err)
			other, err := c.synchronous(ctx)
			require.NoError(t, err)
			run := fmt.Sprintf("%d: %s, %s", len(report), e.name, check)

			ways := c.ways(t, check)
			probes := c.probes(ctx)
			stop := make(chan struct{})
			var working sync.WaitGroup
			end := sync.OnceFunc(func() {
				close(stop)
				working.Wait()
				probes.stop()
				for _, w := range ways {
					w.close()
				}
			})
			defer end()
			for _, w := range ways {
				for n := range *workers {
					working.Go(func() { w.work(ctx, run, n, stop) })
				}
			}
			require.NoError(t, goOn(ctx, ways))
			for _, w := range ways {
				w.meter.reset()
			}
			for _, m := range probes.ways {
				m.reset()
			}

			taken := make(chan error, 1)
			go func() {
				taken <- probes.cluster.until(ctx, 1, func(where string) bool { return where != old.name })
			}()
			require.NoError(t, e.strike(ctx, c, old, other))
			require.NoError(t, <-taken, "a new primary")
			soon, cancel := context.WithTimeout(ctx, patience)
			late := goOn(soon, ways) // the longest gaps tell too
			cancel()
			require.NoError(t, e.mend(ctx, c, old))
			require.NoError(t, c.rejoined(ctx, old))
			require.NoError(t, goOn(ctx, ways))
			end()
			if late != nil {
				t.Logf("%v after the cluster had recovered, before the old leader came back: %v", patience, late)
			}

			leader, err := c.healthy(ctx)
			require.NoError(t, err)
			conn, err := c.connect(ctx, leader)
			require.NoError(t, err)
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			self := probes.cluster.gap()
			t.Logf("%s led; without a write were: the cluster %v, HAProxy %v, PgBouncer %v", old.name,
				probes.cluster.story(), probes.ways[viaHAProxy].story(), probes.ways[viaPgBouncer].story())
			for _, w := range ways {
				r, err := w.audit(ctx, conn, run)
				require.NoError(t, err)
				library := w.meter.gap()
				t.Logf("%s: without a success: %v", w.title(), w.meter.story())
				report = append(report, row{e.name, check.String(), w.title(), r, library.length(), probes.ways[w.path].gap().length(), self.length()})
				r.Check(t)
				failed, unknown := r.Of(audit.NotApplied), r.Of(audit.Unknown)
				for _, e := range failed[:min(len(failed), 5)] {
					t.Errorf("%s: told to the caller: %v", w.title(), e.Err)
				}
				for _, e := range unknown[:min(len(unknown), 2)] {
					t.Logf("%s: %v", w.title(), e.Err)
				}
				if most := mayBeUnknown(e, check, w.path); len(unknown) > most {
					t.Errorf("%s: %d commits are unknown, and %d may be", w.title(), len(unknown), most)
				}
				if library.length() > self.length()+slack {
					t.Errorf("%s: %v without a success, where the cluster took %v", w.title(), library.length(), self.length())
				}
			}
		})
	}
}

// mayBeUnknown returns how many commits may stay unknown on a path. In a switchover none of those that go to the server
// directly is: it answers them all, or says in its last words that they were not applied. HAProxy cuts connections.
func mayBeUnknown(e event, check retrypg.CommitCheck, path string) int {
	switch {
	case check == retrypg.Ledger:
		return 0
	case path == direct:
		return e.cuts * *workers
	default:
		return max(e.cuts, 1) * *workers
	}
}

// goOn waits until every way has written as often as it has writers, three times over: each writer is back then, or the
// others have left it behind.
func goOn(ctx context.Context, ways []*way) error {
	for _, w := range ways {
		if err := w.meter.until(ctx, 3**workers, anywhere); err != nil {
			return err
		}
	}
	return nil
}
