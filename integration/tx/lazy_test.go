package tx_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// TestConnOfATransactionWhoseBeginIsRefusedRunsNothing: what is sent over it would stay.
func TestConnOfATransactionWhoseBeginIsRefusedRunsNothing(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		ctx := s.context()
		tx, err := pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: "bogus"}) // any ERROR of BEGIN would do
		if err != nil {
			return // it was told, as without a BEGIN that waits
		}
		_, err = tx.Conn().Exec(ctx, "insert into note (id) values ('outside')")
		_ = tx.Rollback(ctx) // the connection is gone
		require.Zero(t, s.notes("outside"), "it was rolled back; Exec said: %v", err)
	})
}

func TestATransactionWhoseBeginIsRefusedLeavesNothingThatConnHasSent(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		ctx := s.context()
		err := retrypg.WithPgxTx(ctx, refusing{pool}, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Conn().Exec(ctx, "insert into note (id) values ('outside')")
			return err
		})
		require.Error(t, err)
		require.Zero(t, s.notes("outside"), "told: %v", err)
	})
}

// refusing begins transactions whose BEGIN the server refuses.
type refusing struct{ *retrypg.Pool }

func (r refusing) BeginTx(ctx context.Context, _ pgx.TxOptions) (pgx.Tx, error) {
	return r.Pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: "bogus"})
}

// TestAConnectionGoesBackToThePoolWithoutABeginThatWaits: the next statement there would run in a transaction that nobody commits.
func TestAConnectionGoesBackToThePoolWithoutABeginThatWaits(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		ctx := s.context()
		tx, err := pool.BeginTx(ctx, pgx.TxOptions{CommitQuery: "commit and no chain"})
		require.NoError(t, err)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		require.Error(t, tx.Commit(ended))
		_, err = pool.Exec(ctx, "insert into note (id) values ('told')")
		require.NoError(t, err)
		require.Equal(t, 1, s.notes("told"), "the statement was told to have succeeded")
	})
}

// TestACopyOverConnAfterPrepareWorks: no question travels with it.
func TestACopyOverConnAfterPrepareWorks(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		ctx := s.context()
		tx, err := pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(ctx) }()
		_, err = tx.Prepare(ctx, "by_id", "select id from note where id = $1")
		require.NoError(t, err)
		_, err = tx.Conn().CopyFrom(ctx, pgx.Identifier{"note"}, []string{"id"}, pgx.CopyFromRows([][]any{{"copy"}}))
		require.NoError(t, err)
		require.NoError(t, tx.Commit(ctx))
	})
}

// TestACopyAfterAQueryThatFoundTheConnectionBusyWorks: no question travels with it.
func TestACopyAfterAQueryThatFoundTheConnectionBusyWorks(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		ctx := s.context()
		tx, err := pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(ctx) }()
		rows, err := tx.Query(ctx, "select repeat('x', 10000) from generate_series(1, 1000)")
		require.NoError(t, err)
		require.True(t, rows.Next())
		busy, err := tx.Query(ctx, "select 1")
		require.ErrorContains(t, err, "conn busy")
		busy.Close()
		rows.Close()
		require.NoError(t, rows.Err())
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"note"}, []string{"id"}, pgx.CopyFromRows([][]any{{"copy"}}))
		require.NoError(t, err)
		require.NoError(t, tx.Commit(ctx))
	})
}

// TestABatchOverTheCallersOwnConnectionIsInItsTransaction: pgx sends it past all that could carry BEGIN.
func TestABatchOverTheCallersOwnConnectionIsInItsTransaction(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		ctx := s.context()
		pooled, err := pool.Acquire(ctx)
		require.NoError(t, err)
		defer pooled.Release()
		conn := pooled.Conn()
		_ = retrypg.WithPgxTx(ctx, conn, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			b := &pgconn.Batch{}
			b.ExecParams("insert into note (id) values ('batch')", nil, nil, nil, nil)
			_, err := conn.PgConn().ExecBatch(ctx, b).ReadAll() // as SendBatch does with QueryExecModeExec
			require.NoError(t, err)
			return errors.New("roll back")
		})
		require.Zero(t, s.notes("batch"))
	})
}

// TestATextWithArgumentsThatBeginsAnotherTransactionIsNoticed: by the simple protocol it may be several statements.
func TestATextWithArgumentsThatBeginsAnotherTransactionIsNoticed(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		server := newShared(t)
		admin := newAdmin(t, server.DSN())
		s := newStage(t, server, admin, adapter{})
		ctx := s.context()
		pool, err := retrypg.NewPool(ctx, s.dsn("pool_max_conns=1"), retrypg.WithLazyBegin(lazy))
		require.NoError(t, err)
		defer pool.Close()
		err = retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "select 1; commit; begin", pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			return nil
		})
		t.Logf("lazy %v: %v", lazy, err)
		require.Error(t, err, "lazy %v", lazy)
	}
}

// TestATransactionAfterDiscardWorks: the prepared question has gone.
func TestATransactionAfterDiscardWorks(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		ctx := s.context()
		for range 20 {
			tx, err := pool.Begin(ctx)
			require.NoError(t, err)
			_, err = tx.Exec(ctx, "select 1")
			require.NoError(t, err)
			require.NoError(t, tx.Commit(ctx))
		}
		rows, err := pool.Query(ctx, "discard all", pgx.QueryExecModeExec)
		require.NoError(t, err)
		rows.Close()
		require.NoError(t, rows.Err())
		tx, err := pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(ctx) }()
		_, err = tx.Exec(ctx, "select 1")
		require.NoError(t, err)
		require.NoError(t, tx.Commit(ctx))
	})
}

func TestABatchInModeExecThatFailsAbortsTheTransaction(t *testing.T) {
	server := newShared(t)
	admin := newAdmin(t, server.DSN())
	s := newStage(t, server, admin, adapter{})
	ctx := s.context()
	pool, err := retrypg.NewPool(ctx, s.dsn("pool_max_conns=1", "default_query_exec_mode=exec"))
	require.NoError(t, err)
	defer pool.Close()
	tx, err := pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(ctx) }()
	b := &pgx.Batch{}
	b.Queue("no such statement")
	require.Error(t, tx.SendBatch(ctx, b).Close())
	err = tx.Commit(ctx)
	t.Log(err)
	require.ErrorIs(t, err, pgx.ErrTxCommitRollback)
}

func TestATransactionWorksWhereItsIdMayNotBeAskedFor(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		server := newShared(t)
		admin := newAdmin(t, server.DSN())
		_, err := admin.Exec(t.Context(), `do $$ begin create role poor login; exception when duplicate_object then end $$;
			revoke execute on function pg_catalog.pg_current_xact_id() from public`)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		pool, err := retrypg.NewPool(ctx, server.DSN("user=poor", "pool_max_conns=1"), retrypg.WithLazyBegin(lazy))
		require.NoError(t, err)
		defer pool.Close()
		tx, err := pool.Begin(ctx)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, "select 1")
		_ = tx.Rollback(ctx)
		require.NoError(t, err, "lazy %v", lazy)
	}
}
