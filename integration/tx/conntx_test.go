package tx_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// TestTransactionOfAPoolDoesWhatPgxDoes, and refuses to work once it has ended: its connection is somebody else's then.
func TestTransactionOfAPoolDoesWhatPgxDoes(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		ctx := s.context()
		tx, err := pool.Begin(ctx)
		require.NoError(t, err)
		require.NotNil(t, tx.Conn())
		_, err = tx.Prepare(ctx, "by_id", "select id from note where id = $1")
		require.NoError(t, err)
		_, err = tx.Exec(ctx, "insert into note (id) values ('exec')")
		require.NoError(t, err)
		n, err := tx.CopyFrom(ctx, pgx.Identifier{"note"}, []string{"id"}, pgx.CopyFromRows([][]any{{"copy"}}))
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		batch := &pgx.Batch{}
		batch.Queue("insert into note (id) values ('batch')")
		batch.Queue("select id from note where id = 'exec'")
		require.NoError(t, tx.SendBatch(ctx, batch).Close())

		beginning := &pgx.Batch{}
		beginning.BeginTx(pgx.TxOptions{})
		require.ErrorContains(t, tx.SendBatch(ctx, beginning).Close(), "within a transaction")

		var id string
		require.NoError(t, tx.QueryRow(ctx, "by_id", "exec").Scan(&id))
		rows, err := tx.Query(ctx, "select id from note order by id")
		require.NoError(t, err)
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.Equal(t, []string{"batch", "copy", "exec"}, ids)

		outer, err := tx.Begin(ctx)
		require.NoError(t, err)
		_, err = outer.Exec(ctx, "insert into note (id) values ('outer')")
		require.NoError(t, err)
		inner, err := outer.Begin(ctx)
		require.NoError(t, err)
		_, err = inner.Exec(ctx, "insert into note (id) values ('inner')")
		require.NoError(t, err)
		_, err = inner.Exec(ctx, "no such statement")
		require.Error(t, err)
		require.NoError(t, inner.Rollback(ctx))
		refused(ctx, t, inner)
		require.NoError(t, outer.Commit(ctx))
		refused(ctx, t, outer)
		require.ErrorIs(t, outer.Rollback(ctx), pgx.ErrTxClosed)

		objects := tx.LargeObjects()
		oid, err := objects.Create(ctx, 0)
		require.NoError(t, err)
		object, err := objects.Open(ctx, oid, pgx.LargeObjectModeWrite)
		require.NoError(t, err)
		_, err = object.Write([]byte("large"))
		require.NoError(t, err)
		require.NoError(t, object.Close())

		open, err := tx.Begin(ctx)
		require.NoError(t, err)
		require.NoError(t, tx.Commit(ctx))
		refused(ctx, t, tx)
		refused(ctx, t, open)
		_, err = objects.Create(ctx, 0)
		require.ErrorIs(t, err, pgx.ErrTxClosed)
		require.Equal(t, []int{1, 1, 1, 1, 0}, []int{s.notes("exec"), s.notes("copy"), s.notes("batch"), s.notes("outer"), s.notes("inner")})
		require.Equal(t, "large", s.ask("select convert_from(lo_get($1::oid), 'UTF8')", oid))
	})
}

// refused requires everything to say that the transaction has ended.
func refused(ctx context.Context, t *testing.T, tx pgx.Tx) {
	t.Helper()
	_, err := tx.Exec(ctx, "select 1")
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	rows, err := tx.Query(ctx, "select 1")
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	rows.Close()
	require.ErrorIs(t, tx.QueryRow(ctx, "select 1").Scan(new(int)), pgx.ErrTxClosed)
	_, err = tx.Prepare(ctx, "", "select 1")
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"note"}, []string{"id"}, pgx.CopyFromRows(nil))
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	batch := &pgx.Batch{}
	batch.Queue("select 1")
	require.ErrorIs(t, tx.SendBatch(ctx, batch).Close(), pgx.ErrTxClosed)
	_, err = tx.Begin(ctx)
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	require.ErrorIs(t, tx.Commit(ctx), pgx.ErrTxClosed)
	require.ErrorIs(t, tx.Rollback(ctx), pgx.ErrTxClosed)
}
