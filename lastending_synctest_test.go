package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

func TestNothingIsSentInATransactionBehindItsLastStatement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		err := WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			require.NoError(t, update(ctx, tx))
			require.NoError(t, update(LastStatement(ctx), tx))
			before := s.Queries()
			_, err := tx.ExecContext(ctx, "delete from t")
			require.ErrorIs(t, err, ErrTxEnded)
			_, err = tx.QueryContext(ctx, "delete from t") //nolint:rowserrcheck,sqlclosecheck // there are no rows
			require.ErrorIs(t, err, ErrTxEnded)
			_, err = tx.PrepareContext(ctx, "delete from t") //nolint:sqlclosecheck // there is no statement
			require.ErrorIs(t, err, ErrTxEnded)
			nested := WithTx(ctx, db, TxOptions{}, update)
			require.ErrorIs(t, nested, ErrTxEnded)
			require.Equal(t, before, s.Queries())
			return nil
		})
		require.ErrorIs(t, err, ErrTxEnded)
		require.Equal(t, OutcomeCommitted, Classify(err).Outcome, "the nested call was to be a part of it")
	})
	synctest.Test(t, func(t *testing.T) {
		pool, s := lazyPool(t, nil)
		require.NoError(t, WithPgxTx(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, firstInsert)
			require.NoError(t, err)
			savepoint, err := tx.Begin(ctx)
			require.NoError(t, err)
			los := tx.LargeObjects()
			_, err = tx.Exec(LastStatement(ctx), lastInsert)
			require.NoError(t, err)
			before := s.Queries()
			for name, f := range map[string]func() error{
				"Exec":     func() error { _, err := tx.Exec(ctx, "delete from t"); return err },
				"Query":    func() error { _, err := tx.Query(ctx, "delete from t"); return err }, //nolint:sqlclosecheck // there are no rows
				"QueryRow": func() error { return tx.QueryRow(ctx, "delete from t").Scan() },
				"Prepare":  func() error { _, err := tx.Prepare(ctx, "d", "delete from t"); return err },
				"Begin":    func() error { _, err := tx.Begin(ctx); return err },
				"CopyFrom": func() error {
					_, err := tx.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"v"}, pgx.CopyFromRows(nil))
					return err
				},
				"Batch": func() error {
					b := &pgx.Batch{}
					b.Queue("delete from t")
					return tx.SendBatch(ctx, b).Close()
				},
				"savepoint": func() error { return savepoint.Commit(ctx) },
			} {
				require.ErrorIs(t, f(), ErrTxEnded, name)
			}
			for _, los := range []pgx.LargeObjects{los, tx.LargeObjects()} {
				require.Error(t, los.Unlink(ctx, 1))
			}
			require.Equal(t, before, s.Queries())
			return nil
		}))
	})
}

func TestAClosureThatFailsBehindItsLastStatementIsToldThatItIsCommitted(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		late := errors.New("too late")
		for _, failure := range []error{late, &pgconn.PgError{Code: "40001", Severity: "ERROR", Routine: "test"}} {
			s, err := way(t, nil, TxOptions{}, func(ctx context.Context, exec execution) error {
				require.NoError(t, twoInserts(args)(ctx, exec))
				return failure
			})
			require.ErrorIs(t, err, ErrTxEnded)
			require.ErrorIs(t, err, failure)
			require.Equal(t, OutcomeCommitted, Classify(err).Outcome)
			require.Equal(t, []int{1, 1, 0}, []int{ran(s, "begin"), ran(s, "commit"), ran(s, "rollback")})
		}
	})
}

func TestAPanicBehindTheLastStatementGoesOnAndNothingIsRolledBack(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		require.PanicsWithValue(t, "late", func() {
			_, _ = way(t, func(_ *script.Session, sql string) script.Result {
				require.NotEqual(t, "rollback", sql)
				return script.Result{}
			}, TxOptions{}, func(ctx context.Context, exec execution) error {
				require.NoError(t, twoInserts(args)(ctx, exec))
				panic("late")
			})
		})
	})
}

func TestAClosureThatEndsItsTransactionBehindItsLastStatementIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		pool, p := lazyPool(t, nil)
		for _, commits := range []bool{true, false} {
			require.ErrorIs(t, WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				require.NoError(t, update(ctx, tx))
				require.NoError(t, update(LastStatement(ctx), tx))
				if commits {
					return tx.Commit()
				}
				require.ErrorIs(t, tx.Rollback(), ErrTxEnded)
				return nil
			}), ErrTxEnded)
			require.ErrorIs(t, WithPgxTx(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
				for _, ctx := range []context.Context{ctx, LastStatement(ctx)} {
					_, err := tx.Exec(ctx, lastInsert)
					require.NoError(t, err)
				}
				if commits {
					return tx.Commit(ctx)
				}
				require.ErrorIs(t, tx.Rollback(ctx), ErrTxEnded)
				return nil
			}), ErrTxEnded)
		}
		require.Equal(t, []int{2, 2, 0}, []int{ran(s, "commit"), ran(p, "commit"), ran(s, "rollback") + ran(p, "rollback")})
	})
}

func TestLargeObjectsThatAreAskedForBehindTheLastStatementDoNotWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, s := lazyPool(t, nil)
		require.NoError(t, WithPgxTx(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			for _, ctx := range []context.Context{ctx, LastStatement(ctx)} {
				_, err := tx.Exec(ctx, lastInsert)
				require.NoError(t, err)
			}
			before := s.Queries()
			los := tx.LargeObjects()
			require.Error(t, los.Unlink(ctx, 1))
			require.Equal(t, before, s.Queries())
			return nil
		}))
	})
}
