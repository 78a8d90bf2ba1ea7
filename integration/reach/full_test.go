package reach_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// fullPool is how many connections the callers of a full server share.
const fullPool = 40

// TestFullServerIsAskedRarelyAndServesAllOnceItHasRoom.
func TestFullServerIsAskedRarelyAndServesAllOnceItHasRoom(t *testing.T) {
	each(t, ours, func(t *testing.T, k kind) {
		const outage = 3 * time.Second
		r := full(t, k, outage)
		r.untold(t)
		r.sound(t)
		r.within(t, 20*time.Second)
		// Those that come first do not know of one another; after that one asks for all, 20 times in a second at most.
		require.LessOrEqual(t, r.count, fullPool+int(20*outage.Seconds()), "attempts to connect")
	})
}

// full: others have taken all connections of the server for as long as outage, and 200 callers want to write. Back are,
// in this result, 99 % of the callers; the time counts from when the others begin to leave.
func full(t *testing.T, k kind, outage time.Duration) *result {
	const callers, slots, reserved = 200, 50, 3
	ctx := within(t)
	server := newServer(t, "full", map[string]string{
		"max_connections": strconv.Itoa(slots), "superuser_reserved_connections": strconv.Itoa(reserved),
	})
	record := newRecord(ctx, t, server)
	require.NoError(t, server.Exec(ctx, "create role app login"))
	leave := occupy(ctx, t, server, slots-reserved)
	p := pgt.Proxy(t, server.Addr())
	l := (&load{client: k.open(t, p.DSN("user=app"), fullPool), record: record, timeout: timeout, once: true}).start(t, callers)
	time.Sleep(outage) // the number of attempts in this time is the subject
	attempts, during := p.Stats().Opened, time.Since(l.began)
	t0 := time.Now()
	leave()
	t.Logf("the others have left after %v", time.Since(t0))
	l.allBack(ctx, t0, patience())
	r := l.judge(ctx, t, t0, server)
	r.attempted(attempts, during)
	if gaps := l.backLocked(t0); len(gaps) == callers {
		r.all = gaps[callers*99/100-1]
	}
	return r
}

// occupy takes n connections of a server; leave gives them back, all at the same time.
func occupy(ctx context.Context, t *testing.T, server *pgtest.Cluster, n int) (leave func()) {
	t.Helper()
	var taken []*pgx.Conn
	for range n {
		conn, err := pgx.Connect(ctx, server.DSN("user=app"))
		require.NoError(t, err)
		taken = append(taken, conn)
	}
	leave = sync.OnceFunc(func() {
		var leaving sync.WaitGroup
		for _, conn := range taken {
			leaving.Go(func() { _ = conn.Close(context.WithoutCancel(ctx)) })
		}
		leaving.Wait()
	})
	t.Cleanup(leave)
	return leave
}
