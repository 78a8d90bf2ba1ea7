package reach_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// TestNobodyIsToldOfTerminatedBackends: an administrator, or a pooler that is scaled down, ends one after the other.
func TestNobodyIsToldOfTerminatedBackends(t *testing.T) {
	each(t, ours, func(t *testing.T, k kind) {
		r := killer(t, k, 3*time.Second)
		r.untold(t)
		r.sound(t)
		require.Equal(t, r.callers, r.back, "callers that were served after it")
		t.Logf("p50 %v, p99 %v, %.0f entries per second", r.p50, r.p99, r.perSecond)
		require.LessOrEqual(t, r.p99, 10*time.Second)
	})
}

// killer: every 50 ms a random backend is terminated, for as long as d.
func killer(t *testing.T, k kind, d time.Duration) *result {
	ctx := within(t)
	server := newServer(t, "killer", nil)
	client := k.open(t, server.DSN(), workers)
	record := newRecord(ctx, t, server)
	client.fill(ctx, t, workers)
	l := (&load{client: client, record: record, timeout: timeout}).start(t, workers)
	n := terminate(ctx, t, server, d)
	t0 := time.Now()
	l.allBack(ctx, t0, patience())
	r := l.judge(ctx, t, t0, server)
	r.latencies(l)
	r.first, r.all = 0, 0 // what counts is the time before
	require.Positive(t, n, "backends terminated")
	t.Logf("%d backends terminated", n)
	return r
}

// terminate ends a random client connection every 50 ms, and returns how many it has ended.
func terminate(ctx context.Context, t *testing.T, server *pgtest.Cluster, d time.Duration) (n int) {
	t.Helper()
	conn, err := pgx.Connect(ctx, server.DSN("application_name=killer"))
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-ticker.C
		tag, err := conn.Exec(ctx, `select pg_terminate_backend(pid) from (
			select pid from pg_stat_activity where backend_type = 'client backend' and application_name <> 'killer'
			order by random() limit 1) as victim`)
		require.NoError(t, err)
		n += int(tag.RowsAffected())
	}
	return n
}
