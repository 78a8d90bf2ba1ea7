package tx_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// answer is an ERROR in place of the server's answer to COMMIT, which it has applied.
func answer(code string) pgtest.Action {
	return pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(&pgproto3.ErrorResponse{
		Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: "result is ambiguous", Routine: "fillInPlaceholder",
	}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
}

// TestErrorThatLeavesTheOutcomeOfCommitOpenIsUnknownWithoutACheckAndNeverRunAgain: databases that speak PostgreSQL's protocol have such
// codes: CockroachDB 40003, YugabyteDB and others 58C00, 58C01, and XXA00 for what is committed in spite of the error.
func TestErrorThatLeavesTheOutcomeOfCommitOpenIsUnknownWithoutACheckAndNeverRunAgain(t *testing.T) {
	for _, code := range []string{"40003", "58C00", "58C01", "XXA00"} {
		t.Run(code, func(t *testing.T) {
			each(t, func(t *testing.T, s *stage) {
				proxy, dsn := s.proxied()
				told := 0
				db := s.openDSN(dsn, 1, retrypg.WithHooks(retrypg.Hooks{CommitUnknown: func(_ context.Context, e *retrypg.CommitUnknownError) {
					told++
					require.Equal(t, code, retrypg.SQLState(e))
				}}))
				proxy.OnMessage(pgtest.Reply("commit"), answer(code))
				runs := 0
				err := db.withTx(s.context(), retrypg.TxOptions{MaxAttempts: 3, Commit: retrypg.NoCheck}, func(ctx context.Context, w work) error {
					runs++
					return insert(ctx, w, "a")
				})
				require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
				require.NotErrorAs(t, err, new(*retrypg.ExhaustedError))
				require.Equal(t, code, retrypg.SQLState(err))
				require.Equal(t, 1, runs)
				require.Equal(t, 1, s.notes("a"))
				if s.cause { // the handle was made with the hook
					require.Equal(t, 1, told)
				}
				if !s.pinned {
					s.usable(db, "b")
				}
			})
		})
	}
}

// TestErrorThatSaysRolledBackInAnswerToCommitIsRunAgain is the contrast: the code tells the outcome.
func TestErrorThatSaysRolledBackInAnswerToCommitIsRunAgain(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		if s.pinned {
			return // the proxy ends the connection, and there is no other
		}
		proxy, dsn := s.proxied()
		db := s.openDSN(dsn, 1)
		// The server never gets this COMMIT: closing the connection rolls back.
		proxy.OnMessage(pgtest.Sent("commit"), answer("40001"))
		runs := 0
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{MaxAttempts: 3}, func(ctx context.Context, w work) error {
			runs++
			return insert(ctx, w, "a")
		}))
		require.Equal(t, 2, runs)
		require.Equal(t, 1, s.notes("a"))
	})
}

// TestPlainCommitThatIsAnsweredByAnErrorOfOpenOutcomeIsSettled: without WithTx too.
func TestPlainCommitThatIsAnsweredByAnErrorOfOpenOutcomeIsSettled(t *testing.T) {
	server := newShared(t)
	admin := newAdmin(t, server.DSN())
	for name, begin := range plainTx {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, server, admin, adapter{})
			proxy, dsn := s.proxied()
			w := begin(s, dsn)
			require.NoError(t, insert(s.context(), w, "a"))
			proxy.OnMessage(pgtest.Reply("commit"), answer("40003"))
			require.NoError(t, w.commit(s.context()))
			require.Equal(t, 1, s.notes("a"))
		})
	}
}

// TestCommitQueryIsJudgedByItsError: its last tag may be that of any statement.
func TestCommitQueryIsJudgedByItsError(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		for query, applied := range map[string]bool{
			"commit; select 1": true, "commit and chain": true, "insert into note (id) values ('last'); commit": true,
			"rollback": false, "no such statement": false,
		} {
			t.Run(query, func(t *testing.T) {
				ctx := s.context()
				tx, err := pool.BeginTx(ctx, pgx.TxOptions{CommitQuery: query})
				require.NoError(t, err)
				require.NoError(t, insert(ctx, pgxWork{tx}, query))
				err = tx.Commit(ctx)
				if applied {
					require.NoError(t, err)
				} else {
					require.Error(t, err)
				}
				require.Equal(t, applied, s.notes(query) == 1)
				require.NoError(t, pool.Ping(ctx))
			})
		}
	})
}

