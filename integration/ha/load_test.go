//go:build ha && linux

package ha_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

const (
	direct       = "all servers"
	viaHAProxy   = "HAProxy"
	viaPgBouncer = "PgBouncer, HAProxy"
)

const (
	// workers is how many write through each way at the same time.
	workers = 8
	// pace is how long each of them rests after a write. Without it 32 writers would take the processors from Patroni,
	// which gives up its leadership when it cannot renew it in time. A way still begins a write every 8 ms.
	pace = 64 * time.Millisecond
)

// way is one way to the cluster, with its writers and what they were told.
type way struct {
	name, path string // path is one of the above
	insert     func(ctx context.Context, run string, id int64) error
	close      func()

	meter *meter
	next  atomic.Int64
	mu    sync.Mutex
	told  map[int64]error
}

// ways opens the four ways, which the library is used through with its defaults but for the commit check.
func (c *cluster) ways(t *testing.T, check retrypg.CommitCheck) []*way {
	t.Helper()
	return []*way{
		viaDB(t, direct, c.dsn("target_session_attrs=read-write"), check),
		viaPool(t, direct, c.dsn("target_session_attrs=read-write"), check),
		viaDB(t, viaHAProxy, pgtest.DSN([]string{loopback(c.haproxyPort)}), check),
		// Without prepared statements, which older versions of PgBouncer do not follow from one server connection to the next.
		viaPool(t, viaPgBouncer, pgtest.DSN([]string{loopback(c.pgbouncerPort)}, "default_query_exec_mode=exec"), check),
	}
}

const insert = "insert into entry values ($1, $2)"

func viaDB(t *testing.T, path, dsn string, check retrypg.CommitCheck) *way {
	t.Helper()
	db, err := retrypg.OpenDB(dsn, retrypg.WithCommitCheck(check))
	require.NoError(t, err)
	db.SetMaxOpenConns(workers)
	db.SetMaxIdleConns(workers)
	write := func(ctx context.Context, run string, id int64) error {
		return retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, insert, run, id)
			return err
		})
	}
	return newWay("WithTx", path, write, func() { _ = db.Close() })
}

func viaPool(t *testing.T, path, dsn string, check retrypg.CommitCheck) *way {
	t.Helper()
	pool, err := retrypg.NewPool(t.Context(), fmt.Sprintf("%s&pool_max_conns=%d", dsn, workers), retrypg.WithCommitCheck(check))
	require.NoError(t, err)
	write := func(ctx context.Context, run string, id int64) error {
		return retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insert, run, id)
			return err
		})
	}
	return newWay("WithPgxTx", path, write, pool.Close)
}

func newWay(name, path string, write func(ctx context.Context, run string, id int64) error, closing func()) *way {
	return &way{name: name, path: path, insert: write, close: closing, meter: newMeter(), told: map[int64]error{}}
}

// work is the nth writer, which writes until stop is closed or ctx ends. The writers begin one after the other, as all
// rest equally long.
func (w *way) work(ctx context.Context, run string, n int, stop <-chan struct{}) {
	rest := time.NewTimer(time.Duration(n) * pace / workers)
	defer rest.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-rest.C:
		}
		id := w.next.Add(1)
		err := w.insert(ctx, run+", "+w.title(), id)
		if err == nil {
			w.meter.note("")
		}
		w.mu.Lock()
		w.told[id] = err
		w.mu.Unlock()
		rest.Reset(pace)
	}
}

func (w *way) title() string { return w.name + ", " + w.path }

// verdict is what the audit of one way found.
type verdict struct {
	ok, unknown int
	unknownWhy  []error // what was told of these
	failed      []error // what else was told
	wrong       []string
}

// audit compares what the writers were told with what the server has. The table has no unique key, so that a write that was
// applied twice is seen.
func (w *way) audit(ctx context.Context, conn *pgx.Conn, run string) (v verdict, err error) {
	rows, err := conn.Query(ctx, "select id, count(*)::int from entry where run = $1 group by id", run+", "+w.title())
	if err != nil {
		return v, err
	}
	there := map[int64]int{}
	var id int64
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error { there[id] = n; return nil }); err != nil {
		return v, err
	}
	for id, err := range w.told {
		n := there[id]
		delete(there, id)
		switch {
		case err == nil:
			v.ok++
			if n != 1 {
				v.wrong = append(v.wrong, fmt.Sprintf("%d was told to be there, and is there %d times", id, n))
			}
		case errors.Is(err, retrypg.ErrCommitUnknown):
			v.unknown++
			v.unknownWhy = append(v.unknownWhy, err)
			if n > 1 {
				v.wrong = append(v.wrong, fmt.Sprintf("%d is there %d times: %v", id, n, err))
			}
		default:
			v.failed = append(v.failed, err)
			if class := retrypg.Classify(err); n > 1 || n > 0 && class.Outcome != retrypg.OutcomeUnknown {
				v.wrong = append(v.wrong, fmt.Sprintf("%d was told not to be there (%v), and is there %d times: %v", id, class, n, err))
			}
		}
	}
	for id, n := range there {
		v.wrong = append(v.wrong, fmt.Sprintf("%d is there %d times, and nobody was told", id, n))
	}
	return v, nil
}
