//go:build pgbouncer

package pgbouncer_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// cut is one way to lose the answer to a COMMIT, on one side of PgBouncer.
type cut struct {
	name    string
	behind  bool // between PgBouncer and the server
	applied bool
	times   int
	match   pgtest.Match
	action  pgtest.Action
}

var cuts = []cut{
	{"client, before PgBouncer got it", false, false, 40, pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN)},
	{"client, reset before PgBouncer got it", false, false, 30, pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.RST)},
	{"client, a half of it", false, false, 10, pgtest.Sending("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN)},
	{"server, before it got it", true, false, 40, pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN)},
	{"server, never delivered, its socket left open", true, false, 3, pgtest.Sending("commit"), pgtest.DeliverLate(pgtest.FIN)},
	{"client, the answer was dropped", false, true, 40, pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN)},
	{"client, a half of the answer", false, true, 10, pgtest.Reply("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN)},
	{"server, the answer was dropped", true, true, 40, pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN)},
	{"server, reset before the answer", true, true, 30, pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.RST)},
}

// ofItem restricts a match to the connection that carried the statement which inserts the item: other clients' pass.
func ofItem(id string, match pgtest.Match) pgtest.Match {
	var conn atomic.Int64
	return func(m pgtest.Message) bool {
		if strings.Contains(m.SQL, "'"+id+"'") {
			conn.Store(m.Conn)
		}
		return m.Conn == conn.Load() && match(m)
	}
}

// insert is the statement for an item, with its id as text that proxies can see.
func insert(id string) string { return "insert into item (id) values ('" + id + "')" }

// bystanders are other clients of the same pool, past the proxy before it. The result ends them and returns what went
// wrong for them. They take nothing amiss but what a cut of PgBouncer's server connections does to them.
func (b *bouncer) bystanders(n int) (stop func() []error) {
	b.t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var wrong []error
	for i := range n {
		db, err := retrypg.OpenDB(b.front.DSN("default_query_exec_mode=exec"))
		require.NoError(b.t, err)
		db.SetMaxOpenConns(1)
		wg.Go(func() {
			defer func() { _ = db.Close() }()
			for k := 0; ; k++ {
				select {
				case <-done:
					return
				default:
				}
				id := fmt.Sprintf("bystander %d %d", i, k)
				tx, err := db.BeginTx(b.t.Context(), nil)
				if err == nil {
					if _, err = tx.ExecContext(b.t.Context(), insert(id)); err == nil {
						err = tx.Commit()
					} else {
						_ = tx.Rollback() // the error above says why
					}
				}
				if err != nil {
					mu.Lock()
					wrong = append(wrong, fmt.Errorf("%s: %w", id, err))
					mu.Unlock()
				}
				time.Sleep(time.Millisecond) // they are there, and leave the machine to the test
			}
		})
	}
	return func() []error {
		close(done)
		wg.Wait()
		return wrong
	}
}

// TestLostCommitIsSettledThroughPgBouncer, by cuts on both sides of it. Other clients' transactions through the same pool
// are not harmed by what is done to settle it.
func TestLostCommitIsSettledThroughPgBouncer(t *testing.T) {
	for _, mode := range []string{"transaction", "session"} {
		for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
			t.Run(mode+", "+check.String(), func(t *testing.T) {
				b := newBouncer(t, mode, 10)
				var told []retrypg.CommitCheckInfo
				opts := []retrypg.Option{
					retrypg.WithoutBudget(), retrypg.WithCommitCheck(check),
					retrypg.WithHooks(retrypg.Hooks{CommitChecked: func(_ context.Context, info retrypg.CommitCheckInfo) { told = append(told, info) }}),
				}
				db, err := retrypg.OpenDB(b.dsn(), opts...)
				require.NoError(t, err)
				defer func() { _ = db.Close() }()
				db.SetMaxOpenConns(1)
				pool, err := retrypg.NewPool(t.Context(), b.dsn("pool_max_conns=1"), opts...)
				require.NoError(t, err)
				defer pool.Close()
				stop := b.bystanders(3)
				before, after := 0, 0
				for _, c := range cuts {
					for i := range c.times {
						id := fmt.Sprintf("%s %d", c.name, i)
						proxy := b.front
						if c.behind {
							proxy = b.back
						}
						rule := proxy.OnMessage(ofItem(id, c.match), c.action)
						told = nil
						ctx, cancel := context.WithTimeout(t.Context(), limit)
						var err error
						if i%2 == 0 {
							err = audit.ExecTx(ctx, db, retrypg.TxOptions{}, insert(id))
						} else {
							err = audit.ExecPgxTx(ctx, pool, retrypg.TxOptions{}, insert(id))
						}
						cancel()
						rule.Release()
						rule.Remove()
						require.NoError(t, err, id)
						require.Equal(t, 1, b.items(id), id)
						require.Len(t, told, 1, id)
						if c.applied {
							after++
							require.Equal(t, "committed", told[0].Outcome, id)
						} else {
							before++
							require.Equal(t, "not_applied", told[0].Outcome, id)
						}
					}
				}
				require.Empty(t, stop(), "errors of other clients")
				t.Logf("COMMITs cut: %d before the server had them, %d afterwards", before, after)
			})
		}
	}
}

