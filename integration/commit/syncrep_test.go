package commit_test

import (
	"context"
	"database/sql"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// waiting is a COMMIT that waits for a synchronous standby which is not there.
type waiting struct {
	t            *testing.T
	server       *pgtest.Cluster
	proxy        *pgtest.Proxy
	unreplicated atomic.Int32
	checks       atomic.Int32
	result       chan error
}

// newWaiting starts a transaction that inserts the item "a", and returns when its COMMIT waits.
func newWaiting(ctx context.Context, t *testing.T, opts retrypg.TxOptions, overPgx bool) *waiting {
	t.Helper()
	w := &waiting{t: t, server: pgt.New(t, pgtest.Options{}), result: make(chan error, 1)}
	require.NoError(t, w.server.Exec(ctx, itemTable))
	if opts.Commit == retrypg.Ledger { // or making its table would wait too
		db := openDB(t, w.server.DSN(), retrypg.Hooks{})
		require.NoError(t, retrypg.WithTx(ctx, db, opts, func(context.Context, *sql.Tx) error { return nil }))
	}
	waitsForStandby(ctx, t, w.server)
	w.proxy = pgt.Proxy(t, w.server.Addr())
	hooks := retrypg.Hooks{
		CommitUnreplicated: func(context.Context, *pgconn.Notice) { w.unreplicated.Add(1) },
		CommitChecked:      func(context.Context, retrypg.CommitCheckInfo) { w.checks.Add(1) },
	}
	if overPgx {
		pool := openPool(t, w.proxy.DSN("application_name=waiting"), hooks)
		go func() { w.result <- audit.ExecPgxTx(ctx, pool, opts, insertItem, "a") }()
	} else {
		db := openDB(t, w.proxy.DSN("application_name=waiting"), hooks)
		go func() { w.result <- retrypg.WithTx(ctx, db, opts, insertOne("a")) }()
	}
	require.NoError(t, w.server.WaitUntil(context.WithoutCancel(ctx), "exists (select from pg_stat_activity where application_name = 'waiting' and wait_event = 'SyncRep')"))
	return w
}

// waitsForStandby makes every COMMIT wait for a standby that does not exist. The server hears of its setting some time after it was told:
// a COMMIT that waits shows that it has.
func waitsForStandby(ctx context.Context, t *testing.T, server *pgtest.Cluster) {
	t.Helper()
	require.NoError(t, server.Exec(ctx, "create table probe ()"))
	require.NoError(t, server.Set(ctx, "synchronous_standby_names", "nobody"))
	conn, err := pgx.Connect(ctx, server.DSN("application_name=probe"))
	require.NoError(t, err)
	var waited atomic.Bool
	result := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !waited.Load() {
			_, err = conn.Exec(ctx, "insert into probe default values")
		}
		result <- err
	}()
	const probe = "application_name = 'probe'"
	require.NoError(t, server.WaitUntil(context.WithoutCancel(ctx), "exists (select from pg_stat_activity where "+probe+" and wait_event = 'SyncRep')"))
	waited.Store(true)
	_, err = server.CancelBackends(ctx, probe)
	require.NoError(t, err)
	require.NoError(t, <-result, "the COMMIT took effect")
	require.NoError(t, conn.Close(ctx))
}

func (w *waiting) told() error {
	w.t.Helper()
	select {
	case err := <-w.result:
		return err
	case <-time.After(time.Minute):
		w.t.Fatal("COMMIT does not return")
		return nil
	}
}

// TestCommitWhoseWaitForAStandbyIsEndedByTheServerIsCommittedAndMarked: by pg_cancel_backend, or with the connection.
func TestCommitWhoseWaitForAStandbyIsEndedByTheServerIsCommittedAndMarked(t *testing.T) {
	leak.Check(t)
	for name, end := range map[string]func(c *pgtest.Cluster, ctx context.Context, where string) (int, error){
		"cancel":    (*pgtest.Cluster).CancelBackends,
		"terminate": (*pgtest.Cluster).TerminateBackends,
	} {
		for _, overPgx := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				w := newWaiting(t.Context(), t, retrypg.TxOptions{}, overPgx)
				n, err := end(w.server, t.Context(), "application_name = 'waiting'")
				require.NoError(t, err)
				require.Equal(t, 1, n)
				require.NoError(t, w.told())
				require.EqualValues(t, 1, w.unreplicated.Load())
				require.Zero(t, w.checks.Load(), "the server has told")
				require.Equal(t, 1, itemA(t, w.server))
			})
		}
	}
}

// TestContextThatEndsDoesNotEndTheWaitForAStandby: neither by a request to cancel nor by a fence. What the client is told
// is that it does not know, and later that it committed.
func TestContextThatEndsDoesNotEndTheWaitForAStandby(t *testing.T) {
	leak.Check(t)
	for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger, retrypg.NoCheck} {
		for _, overPgx := range []bool{false, true} {
			t.Run(check.String(), func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				w := newWaiting(ctx, t, retrypg.TxOptions{Commit: check}, overPgx)
				cancel()
				err := w.told()
				require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
				require.ErrorIs(t, err, context.Canceled)
				if check != retrypg.NoCheck {
					require.ErrorContains(t, err, "still in progress")
				}
				require.Zero(t, w.proxy.Stats().Cancels, "requests to cancel")
				require.Zero(t, itemA(t, w.server), "the wait goes on")
				require.NoError(t, w.server.WaitUntil(t.Context(), "exists (select from pg_stat_activity where application_name = 'waiting' and wait_event = 'SyncRep')"))
				require.Zero(t, w.unreplicated.Load())

				require.NoError(t, w.server.Reset(t.Context(), "synchronous_standby_names"))
				require.NoError(t, w.server.WaitUntil(t.Context(), "exists (select from item where id = 'a')"))
				var unknown *retrypg.CommitUnknownError
				require.ErrorAs(t, err, &unknown)
				if check == retrypg.NoCheck {
					return
				}
				db := openDB(t, w.server.DSN(), retrypg.Hooks{})
				committed, err := retrypg.ResolveCommit(t.Context(), db, unknown)
				require.NoError(t, err)
				require.True(t, committed)
			})
		}
	}
}
