package commit_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// failover lets callers insert items over both hosts while the primary is killed and the standby promoted, and returns
// what they were told, the ids of which the server was asked, and those that began when the new primary was there.
func (p *pair) failover(check retrypg.CommitCheck, overPgx bool) (record *audit.Record, checked, later map[string]bool) {
	p.t.Helper()
	const workers = 8
	t := p.t
	dsn := pgtest.DSN([]string{p.primary.Addr(), p.standby.Addr()}, "target_session_attrs=read-write", "retry_commit_check="+check.String())
	checked, later = make(map[string]bool), make(map[string]bool)
	var mu sync.Mutex
	hooks := retrypg.Hooks{CommitChecked: func(_ context.Context, info retrypg.CommitCheckInfo) {
		mu.Lock()
		defer mu.Unlock()
		checked[info.Name] = true
	}}
	var run func(ctx context.Context, id string) error
	if overPgx {
		pool, err := retrypg.NewPool(t.Context(), dsn+"&pool_max_conns=8", retrypg.WithHooks(hooks), retrypg.WithoutBudget())
		require.NoError(t, err)
		defer pool.Close()
		run = func(ctx context.Context, id string) error {
			return audit.ExecPgxTx(ctx, pool, retrypg.TxOptions{Name: id}, insertItem, id)
		}
	} else {
		db := openDB(t, dsn, hooks)
		defer func() { _ = db.Close() }()
		db.SetMaxOpenConns(workers)
		run = func(ctx context.Context, id string) error {
			return audit.ExecTx(ctx, db, retrypg.TxOptions{Name: id}, insertItem, id)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var promoted atomic.Bool
	record = audit.New(audit.OfTransaction)
	stop := record.Start(ctx, workers, func(ctx context.Context, id string) error {
		if promoted.Load() {
			mu.Lock()
			later[id] = true
			mu.Unlock()
		}
		return run(ctx, id)
	})
	defer stop()
	require.NoError(t, record.Await(ctx, 10*workers, audit.OK))
	require.NoError(t, p.primary.Kill(ctx))
	p.promote()
	promoted.Store(true)
	require.NoError(t, record.Await(ctx, 10*workers, audit.OK))
	stop()
	require.NoError(t, ctx.Err())
	return record, checked, later
}

// TestNothingIsToldWrongInAFailover: with a synchronous standby nothing is lost. Of an asynchronous one, transactions that
// the old primary had confirmed may be missing, which is not for a client to see; but what was said by asking, and what
// began after the failover, is true on the new one. With a ledger nothing is unknown.
func TestNothingIsToldWrongInAFailover(t *testing.T) {
	for _, synchronous := range []bool{true, false} {
		for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
			for _, overPgx := range []bool{false, true} {
				name := fmt.Sprintf("synchronous %v, %v, pgx %v", synchronous, check, overPgx)
				t.Run(name, func(t *testing.T) {
					p := newPair(t, synchronous)
					if check == retrypg.Ledger { // the table exists in practice; else a failover could lose it
						db := openDB(t, p.primary.DSN("retry_commit_check=ledger"), retrypg.Hooks{})
						require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, func(context.Context, *sql.Tx) error { return nil }))
						require.NoError(t, db.Close())
						require.NoError(t, p.standby.WaitReplayed(t.Context(), p.primary))
					}
					record, checked, later := p.failover(check, overPgx)
					report := record.Compare(audit.CountAt(t.Context(), t, p.standby.DSN(), "item"))
					require.Empty(t, report.Duplicated)
					require.Empty(t, report.Untrue)
					require.Empty(t, report.Foreign)
					require.Empty(t, report.Of(audit.NotApplied), "could have been ridden out")
					for _, e := range report.Lost { // by the replication, which the old primary has not waited for
						require.False(t, synchronous || later[e.ID] || checked[e.ID], "%v", e)
					}
					for _, e := range report.Of(audit.Unknown) {
						require.ErrorContains(t, e.Err, "there was a failover since", e.ID)
						require.NotEqual(t, retrypg.Ledger, check, "%v", e)
					}
					t.Logf("%v; %d lost answers, %d lost by replication", report, len(checked), len(report.Lost))
				})
			}
		}
	}
}

// TestStandbyThatAnswersFirstIsNotBelieved: the question reaches a hot standby, which does not know, until the primary is
// there.
func TestStandbyThatAnswersFirstIsNotBelieved(t *testing.T) {
	for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
		t.Run(check.String(), func(t *testing.T) {
			p := newPair(t, false)
			refused := make(chan struct{}, 1000)
			db := openDB(t, p.proxy.DSN(), retrypg.Hooks{Backoff: func(context.Context, retrypg.BackoffInfo) { refused <- struct{}{} }},
				retrypg.WithCommitCheck(check))
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			require.NoError(t, db.PingContext(ctx))
			p.proxy.OnMessage(func(m pgtest.Message) bool {
				if !pgtest.Reply("commit")(m) {
					return false
				}
				p.proxy.SetUpstream(p.standby.Addr())
				return true
			}, pgtest.CutBefore(pgtest.Both, pgtest.FIN))
			go func() {
				for range 3 {
					<-refused
				}
				p.proxy.SetUpstream(p.primary.Addr())
			}()
			require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, insertOne("a")))
			require.Equal(t, 1, itemA(t, p.primary))
		})
	}
}

// TestFormerPrimaryThatAnswersIsNotBelieved: it still takes itself for the primary, and has never heard of the transaction
// that ran on the new one. It must not be told "not applied".
func TestFormerPrimaryThatAnswersIsNotBelieved(t *testing.T) {
	for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
		t.Run(check.String(), func(t *testing.T) {
			p := newPair(t, false)
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			ledger := openDB(t, p.primary.DSN("retry_commit_check=ledger"), retrypg.Hooks{})
			require.NoError(t, retrypg.WithTx(ctx, ledger, retrypg.TxOptions{}, nothing)) // makes the table, which is replicated
			p.cutOff()
			p.promote() // and the first one goes on
			db := openDB(t, p.proxy.DSN(), retrypg.Hooks{}, retrypg.WithCommitCheck(check))
			require.NoError(t, db.PingContext(ctx))
			p.proxy.OnMessage(func(m pgtest.Message) bool {
				if !pgtest.Reply("commit")(m) {
					return false
				}
				p.proxy.SetUpstream(p.primary.Addr())
				return true
			}, pgtest.CutBefore(pgtest.Both, pgtest.FIN))
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			err := retrypg.WithTx(short, db, retrypg.TxOptions{}, insertOne("a"))
			require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
			require.ErrorContains(t, err, "a former primary answered")
			require.Equal(t, 1, itemA(t, p.standby))

			p.proxy.SetUpstream(p.standby.Addr())
			var unknown *retrypg.CommitUnknownError
			require.ErrorAs(t, err, &unknown)
			committed, err := retrypg.ResolveCommit(ctx, db, unknown)
			require.NoError(t, err)
			require.True(t, committed)
		})
	}
}
