//go:build ha && linux

package ha_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/internal/pgtest"
)

const (
	direct       = "all servers"
	viaHAProxy   = "HAProxy"
	viaPgBouncer = "PgBouncer, HAProxy"
)

var (
	workers = flag.Int("ha.workers", 8, "how many write through each way at the same time")
	only    = flag.String("ha.way", "", "test only the ways whose title contains this, as in 'WithTx, all servers'")
)

const (
	// pace is how long each of them rests after a write. Without it 32 writers would take the processors from Patroni,
	// which gives up its leadership when it cannot renew it in time. A way still begins a write every 8 ms.
	pace = 64 * time.Millisecond
)

// way is one way to the cluster, with its writers and what they were told.
type way struct {
	name, path string // path is one of the above
	insert     func(ctx context.Context, run, id string) error
	close      func()

	meter  *meter
	record *audit.Record
}

// ways opens the four ways, which the library is used through with its defaults but for the commit check.
func (c *cluster) ways(t *testing.T, check retrypg.CommitCheck) []*way {
	t.Helper()
	all := []*way{
		viaDB(t, direct, c.dsn("target_session_attrs=read-write"), check),
		viaPool(t, direct, c.dsn("target_session_attrs=read-write"), check),
		viaDB(t, viaHAProxy, pgtest.DSN([]string{loopback(c.haproxyPort)}), check),
		// Without prepared statements, which older versions of PgBouncer do not follow from one server connection to the next.
		viaPool(t, viaPgBouncer, pgtest.DSN([]string{loopback(c.pgbouncerPort)}, "default_query_exec_mode=exec"), check),
	}
	ways := slices.DeleteFunc(slices.Clone(all), func(w *way) bool { return !strings.Contains(w.title(), *only) })
	for _, w := range all {
		if !slices.Contains(ways, w) {
			w.close()
		}
	}
	require.NotEmpty(t, ways, "-ha.way=%s", *only)
	return ways
}

const insert = "insert into entry values ($1, $2)"

func viaDB(t *testing.T, path, dsn string, check retrypg.CommitCheck) *way {
	t.Helper()
	db, err := retrypg.OpenDB(dsn, retrypg.WithCommitCheck(check))
	require.NoError(t, err)
	db.SetMaxOpenConns(*workers)
	db.SetMaxIdleConns(*workers)
	write := func(ctx context.Context, run, id string) error {
		return audit.ExecTx(ctx, db, retrypg.TxOptions{}, insert, run, id)
	}
	return newWay("WithTx", path, write, func() { _ = db.Close() })
}

func viaPool(t *testing.T, path, dsn string, check retrypg.CommitCheck) *way {
	t.Helper()
	pool, err := retrypg.NewPool(t.Context(), fmt.Sprintf("%s&pool_max_conns=%d", dsn, *workers), retrypg.WithCommitCheck(check))
	require.NoError(t, err)
	write := func(ctx context.Context, run, id string) error {
		return audit.ExecPgxTx(ctx, pool, retrypg.TxOptions{}, insert, run, id)
	}
	return newWay("WithPgxTx", path, write, pool.Close)
}

func newWay(name, path string, write func(ctx context.Context, run, id string) error, closing func()) *way {
	return &way{name: name, path: path, insert: write, close: closing, meter: newMeter(), record: audit.New(audit.OfTransaction)}
}

// work is the nth writer, which writes until stop is closed or ctx ends. The writers begin one after the other, as all
// rest equally long.
func (w *way) work(ctx context.Context, run string, n int, stop <-chan struct{}) {
	rest := time.NewTimer(time.Duration(n) * pace / time.Duration(*workers))
	defer rest.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-rest.C:
		}
		err := w.record.Write(ctx, func(ctx context.Context, id string) error { return w.insert(ctx, run+", "+w.title(), id) })
		if err == nil {
			w.meter.note("")
		}
		rest.Reset(pace)
	}
}

func (w *way) title() string { return w.name + ", " + w.path }

// audit compares what the writers were told with what the server has.
func (w *way) audit(ctx context.Context, conn *pgx.Conn, run string) (*audit.Report, error) {
	there, err := audit.Count(ctx, conn, "entry where run = $1", run+", "+w.title())
	if err != nil {
		return nil, err
	}
	return w.record.Compare(there), nil
}
