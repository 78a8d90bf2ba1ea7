package connect_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// ledger is a table "entry (id bigint)" with what writers were told about each entry: in the end the table is compared
// with that. The table has no unique key, so that a write which was applied twice is seen.
type ledger struct {
	next   atomic.Int64
	mu     sync.Mutex
	told   map[int64]error
	recent chan struct{} // closed and replaced at each success
}

func newLedger(t *testing.T, c *pgtest.Cluster) *ledger {
	t.Helper()
	require.NoError(t, c.Exec(within(t), "drop table if exists entry; create table entry (id bigint)"))
	return &ledger{told: make(map[int64]error), recent: make(chan struct{})}
}

// write writes entries until stop is closed or ctx ends.
func (l *ledger) write(ctx context.Context, stop <-chan struct{}, insert func(ctx context.Context, id int64) error) {
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		default:
		}
		id := l.next.Add(1)
		err := insert(ctx, id)
		l.mu.Lock()
		l.told[id] = err
		if err == nil {
			close(l.recent)
			l.recent = make(chan struct{})
		}
		l.mu.Unlock()
	}
}

// progress blocks until n more entries were written with success.
func (l *ledger) progress(ctx context.Context, n int) error {
	for range n {
		l.mu.Lock()
		recent := l.recent
		l.mu.Unlock()
		select {
		case <-recent:
		case <-ctx.Done():
			return fmt.Errorf("no progress: %w", context.Cause(ctx))
		}
	}
	return nil
}

// audit requires that the server has each entry as often as its writer was told, and returns the errors.
func (l *ledger) audit(t *testing.T, c *pgtest.Cluster) []error {
	t.Helper()
	conn, err := pgx.Connect(within(t), c.DSN())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(within(t), "select id, count(*)::int from entry group by id")
	require.NoError(t, err)
	there := make(map[int64]int)
	var id int64
	var n int
	_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error { there[id] = n; return nil })
	require.NoError(t, err)
	var failed []error
	for id, err := range l.told {
		n := there[id]
		delete(there, id)
		if err == nil {
			require.Equal(t, 1, n, "entry %d, of which the writer was told that it is there", id)
			continue
		}
		failed = append(failed, err)
		switch class := retrypg.Classify(err); class.Outcome {
		case retrypg.OutcomeUnknown:
			require.LessOrEqual(t, n, 1, "entry %d: %v", id, err)
		case retrypg.OutcomeCommitted:
			require.Equal(t, 1, n, "entry %d: %v", id, err)
		default:
			require.Zero(t, n, "entry %d: %v (%v)", id, err, class)
		}
	}
	require.Empty(t, there, "entries that nobody wrote")
	return failed
}

// writers are the ways to write an entry, and whether each is in the keeping of WithTx.
func writers(db *sql.DB, pool *retrypg.Pool) map[string]func(ctx context.Context, id int64) error {
	const insert = "insert into entry values ($1)"
	return map[string]func(ctx context.Context, id int64) error{
		"WithTx": func(ctx context.Context, id int64) error {
			return retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, insert, id)
				return err
			})
		},
		"WithPgxTx": func(ctx context.Context, id int64) error {
			return retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, insert, id)
				return err
			})
		},
		"db.Exec": func(ctx context.Context, id int64) error {
			_, err := db.ExecContext(ctx, insert, id)
			return err
		},
		"db.Exec without arguments": func(ctx context.Context, id int64) error {
			_, err := db.ExecContext(ctx, fmt.Sprintf("insert into entry values (%d)", id))
			return err
		},
		"pool.Exec": func(ctx context.Context, id int64) error {
			_, err := pool.Exec(ctx, insert, id)
			return err
		},
	}
}