// TestCommitQueryThatFailsAfterItsCommitIsNotTakenForRolledBack: the error is that of another statement.
func TestCommitQueryThatFailsAfterItsCommitIsNotTakenForRolledBack(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		for _, query := range []string{"commit; select 1/0", "commit; select 1; select 1/0"} {
			tx, err := pool.BeginTx(s.context(), pgx.TxOptions{CommitQuery: query})
			require.NoError(t, err)
			require.NoError(t, insert(s.context(), pgxWork{tx}, query))
			if err := tx.Commit(s.context()); err != nil {
				require.ErrorIs(t, err, retrypg.ErrCommitUnknown, query)
			}
			require.Equal(t, 1, s.notes(query))
		}
	})
}

func TestCommitQueryThatLostItsAnswerIsUnknown(t *testing.T) {
	server := newShared(t)
	s := newStage(t, server, newAdmin(t, server.DSN()), adapter{})
	proxy, dsn := s.proxied()
	tx, err := newPool(s, dsn).BeginTx(s.context(), pgx.TxOptions{CommitQuery: "commit; select 1"})
	require.NoError(t, err)
	require.NoError(t, insert(s.context(), pgxWork{tx}, "a"))
	proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.ErrorIs(t, tx.Commit(s.context()), retrypg.ErrCommitUnknown)
	require.Equal(t, 1, s.notes("a"))
}

// tenants is a pool of the user's whose transactions have a setting, as row level security needs it.
type tenants struct {
	retrypg.PgxTxBeginner
	wrap   func(pgx.Tx) pgx.Tx
	begins int
}

func (p *tenants) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	p.begins++
	tx, err := p.PgxTxBeginner.BeginTx(ctx, o)
	if err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, "set local retrypg.tenant = 'shop'"); err != nil {
		return nil, errors.Join(err, tx.Rollback(ctx))
	}
	if p.wrap != nil {
		tx = p.wrap(tx)
	}
	return tx, nil
}

// embedded are types with a BeginTx of their own that embed a pool: retrypg asks such a type for its core.
type (
	embeddedPool    struct{ *retrypg.Pool }
	embeddedPgxPool struct{ *pgxpool.Pool }
	overriddenPool  struct {
		embeddedPool
		*tenants
	}
	overriddenPgxPool struct {
		embeddedPgxPool
		*tenants
	}
)

func (p overriddenPool) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	return p.tenants.BeginTx(ctx, o)
}

func (p overriddenPgxPool) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	return p.tenants.BeginTx(ctx, o)
}

// traced is a transaction of the user's around another.
type traced struct{ pgx.Tx }

// eachOverridden runs test with every kind of pool with a BeginTx of the user's. told counts unknown commits of pools that
// have the hook.
func eachOverridden(t *testing.T, test func(t *testing.T, s *stage, proxy *pgtest.Proxy, db retrypg.PgxTxBeginner, p *tenants, told *int)) {
	t.Helper()
	server := newShared(t)
	admin := newAdmin(t, server.DSN())
	for _, wrap := range []bool{false, true} {
		for _, kind := range []string{"retrypg.Pool", "pgxpool.Pool"} {
			name := kind
			if wrap {
				name += ", wrapped Tx"
			}
			t.Run(name, func(t *testing.T) {
				s := newStage(t, server, admin, adapter{})
				proxy, dsn := s.proxied()
				p := &tenants{}
				if wrap {
					p.wrap = func(tx pgx.Tx) pgx.Tx { return traced{tx} }
				}
				if kind == "pgxpool.Pool" {
					pool, err := pgxpool.New(s.context(), withSize(dsn, 1))
					require.NoError(t, err)
					t.Cleanup(pool.Close)
					p.PgxTxBeginner = pool
					test(t, s, proxy, overriddenPgxPool{embeddedPgxPool{pool}, p}, p, nil)
					return
				}
				told := 0
				pool := newPool(s, dsn, retrypg.WithHooks(retrypg.Hooks{CommitUnknown: func(context.Context, *retrypg.CommitUnknownError) { told++ }}))
				p.PgxTxBeginner = pool
				test(t, s, proxy, overriddenPool{embeddedPool{pool}, p}, p, &told)
			})
		}
	}
}

