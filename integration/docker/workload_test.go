//go:build docker

package docker

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// told is what the caller of a transaction was told about it.
type told string

const (
	toldOK      told = "committed"   // nil
	toldFailed  told = "not applied" // any error that does not match ErrCommitUnknown
	toldUnknown told = "unknown"     // ErrCommitUnknown
)

// workload inserts one numbered row per transaction, from several goroutines,
// until it is stopped, and remembers what each caller was told. The table has
// no unique index: a transaction that was applied twice leaves two rows.
type workload struct {
	db      *sql.DB
	timeout time.Duration // of one transaction with all its attempts
	stop    context.CancelFunc
	workers sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when an outcome is added
	next    int64
	all     map[int64]told
	count   map[told]int
	errs    []error // of the transactions that were told to have failed
}

// startWorkload makes the table and starts the workers. They end with the test.
func startWorkload(t *testing.T, db *sql.DB, workers int, timeout time.Duration) *workload {
	t.Helper()
	_, err := db.ExecContext(t.Context(), "create table ledger (id bigint not null)")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	w := &workload{
		db: db, timeout: timeout, stop: cancel,
		changed: make(chan struct{}), all: map[int64]told{}, count: map[told]int{},
	}
	t.Cleanup(w.finish)
	for range workers {
		w.workers.Go(func() {
			for ctx.Err() == nil {
				w.transaction()
			}
		})
	}
	return w
}

// transaction runs one. Its context is not the workers': a transaction that
// is under way when the workload ends is finished, not given up.
func (w *workload) transaction() {
	w.mu.Lock()
	w.next++
	id := w.next
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), w.timeout)
	defer cancel()
	err := retrypg.WithTx(ctx, w.db, retrypg.TxOptions{Name: "insert"}, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "insert into ledger (id) values ($1)", id)
		return err
	})
	outcome := toldOK
	switch {
	case errors.Is(err, retrypg.ErrCommitUnknown):
		outcome = toldUnknown
	case err != nil:
		outcome = toldFailed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[id] = outcome
	w.count[outcome]++
	if outcome == toldFailed {
		w.errs = append(w.errs, err)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// outcomes returns how many transactions had the outcome so far.
func (w *workload) outcomes(outcome told) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count[outcome]
}

// await returns when n more transactions have had one of the outcomes.
func (w *workload) await(t *testing.T, n int, outcomes ...told) {
	t.Helper()
	sum := func() (total int, changed <-chan struct{}) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, outcome := range outcomes {
			total += w.count[outcome]
		}
		return total, w.changed
	}
	first, changed := sum()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for now := first; now < first+n; now, changed = sum() {
		select {
		case <-changed:
		case <-ctx.Done():
			require.FailNowf(t, "the workload stands still", "%d of %d transactions became %v; errors: %v",
				now-first, n, outcomes, w.errors())
		}
	}
}

// errors returns what the failed transactions said.
func (w *workload) errors() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]error(nil), w.errs...)
}

// finish lets the transactions under way end, and starts no more.
func (w *workload) finish() {
	w.stop()
	w.workers.Wait()
}

// verify compares what callers were told with what is in the table. It is
// called when the workload has finished and its database handle is closed:
// a session that was given up may apply a COMMIT that it had received, so the
// table counts only when all such sessions are gone.
func (w *workload) verify(t *testing.T, dsn string) {
	t.Helper()
	db, err := sql.Open("retrypg", dsn)
	require.NoError(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	require.Eventually(t, func() bool {
		var others int
		err := db.QueryRowContext(t.Context(), `select count(*) from pg_stat_activity
			where backend_type = 'client backend' and pid <> pg_backend_pid()`).Scan(&others)
		return err == nil && others == 0
	}, time.Minute, 50*time.Millisecond, "sessions of the workload are still there")

	found := map[int64]int{}
	rows, err := db.QueryContext(t.Context(), "select id, count(*) from ledger group by id")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id int64
		var times int
		require.NoError(t, rows.Scan(&id, &times))
		found[id] = times
	}
	require.NoError(t, rows.Err())
	for id, outcome := range w.all {
		switch outcome {
		case toldOK:
			require.Equalf(t, 1, found[id], "transaction %d: told %s", id, outcome)
		case toldFailed:
			require.Zerof(t, found[id], "transaction %d: told %s", id, outcome)
		case toldUnknown:
			require.LessOrEqualf(t, found[id], 1, "transaction %d: told %s", id, outcome)
		}
	}
	t.Logf("%d transactions committed, %d not applied, %d unknown: the table agrees",
		w.outcomes(toldOK), w.outcomes(toldFailed), w.outcomes(toldUnknown))
}