// TestIdentityIsReadWithEveryTransactionBehindAPooler: the server connection, and with it the server's epoch, may be another
// one each time.
func TestIdentityIsReadWithEveryTransactionBehindAPooler(t *testing.T) {
	for _, mode := range []string{"transaction", "session"} {
		b := newBouncer(t, mode, 4)
		db, err := retrypg.OpenDB(b.dsn())
		require.NoError(t, err)
		var seen []string
		var mu sync.Mutex
		b.front.OnMessages(1000, func(m pgtest.Message) bool {
			if pgtest.Sent("begin")(m) {
				mu.Lock()
				seen = append(seen, m.SQL)
				mu.Unlock()
			}
			return false
		}, pgtest.Pause())
		for range 3 {
			require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, func(context.Context, *sql.Tx) error { return nil }))
		}
		require.NoError(t, db.Close())
		mu.Lock()
		require.Len(t, seen, 3, mode)
		for _, sql := range seen {
			require.Contains(t, sql, "pg_postmaster_start_time", mode)
		}
		mu.Unlock()
	}
}

// TestAStandbyThatIsPromotedBehindPgBouncerIsNotTakenForOne: clients' connections outlive that, and what PgBouncer has told
// them of the server is not true any more.
func TestAStandbyThatIsPromotedBehindPgBouncerIsNotTakenForOne(t *testing.T) {
	for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
		t.Run(check.String(), func(t *testing.T) {
			primary := pgt.New(t, pgtest.Options{Name: "first", Fsync: true})
			require.NoError(t, primary.Exec(t.Context(), itemTable))
			standby := pgt.Standby(t, primary, pgtest.Options{Name: "second"})
			require.NoError(t, standby.WaitReplayed(t.Context(), primary))
			b := newBouncerFor(t, standby, "transaction", 4)
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			pool, err := retrypg.NewPool(ctx, b.dsn("pool_max_conns=1"), retrypg.WithCommitCheck(check))
			require.NoError(t, err)
			defer pool.Close()
			require.NoError(t, pool.Ping(ctx), "the connection is made while the server is a standby")
			require.NoError(t, primary.Kill(ctx))
			require.NoError(t, standby.Promote(ctx))
			for range 4 { // what the server reports goes to one client of each of PgBouncer's connections
				other, err := pgx.Connect(ctx, b.dsn())
				require.NoError(t, err)
				_, err = other.Exec(ctx, "select 1")
				require.NoError(t, err)
				require.NoError(t, other.Close(ctx))
			}
			rule := b.front.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
			defer rule.Remove()
			runs := 0
			require.NoError(t, retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
				runs++
				_, err := tx.Exec(ctx, insert("a"))
				return err
			}))
			require.Equal(t, []int{1, 1}, []int{runs, b.items("a")})
		})
	}
}

// TestServerThatCrashesBehindPgBouncerIsNotBelieved: clients' connections to PgBouncer outlive the crash, and ids are handed
// out again.
func TestServerThatCrashesBehindPgBouncerIsNotBelieved(t *testing.T) {
	for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
		t.Run(check.String(), func(t *testing.T) {
			b := newBouncer(t, "transaction", 10)
			require.NoError(t, b.admin.Close(t.Context())) // the server is about to be killed
			db, err := retrypg.OpenDB(b.dsn(), retrypg.WithoutBudget(), retrypg.WithCommitCheck(check), retrypg.WithMaxAttempts(1000))
			require.NoError(t, err)
			defer func() { _ = db.Close() }()
			db.SetMaxOpenConns(8)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			record := audit.New(audit.OfTransaction)
			stop := record.Start(ctx, 8, func(ctx context.Context, id string) error {
				return audit.ExecTx(ctx, db, retrypg.TxOptions{}, insert(id))
			})
			defer stop()
			const crashes = 12
			for i := range crashes {
				require.NoError(t, record.Await(ctx, 60, audit.OK))
				if i%2 == 0 {
					require.NoError(t, b.server.Kill(ctx))
				} else {
					require.NoError(t, b.server.StopImmediate(ctx))
				}
				require.NoError(t, b.server.Start(ctx))
			}
			require.NoError(t, record.Await(ctx, 60, audit.OK))
			stop()
			b.admin, err = pgx.Connect(ctx, b.server.DSN())
			require.NoError(t, err)
			defer func() { _ = b.admin.Close(context.Background()) }()
			there, err := audit.Count(ctx, b.admin, "item")
			require.NoError(t, err)
			report := record.Compare(there)
			report.Check(t)
			for _, e := range report.Of(audit.Unknown) {
				require.ErrorContains(t, e.Err, "crashed or was restarted since", e.ID)
				require.NotEqual(t, retrypg.Ledger, check, "%v", e)
			}
		})
	}
}
