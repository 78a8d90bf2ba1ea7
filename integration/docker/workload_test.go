//go:build docker

package docker

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
)

// workload inserts one entry per transaction, from several goroutines, until
// it is stopped, and remembers what each caller was told.
type workload struct {
	*audit.Record
	// finish lets the transactions under way end, and starts no more.
	finish func()
}

// startWorkload makes the table and starts the workers. They end with the test.
// timeout is that of one transaction with all its attempts, whose context is
// not the workers': a transaction that is under way when the workload ends is
// finished, not given up.
func startWorkload(t *testing.T, db *sql.DB, workers int, timeout time.Duration) *workload {
	t.Helper()
	_, err := db.ExecContext(t.Context(), audit.Schema)
	require.NoError(t, err)
	w := &workload{Record: audit.New(audit.OfTransaction)}
	w.finish = w.Start(t.Context(), workers, func(ctx context.Context, id string) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		return audit.ExecTx(ctx, db, retrypg.TxOptions{Name: "insert"}, audit.Insert, id)
	})
	t.Cleanup(w.finish)
	return w
}

// await returns when n more transactions have had one of the outcomes.
func (w *workload) await(t *testing.T, n int, told ...audit.Told) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	require.NoError(t, w.Await(ctx, n, told...), "the workload stands still")
}

// verify compares what callers were told with what is in the table. It is
// called when the workload has finished and its database handle is closed:
// a session that was given up may apply a COMMIT that it had received, so the
// table counts only when all such sessions are gone.
func (w *workload) verify(t *testing.T, dsn string) *audit.Report {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	require.Eventually(t, func() bool {
		var others int
		err := conn.QueryRow(t.Context(), `select count(*) from pg_stat_activity
			where backend_type = 'client backend' and pid <> pg_backend_pid()`).Scan(&others)
		return err == nil && others == 0
	}, time.Minute, 50*time.Millisecond, "sessions of the workload are still there")
	there, err := audit.Count(t.Context(), conn, audit.Table)
	require.NoError(t, err)
	report := w.Compare(there)
	report.Check(t)
	return report
}
