package retrypg

import (
	"context"
	"database/sql"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAQueryThatIsRewrittenIsNotReadAgain(t *testing.T) {
	eachBank(t, snapshots, func(t *testing.T, b *bank, opts TxOptions) {
		_, err := b.plain.Exec(t.Context(), "drop sequence if exists ticket; create sequence ticket")
		require.NoError(t, err)
		b.teach(opts)
		h := b.hold(opts)
		attempts := 0
		done := b.started(b.context(), opts, func(ctx context.Context, tx bankTx) error {
			attempts++
			if _, err := tx.value(ctx, "select 'a plain read'", rewriter("select nextval('ticket')::text")); err != nil {
				return err
			}
			return tx.exec(ctx, addOne, 1)
		})
		require.NoError(t, h.end(nil))
		require.NoError(t, <-done)
		require.Equal(t, 2, attempts, "its snapshot was kept, and was too old")
		require.Equal(t, "2", b.ask("select last_value from ticket"), "one for each run of the closure")
		b.atRest(opts)
	})
}

func TestAQueryThatFailedOnThisSideAndWasPassedOverDoesNotFailTheTransaction(t *testing.T) {
	eachBank(t, snapshots, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		attempts := 0
		done := b.started(b.context(), opts, func(ctx context.Context, tx bankTx) error {
			if _, err := tx.value(ctx, "select balance::text from account where id = $1 limit $2", 2, struct{}{}); err == nil {
				t.Error("it was to fail")
			}
			return waiter(&attempts, noteSeen)(ctx, tx)
		})
		require.NoError(t, h.end(nil))
		require.NoError(t, <-done)
		require.LessOrEqual(t, attempts, 2)
		require.Equal(t, "102 100: 100", b.balances())
		b.atRest(opts)
	})
}

func TestTheCommitOfATransactionThatBeganAgainIsAskedAboutByItsOwnId(t *testing.T) {
	eachBank(t, snapshots, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		attempts, own := 0, ""
		var l *link
		done := b.started(b.context(), opts, waiter(&attempts, func(ctx context.Context, tx bankTx, _ string) (err error) {
			switch tx := scopeFrom(ctx).tx.(type) {
			case *pgxTx:
				l = tx.link
			case *sqlTx:
				l = tx.record.session.link
			}
			own, err = tx.value(ctx, "select pg_current_xact_id()::text")
			return err
		}))
		require.NoError(t, h.end(nil))
		require.NoError(t, <-done)
		require.Equal(t, 1, attempts)
		// With a BEGIN that does not wait the id is read just before COMMIT.
		require.Equal(t, own, strconv.FormatUint(l.tx.begun.XID, 10))
	})
}

func TestNothingIsPreparedInATransactionThatMustNotCommit(t *testing.T) {
	eachBank(t, allLevels, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		ctx, cancel := context.WithCancel(b.context())
		attempts := 0
		done := b.started(ctx, opts, func(ctx context.Context, tx bankTx) error {
			err := waiter(&attempts, noteSeen)(ctx, tx)
			require.ErrorIs(t, err, context.Canceled)
			switch tx := tx.(type) {
			case sqlBankTx:
				var stmt *sql.Stmt
				if stmt, err = tx.PrepareContext(t.Context(), readAccount); err == nil {
					defer stmt.Close()
				}
			case pgxBankTx:
				_, err = tx.Prepare(t.Context(), "reads", readAccount)
			}
			require.Error(t, err)
			return nil
		})
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.NoError(t, h.end(nil))
		b.atRest(opts)
	})
}
