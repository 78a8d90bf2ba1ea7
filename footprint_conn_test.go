package retrypg

import (
	"bytes"
	"context"
	"database/sql"
	"net"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// onConn makes the bank work on one connection of database/sql, which is returned.
func (b *bank) onConn(opts ...Option) *sql.Conn {
	b.t.Helper()
	db, err := OpenDB(b.plain.Config().ConnString(), opts...)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(b.t.Context())
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = conn.Close() })
	b.over(conn)
	return conn
}

func TestATransactionOfTheCallersOwnOnAConnectionIsNotRolledBackByBeginTx(t *testing.T) {
	eachBank(t, snapshots[:1], func(t *testing.T, b *bank, _ TxOptions) {
		ctx, conn := b.context(), b.onConn()
		_, err := conn.ExecContext(ctx, "begin")
		require.NoError(t, err)
		_, err = conn.ExecContext(ctx, note, "kept")
		require.NoError(t, err)
		tx, err := conn.BeginTx(ctx, nil) // the server warns, and goes on with the one that is open
		require.NoError(t, err)
		_, err = tx.ExecContext(ctx, note, "too")
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		require.Equal(t, "100 100: kept too", b.balances())
	})
}

func TestAFootprintDoesNotOutliveItsAttemptOnTheConnection(t *testing.T) {
	eachBank(t, allLevels, func(t *testing.T, b *bank, opts TxOptions) {
		h := b.holdsElsewhere(opts)
		conn := b.onConn()
		b.core.contention = h.core.contention // of one handle
		ctx, cancel := context.WithCancel(b.context())
		attempts := 0
		done := b.started(ctx, opts, waiter(&attempts, noteSeen))
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		// It is rolled back by now, although database/sql does that on a goroutine of its own.
		for _, sql := range []string{"begin", "insert into journal values ('kept')", "commit"} {
			_, err := conn.ExecContext(b.context(), sql)
			require.NoError(t, err, sql)
		}
		require.NoError(t, h.end(nil))
		require.Equal(t, "101 100: kept", b.balances())
	})
}

// noRollback spoils every ROLLBACK that is written to it.
type noRollback struct{ net.Conn }

func (c noRollback) Write(p []byte) (int, error) {
	return c.Conn.Write(bytes.ReplaceAll(p, []byte("rollback"), []byte("rollbock")))
}

// TestAConnectionOfTheCallersWhoseRollbackIsRefusedIsGivenUp: what would follow would be in the old transaction.
func TestAConnectionOfTheCallersWhoseRollbackIsRefusedIsGivenUp(t *testing.T) {
	eachBank(t, snapshots, func(t *testing.T, b *bank, opts TxOptions) {
		h := b.holdsElsewhere(opts)
		conn := b.onConn(WithConnConfig(func(cfg *pgx.ConnConfig) error {
			dial := cfg.DialFunc
			cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				nc, err := dial(ctx, network, addr)
				return noRollback{nc}, err
			}
			return nil
		}))
		b.core.contention = h.core.contention // of one handle
		attempts := 0
		err := b.run(b.context(), opts, waiter(&attempts, noteSeen))
		require.Equal(t, "42601", SQLState(err), "%v", err)
		require.Equal(t, 1, attempts, "there is no other connection to run it on")
		require.Error(t, conn.PingContext(b.context()))
		require.NoError(t, h.end(nil))
		require.Equal(t, "101 100: ", b.balances())
	})
}

// elsewhere is a holder on another handle than the bank's.
type elsewhere struct {
	*holder
	core *core
}

func (b *bank) holdsElsewhere(opts TxOptions) elsewhere {
	b.t.Helper()
	b.teach(opts)
	return elsewhere{b.hold(opts), b.core}
}

// TestAStatementThatIsPreparedFirstDoesNotKeepTheOldSnapshot: to prepare a statement the server takes one.
func TestAStatementThatIsPreparedFirstDoesNotKeepTheOldSnapshot(t *testing.T) {
	eachBank(t, snapshots, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		attempts := 0
		done := b.started(b.context(), opts, func(ctx context.Context, tx bankTx) error {
			attempts++
			switch tx := tx.(type) {
			case sqlBankTx:
				stmt, err := tx.PrepareContext(ctx, readAccount)
				if err != nil {
					return err
				}
				defer stmt.Close()
			case pgxBankTx:
				if _, err := tx.Prepare(ctx, readAccount, readAccount); err != nil {
					return err
				}
			}
			if err := tx.exec(ctx, addOne, 1); err != nil {
				return err
			}
			seen, err := tx.value(ctx, readAccount, 1)
			if err != nil {
				return err
			}
			return tx.exec(ctx, note, seen)
		})
		require.NoError(t, h.end(nil))
		require.NoError(t, <-done)
		require.Equal(t, 1, attempts)
		require.Equal(t, "102 100: 102", b.balances())
		b.atRest(opts)
	})
}

func TestABatchThatHasToWaitIsSentOnceAndBeginsNothingAnew(t *testing.T) {
	eachBank(t, snapshots, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		attempts := 0
		done := b.started(b.context(), opts, func(ctx context.Context, tx bankTx) error {
			attempts++
			over, ok := tx.(pgxBankTx)
			if !ok {
				return tx.exec(ctx, addOne, 1)
			}
			batch := &pgx.Batch{}
			batch.Queue(addOne, 3)
			batch.Queue(addOne, 1)
			batch.Queue(note, "batch")
			return over.SendBatch(ctx, batch).Close()
		})
		require.NoError(t, h.end(nil))
		require.NoError(t, <-done)
		require.Equal(t, 1, attempts)
		require.Contains(t, b.balances(), "102 100: ")
		b.atRest(opts)
	})
}
