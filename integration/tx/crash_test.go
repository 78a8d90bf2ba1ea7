package tx_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// crashLimit bounds a crash test: a dozen crashes and recoveries.
const crashLimit = 3 * time.Minute

// faults are what happens to the server. Each returns when the server is on its way back.
var faults = []struct {
	name string
	do   func(ctx context.Context, c *pgtest.Cluster) error
}{
	{"kill -9 of the postmaster", func(ctx context.Context, c *pgtest.Cluster) error {
		if err := c.Kill(ctx); err != nil {
			return err
		}
		return c.Start(ctx)
	}},
	{"kill -9 of a backend", crashBackend},
	{"stop -m immediate", func(ctx context.Context, c *pgtest.Cluster) error {
		if err := c.StopImmediate(ctx); err != nil {
			return err
		}
		return c.Start(ctx)
	}},
	{"restart", func(ctx context.Context, c *pgtest.Cluster) error { return c.Restart(ctx) }},
	{"terminate all backends", func(ctx context.Context, c *pgtest.Cluster) error {
		_, err := c.TerminateBackends(ctx, "")
		return err
	}},
}

// crashBackend kills a backend that is in a transaction, as the kernel does when memory is short.
func crashBackend(ctx context.Context, c *pgtest.Cluster) error {
	pid, err := c.Value(ctx, `select pid from pg_stat_activity
		where backend_type = 'client backend' and pid <> pg_backend_pid() order by xact_start nulls last limit 1`)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(pid)
	if err != nil {
		return fmt.Errorf("no backend to kill: %w", err)
	}
	return c.CrashBackend(n)
}

// TestWhatIsToldIsTrueThroughCrashes moves money over every kind of pool at once, with fsync on, while the server is
// killed in five ways, twice each. With retrypg's own no crash is an error.
func TestWhatIsToldIsTrueThroughCrashes(t *testing.T) {
	leak.Check(t)
	cluster := pgt.New(t, pgtest.Options{Name: "crash", Fsync: true, Settings: map[string]string{
		"deadlock_timeout": "50ms",
		// COMMIT waits before it writes, so that many crashes meet it.
		"commit_delay": "5000", "commit_siblings": "0",
	}})
	ctx, cancel := context.WithTimeout(t.Context(), crashLimit)
	defer cancel()
	b := newBank(60)
	admin, err := pgx.Connect(ctx, cluster.DSN())
	require.NoError(t, err)
	b.open(t, admin)
	require.NoError(t, admin.Close(ctx))

	var wg sync.WaitGroup
	stop := make(chan struct{})
	for _, a := range adapters {
		if a.pinned {
			continue
		}
		workers := 1
		if a.ours {
			workers = 3
		}
		db := a.open(t, cluster.DSN(), workers, nil)
		defer db.close()
		for worker := range workers {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					err := b.transfer(ctx, a, db, fmt.Sprintf("%s-%d-%d", a.name, worker, i))
					switch {
					case err == nil || errors.Is(err, retrypg.ErrCommitUnknown):
					case a.ours:
						t.Errorf("%s: the crash could have been ridden out: %v", a.name, err)
						return
					default: // what is not retrypg's own does not wait for a server that is away
						_ = retrypg.WaitReady(ctx, cluster.DSN())
					}
				}
			})
		}
	}
	crash(t, ctx, cluster, b)
	close(stop)
	wg.Wait()
	require.NoError(t, ctx.Err(), "it took too long")

	admin, err = pgx.Connect(ctx, cluster.DSN())
	require.NoError(t, err)
	defer func() { _ = admin.Close(context.Background()) }()
	b.audit(t, admin)
}

// crash lets all faults happen, each when transfers go well.
func crash(t *testing.T, ctx context.Context, cluster *pgtest.Cluster, b *bank) {
	t.Helper()
	const rounds, between = 2, 50
	for range rounds {
		for _, fault := range faults {
			if err := b.Await(ctx, between, audit.OK); err != nil {
				t.Errorf("before %s: transfers do not go on: %v", fault.name, err) // not Fatal: the workers must be stopped
				return
			}
			if err := fault.do(ctx, cluster); err != nil {
				t.Errorf("%s: %v", fault.name, err)
				return
			}
		}
	}
	if err := b.Await(ctx, between, audit.OK); err != nil {
		t.Errorf("after the last crash: transfers do not go on: %v", err)
	}
}
