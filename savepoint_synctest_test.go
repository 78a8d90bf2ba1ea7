package retrypg

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestAConflictInANestedTransactionRunsTheOutermostAgainEvenIfSwallowed(t *testing.T) {
	for _, swallow := range []bool{false, true} {
		t.Run(fmt.Sprintf("swallowed %v", swallow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, failing("update", 2, conflictError()))
				outer, inner := 0, 0
				err := WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, _ *sql.Tx) error {
					outer++
					err := WithTx(ctx, db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
						inner++
						require.Equal(t, outer, AttemptFromContext(ctx))
						return update(ctx, tx)
					})
					if swallow {
						return nil
					}
					return err
				})
				require.NoError(t, err)
				require.Equal(t, 3, outer)
				require.Equal(t, 3, inner)
				require.Equal(t, 3, ran(s, "begin"))
				require.Equal(t, 1, ran(s, "commit"))
				require.Zero(t, ran(s, "rollback to"))
			})
		})
	}
}

func TestAnErrorOfANestedTransactionRollsBackToItsSavepoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("insert", 1, serverError("23505", "duplicate key")))
		err := WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, _ *sql.Tx) error {
			err := WithTx(ctx, db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "insert into t values (1)")
				return err
			})
			require.Equal(t, "23505", SQLState(err))
			return WithTx(ctx, db, TxOptions{}, update)
		})
		require.NoError(t, err)
		require.Equal(t, []string{
			"begin", "savepoint retrypg_1", "insert into t values (1)", "rollback to savepoint retrypg_1",
			"release savepoint retrypg_1", "savepoint retrypg_2", "update t set v = v", "release savepoint retrypg_2", "commit",
		}, s.Queries())
	})
}

func TestANestedTransactionHasNoOptionsOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := scriptedFor(t, nil)
		for _, opts := range []TxOptions{{ReadOnly: true}, {Isolation: sql.LevelSerializable}, {Deferrable: true}} {
			err := WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, _ *sql.Tx) error {
				return WithTx(ctx, db, opts, update)
			})
			require.ErrorIs(t, err, ErrNestedOptions)
		}
	})
}
