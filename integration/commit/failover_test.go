package commit_test

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

// told is what was said about one transaction.
type told struct {
	err   error
	later bool // it began when the new primary was there
}

// failover lets workers insert items over both hosts while the primary is killed and the standby promoted, and returns
// what they were told, and the ids of which the server was asked.
func (p *pair) failover(check retrypg.CommitCheck, overPgx bool) (all map[string]told, checked map[string]bool) {
	p.t.Helper()
	const workers = 8
	t := p.t
	dsn := pgtest.DSN([]string{p.primary.Addr(), p.standby.Addr()}, "target_session_attrs=read-write", "retry_commit_check="+check.String())
	all, checked = make(map[string]told), make(map[string]bool)
	var mu sync.Mutex
	var written atomic.Int64
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
			return retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{Name: id}, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, insertItem, id)
				return err
			})
		}
	} else {
		db := openDB(t, dsn, hooks)
		defer func() { _ = db.Close() }()
		db.SetMaxOpenConns(workers)
		run = func(ctx context.Context, id string) error {
			return retrypg.WithTx(ctx, db, retrypg.TxOptions{Name: id}, insertOne(id))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var promoted atomic.Bool
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for worker := range workers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("%d-%d", worker, i)
				later := promoted.Load()
				err := run(ctx, id)
				mu.Lock()
				all[id] = told{err, later}
				mu.Unlock()
				if err == nil {
					written.Add(1)
				}
			}
		})
	}
	goOn := func() {
		want := written.Load() + 10*workers
		require.Eventually(t, func() bool { return written.Load() >= want }, time.Minute, time.Millisecond)
	}
	goOn()
	require.NoError(t, p.primary.Kill(ctx))
	p.promote()
	promoted.Store(true)
	goOn()
	close(stop)
	wg.Wait()
	require.NoError(t, ctx.Err())
	return all, checked
}

// itemCounts returns how often each item is there.
func itemCounts(t *testing.T, c *pgtest.Cluster) map[string]int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.DSN())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), "select id, count(*)::int from item group by id")
	require.NoError(t, err)
	counts := make(map[string]int)
	var id string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error { counts[id] = n; return nil })
	require.NoError(t, err)
	return counts
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
					all, checked := p.failover(check, overPgx)
					there := itemCounts(t, p.standby)
					unknown, lost := 0, 0
					for id, told := range all {
						n := there[id]
						require.LessOrEqual(t, n, 1, "%s is there more than once", id)
						switch {
						case told.err == nil && n == 1:
						case told.err == nil && !synchronous && !told.later && !checked[id]:
							lost++ // the old primary had confirmed it
						case told.err == nil:
							t.Errorf("%s was told ok and is not there", id)
						case errors.Is(told.err, retrypg.ErrCommitUnknown):
							unknown++
							require.ErrorContains(t, told.err, "there was a failover since", id)
						default:
							t.Errorf("%s could have been ridden out: %v", id, told.err)
						}
						delete(there, id)
					}
					require.Empty(t, there, "nobody was told of these")
					if check == retrypg.Ledger {
						require.Zero(t, unknown)
					}
					t.Logf("%d transactions, %d lost answers, %d unknown, %d lost by replication", len(all), len(checked), unknown, lost)
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
