package reach_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCallersThatWaitForAConnectionAreServedTogether: database/sql opens connections for them one after the other, in one
// goroutine, with a context that has no deadline. They are not to wait for one another.
func TestCallersThatWaitForAConnectionAreServedTogether(t *testing.T) {
	const outage = 2 * time.Second
	for _, timeout := range []time.Duration{30 * time.Second, 0} {
		t.Run(fmt.Sprintf("timeout %v", timeout), func(t *testing.T) {
			each(t, ours, func(t *testing.T, k kind) {
				r := waiters(t, k, timeout, outage)
				r.untold(t)
				r.sound(t)
				r.within(t, 5*time.Second)
				require.Less(t, r.all-r.first, outage, "one waited for the other")
			})
		})
	}
}

// waiters: three callers wait for a connection of a pool that has three, all taken and lost in an outage.
func waiters(t *testing.T, k kind, timeout, outage time.Duration) *result {
	const connections = 3
	ctx := within(t)
	server := newServer(t, "away", nil)
	client := k.open(t, server.DSN(), connections)
	l := &load{client: client, record: newRecord(ctx, t, server), timeout: timeout, once: true}
	held := client.holdAll(ctx, t, connections)
	require.NoError(t, server.StopImmediate(ctx))
	l.start(t, connections)
	time.Sleep(outage / 2) // that they wait for a connection is nowhere to be seen in a pgxpool
	for _, release := range held {
		release(true)
	}
	time.Sleep(outage / 2) // the callers' situation: the waits have grown
	began := time.Now()
	require.NoError(t, server.Start(ctx))
	t0 := accepting(ctx, t, server, began)
	l.allBack(ctx, t0, patience())
	return l.judge(ctx, t, t0, server)
}
