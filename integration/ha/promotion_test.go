//go:build ha && linux

package ha_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// TestTransactionThatBeganBeforeAPromotionIsRunAgain: it stays read-only although its server has become the primary, which
// the server says together with the error. HAProxy leads to a server in this moment: Patroni counts it as the primary while
// it is being promoted.
func TestTransactionThatBeganBeforeAPromotionIsRunAgain(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for _, api := range []string{"WithTx", "WithPgxTx"} {
		t.Run(api, func(t *testing.T) {
			leak.Check(t)
			primary := pgt.New(t, pgtest.Options{Name: "one"})
			require.NoError(t, primary.Exec(ctx, "create table entry (id int not null)"))
			standby := pgt.Standby(t, primary, pgtest.Options{Name: "two"})
			require.NoError(t, standby.WaitReplayed(ctx, primary))

			runs := 0
			closure := func(exec func() error) error {
				if runs++; runs == 1 {
					if err := standby.Promote(ctx); err != nil {
						return err
					}
				}
				return exec()
			}
			const insert = "insert into entry values (1)"
			if api == "WithTx" {
				db, err := retrypg.OpenDB(standby.DSN())
				require.NoError(t, err)
				defer func() { _ = db.Close() }()
				require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
					return closure(func() error { _, err := tx.ExecContext(ctx, insert); return err })
				}))
			} else {
				pool, err := retrypg.NewPool(ctx, standby.DSN())
				require.NoError(t, err)
				defer pool.Close()
				require.NoError(t, retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
					return closure(func() error { _, err := tx.Exec(ctx, insert); return err })
				}))
			}
			n, err := standby.Value(ctx, "select count(*) from entry")
			require.NoError(t, err)
			require.Equal(t, []any{2, "1"}, []any{runs, n}, "runs, entries")
		})
	}
}
