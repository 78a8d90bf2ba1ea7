package commit_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

var nothing = func(context.Context, *sql.Tx) error { return nil }

// TestLedgerIsMadeOnDemandByWhoeverComesFirst: many connections need it in the same moment.
func TestLedgerIsMadeOnDemandByWhoeverComesFirst(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	_, err := s.admin.Exec(ctx, `create schema "App"`)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 10 {
		db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(retrypg.Ledger), retrypg.WithLedgerTable("App.Commits"))
		wg.Go(func() {
			tx, err := db.BeginTx(ctx, nil)
			if err == nil {
				err = tx.Commit()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var n int
	require.NoError(t, s.admin.QueryRow(ctx, `select count(*) from "App"."Commits"`).Scan(&n))
	require.Equal(t, 10, n)
}

// TestLedgerHoldsATokenOfCommittedTransactionsOnly.
func TestLedgerHoldsATokenOfCommittedTransactionsOnly(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(retrypg.Ledger))
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, insertOne("a")))
	require.Error(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(context.Context, *sql.Tx) error { return context.Canceled }))
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{ReadOnly: true}, nothing))
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{Commit: retrypg.XID}, nothing))
	var n int
	require.NoError(t, s.admin.QueryRow(ctx, "select count(*) from public.retrypg_ledger").Scan(&n))
	require.Equal(t, 1, n)
}

func TestLedgerThatMayNotBeWrittenIsAnErrorThatSaysWhatIsMissing(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	_, err := s.admin.Exec(ctx, "drop role if exists reader; create role reader login; grant all on item to reader")
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := s.admin.Exec(context.Background(), "drop owned by reader; drop role reader")
		require.NoError(t, err)
	})
	db := openDB(t, withKey(s.dsn, "user", "reader"), retrypg.Hooks{}, retrypg.WithCommitCheck(retrypg.Ledger))
	for _, prepare := range []string{
		"revoke create on schema public from public",
		`create table public.retrypg_ledger (begun bigint not null default (extract(epoch from transaction_timestamp()) * 1000000)::bigint, keep bigint not null, token uuid not null, primary key (begun, token))`,
	} {
		_, err := s.admin.Exec(ctx, prepare)
		require.NoError(t, err)
		err = retrypg.WithTx(ctx, db, retrypg.TxOptions{}, insertOne("a"))
		require.Equal(t, "42501", retrypg.SQLState(err), "%v", err)
		require.ErrorContains(t, err, "create table if not exists")
		require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{Commit: retrypg.XID}, insertOne("b")), "the connection is ready for other work")
	}
	_, err = s.admin.Exec(ctx, "grant select, insert, delete on public.retrypg_ledger to reader")
	require.NoError(t, err)
	s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, insertOne("c")))
	require.Equal(t, []int{0, 2, 1}, []int{s.items("a"), s.items("b"), s.items("c")})
}

// TestOldTokensAreDeletedInTheCourseOfNormalUse: by every thousandth transaction.
func TestOldTokensAreDeletedInTheCourseOfNormalUse(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(retrypg.Ledger), retrypg.WithLedgerRetention(retrypg.DefaultLedgerRetention))
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, nothing))
	_, err := s.admin.Exec(ctx, `insert into public.retrypg_ledger
		select (extract(epoch from now() - interval '2 hours') * 1000000)::bigint, 3600000000, gen_random_uuid() from generate_series(1, 2500)`)
	require.NoError(t, err)
	rows := func() (n int) {
		require.NoError(t, s.admin.QueryRow(ctx, "select count(*) from public.retrypg_ledger").Scan(&n))
		return n
	}
	for range 998 {
		require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, nothing))
	}
	require.Equal(t, 999+2500, rows())
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, nothing))
	require.Equal(t, 1000+500, rows(), "the thousandth one deletes up to two thousand")
}

func TestLedgerNeedsADatabaseThatItCanBeWrittenTo(t *testing.T) {
	s := newScene(t)
	db, err := sql.Open("pgx", s.dsn)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	ran := false
	err = retrypg.WithTx(t.Context(), db, retrypg.TxOptions{Commit: retrypg.Ledger}, func(context.Context, *sql.Tx) error {
		ran = true
		return nil
	})
	require.ErrorContains(t, err, "needs a database of retrypg's own driver")
	require.False(t, ran)
	require.ErrorContains(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{Commit: 9}, nothing), "XID, Ledger or NoCheck")
	for _, opt := range []retrypg.Option{
		retrypg.WithCommitCheck(0), retrypg.WithCommitCheck(9), retrypg.WithLedgerTable("ledger"), retrypg.WithLedgerRetention(1),
		retrypg.WithCommitCheckMaxElapsed(-1),
	} {
		_, err := retrypg.NewConnector(s.dsn, opt)
		require.Error(t, err)
	}
}

// TestOptionsOfATransactionWinOverThoseOfTheConnector.
func TestOptionsOfATransactionWinOverThoseOfTheConnector(t *testing.T) {
	s := newScene(t)
	for i, tc := range []struct {
		connector, transaction retrypg.CommitCheck
		settled                bool
	}{
		{retrypg.NoCheck, retrypg.XID, true},
		{retrypg.NoCheck, retrypg.Ledger, true},
		{retrypg.XID, retrypg.NoCheck, false},
		{retrypg.Ledger, retrypg.XID, true},
	} {
		id := fmt.Sprint(i)
		db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(tc.connector))
		require.NoError(t, db.PingContext(t.Context()))
		s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		err := retrypg.WithTx(t.Context(), db, retrypg.TxOptions{Commit: tc.transaction}, insertOne(id))
		if tc.settled {
			require.NoError(t, err, id)
		} else {
			require.ErrorIs(t, err, retrypg.ErrCommitUnknown, id)
		}
		require.Equal(t, 1, s.items(id))
	}
}