func TestOverriddenBeginTxBeginsEveryAttempt(t *testing.T) {
	eachOverridden(t, func(t *testing.T, s *stage, _ *pgtest.Proxy, db retrypg.PgxTxBeginner, p *tenants, _ *int) {
		runs := 0
		require.NoError(t, retrypg.WithPgxTx(s.context(), db, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			runs++
			w := pgxWork{tx}
			tenant, err := w.value(ctx, "select current_setting('retrypg.tenant', true)")
			require.NoError(t, err)
			require.Equal(t, "shop", tenant)
			require.NoError(t, insert(ctx, w, "a"))
			if runs < 3 {
				return w.exec(ctx, conflict)
			}
			return retrypg.WithPgxTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
				return insert(ctx, pgxWork{tx}, "b")
			})
		}))
		require.Equal(t, 3, runs)
		require.Equal(t, 3, p.begins, "the nested call is in the same transaction")
		require.Equal(t, 1, s.notes("a"))
		require.Equal(t, 1, s.notes("b"))
	})
}

// TestLostCommitOfAnOverriddenBeginTxIsSettledOrUnknown: a transaction that a Pool began below is retrypg's own; of another
// only its error is seen.
func TestLostCommitOfAnOverriddenBeginTxIsSettledOrUnknown(t *testing.T) {
	eachOverridden(t, func(t *testing.T, s *stage, proxy *pgtest.Proxy, db retrypg.PgxTxBeginner, p *tenants, told *int) {
		proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		err := retrypg.WithPgxTx(s.context(), db, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			return insert(ctx, pgxWork{tx}, "a")
		})
		if told != nil {
			require.NoError(t, err)
			require.Zero(t, *told)
		} else {
			require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
		}
		require.Equal(t, 1, p.begins)
		require.Equal(t, 1, s.notes("a"))
	})
}

func TestClosureOfAnOverriddenBeginTxThatEndsItsTransactionIsAnError(t *testing.T) {
	eachOverridden(t, func(t *testing.T, s *stage, _ *pgtest.Proxy, db retrypg.PgxTxBeginner, p *tenants, _ *int) {
		for id, commit := range map[string]func(ctx context.Context, tx pgx.Tx) error{
			"method": func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) },
			"text":   func(ctx context.Context, tx pgx.Tx) error { return pgxWork{tx}.exec(ctx, "commit") },
		} {
			p.begins = 0
			err := retrypg.WithPgxTx(s.context(), db, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
				require.NoError(t, insert(ctx, pgxWork{tx}, id))
				return commit(ctx, tx)
			})
			require.ErrorIs(t, err, retrypg.ErrTxEnded, id)
			require.Equal(t, 1, p.begins)
			require.Equal(t, 1, s.notes(id))
		}
	})
}

// TestRollbackOfATransactionOfTheUsersIsBounded: its server may hang, and the caller's context has ended.
func TestRollbackOfATransactionOfTheUsersIsBounded(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithCancel(t.Context())
	db := &double{}
	err := retrypg.WithPgxTx(ctx, db, retrypg.TxOptions{}, func(context.Context, pgx.Tx) error {
		cancel()
		return context.Canceled
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, db.rollbacks)
	require.True(t, db.bounded, "Rollback may take for ever")
	require.NoError(t, db.ended, "Rollback was called with a context that has ended")
}

// double stands in for a pool and for its transaction.
type double struct {
	pgx.Tx
	rollbacks int
	bounded   bool
	ended     error
}

func (d *double) BeginTx(context.Context, pgx.TxOptions) (pgx.Tx, error) { return d, nil }

func (d *double) Conn() *pgx.Conn { return nil }

func (d *double) Rollback(ctx context.Context) error {
	d.rollbacks++
	_, d.bounded = ctx.Deadline()
	d.ended = ctx.Err()
	return nil
}
