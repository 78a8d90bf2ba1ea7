package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	snapshots = []sql.IsolationLevel{sql.LevelRepeatableRead, sql.LevelSerializable}
	committed = []sql.IsolationLevel{sql.LevelReadCommitted}
	allLevels = []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable}

	errRollBack = errors.New("roll back")
)

// waiter reads account 2, and adds one to account 1, for which it has to wait.
func waiter(attempts *int, behind func(ctx context.Context, tx bankTx, seen string) error) bankClosure {
	return func(ctx context.Context, tx bankTx) error {
		*attempts++
		seen, err := tx.value(ctx, readAccount, 2)
		if err != nil {
			return err
		}
		if err := tx.exec(ctx, addOne, 1); err != nil {
			return err
		}
		return behind(ctx, tx, seen)
	}
}

func noteSeen(ctx context.Context, tx bankTx, seen string) error { return tx.exec(ctx, note, seen) }

// started runs a transaction that is to wait.
func (b *bank) started(ctx context.Context, opts TxOptions, fn bankClosure) <-chan error {
	done := make(chan error, 1)
	go func() { done <- b.run(ctx, opts, fn) }()
	b.waiting(1)
	return done
}

func TestATransactionThatHadToWaitGoesOnInANewSnapshotWhereWhatItReadIsUnchanged(t *testing.T) {
	eachBank(t, snapshots, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		attempts := 0
		done := b.started(b.context(), opts, waiter(&attempts, func(ctx context.Context, tx bankTx, seen string) error {
			one, err := tx.value(ctx, readAccount, 1)
			if err != nil {
				return err
			}
			return tx.exec(ctx, note, seen+","+one)
		}))
		require.NoError(t, h.end(nil))
		require.NoError(t, <-done)
		require.Equal(t, 1, attempts)
		require.Equal(t, "102 100: 100,102", b.balances(), "it sees what the other one did")
		b.atRest(opts)
	})
}

func TestATransactionThatHadToWaitIsRunAgainWhereWhatItReadWasChanged(t *testing.T) {
	eachBank(t, snapshots, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		attempts := 0
		done := b.started(b.context(), opts, waiter(&attempts, noteSeen))
		_, err := b.plain.Exec(t.Context(), addOne, 2)
		require.NoError(t, err)
		require.NoError(t, h.end(nil))
		require.NoError(t, <-done)
		require.Equal(t, 2, attempts)
		require.Equal(t, "102 101: 101", b.balances())
		b.atRest(opts)
	})
}

func TestAClosureThatHidesThatWhatItReadWasChangedCommitsNothing(t *testing.T) {
	eachBank(t, snapshots, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		for name, end := range map[string]bankClosure{
			"nil": func(context.Context, bankTx) error { return nil },
			"commit": func(ctx context.Context, tx bankTx) error {
				if over, ok := tx.(pgxBankTx); ok {
					_, err := over.Conn().Exec(ctx, note, "past the transaction")
					require.NoError(t, err)
				}
				return tx.commit(ctx)
			},
		} {
			h := b.hold(opts)
			attempts := 0
			once := opts
			once.MaxAttempts = 1
			done := b.started(b.context(), once, func(ctx context.Context, tx bankTx) error {
				err := waiter(&attempts, noteSeen)(ctx, tx)
				require.Equal(t, "40001", SQLState(err))
				require.Error(t, tx.exec(ctx, note, "more"))
				_, err = tx.value(ctx, readAccount, 2)
				require.Error(t, err)
				return end(ctx, tx)
			})
			_, err := b.plain.Exec(t.Context(), addOne, 2)
			require.NoError(t, err)
			require.ErrorIs(t, h.end(errRollBack), errRollBack)
			require.Equal(t, "40001", SQLState(<-done), name)
			require.Equal(t, 1, attempts)
			require.Equal(t, "", b.ask("select coalesce(string_agg(entry, ''), '') from journal"))
			b.atRest(opts)
		}
	})
}

func TestAReadCommittedTransactionWaitsWithoutBeginningAgain(t *testing.T) {
	eachBank(t, committed, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		attempts := 0
		const id = "select pg_current_xact_id()::text"
		done := b.started(b.context(), opts, func(ctx context.Context, tx bankTx) error {
			before, err := tx.value(ctx, id)
			if err != nil {
				return err
			}
			return waiter(&attempts, func(ctx context.Context, tx bankTx, seen string) error {
				after, err := tx.value(ctx, id)
				require.Equal(t, before, after)
				return errors.Join(err, noteSeen(ctx, tx, seen))
			})(ctx, tx)
		})
		_, err := b.plain.Exec(t.Context(), addOne, 2)
		require.NoError(t, err)
		require.NoError(t, h.end(nil))
		require.NoError(t, <-done)
		require.Equal(t, 1, attempts)
		require.Equal(t, "102 101: 100", b.balances())
		b.atRest(opts)
	})
}

// TestOfTwoThatWouldWaitForEachOtherOneIsRunAgain: neither waits until the server looks for the deadlock.
func TestOfTwoThatWouldWaitForEachOtherOneIsRunAgain(t *testing.T) {
	eachBank(t, allLevels, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		var met, work sync.WaitGroup
		met.Add(2)
		var mu sync.Mutex
		attempts := 0
		for _, order := range [][]int{{1, 2}, {2, 1}} {
			work.Go(func() {
				err := b.run(b.context(), opts, func(ctx context.Context, tx bankTx) error {
					mu.Lock()
					attempts++
					mu.Unlock()
					for i, account := range order {
						if err := tx.exec(ctx, addOne, account); err != nil {
							return err
						}
						if i == 0 && AttemptFromContext(ctx) == 1 {
							met.Done()
							met.Wait()
						}
					}
					return tx.exec(ctx, note, "x")
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
		require.Equal(t, "102 102: x x", b.balances())
		require.LessOrEqual(t, attempts, 4)
		require.GreaterOrEqual(t, attempts, 3)
		b.atRest(opts)
	})
}

func TestATransactionThatHasWrittenIsRunAgainRatherThanBegunAgain(t *testing.T) {
	eachBank(t, snapshots, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		attempts := 0
		done := b.started(b.context(), opts, func(ctx context.Context, tx bankTx) error {
			attempts++
			if err := tx.exec(ctx, note, "once"); err != nil {
				return err
			}
			return tx.exec(ctx, addOne, 1)
		})
		require.NoError(t, h.end(nil))
		require.NoError(t, <-done)
		require.Equal(t, 2, attempts)
		require.Equal(t, "102 100: once", b.balances())
		b.atRest(opts)
	})
}

func TestATransactionWhoseContextEndsWhileItWaitsLeavesNothingWhateverItsClosureDoes(t *testing.T) {
	eachBank(t, allLevels, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		ctx, cancel := context.WithCancel(b.context())
		attempts := 0
		done := b.started(ctx, opts, func(ctx context.Context, tx bankTx) error {
			err := waiter(&attempts, noteSeen)(ctx, tx)
			require.ErrorIs(t, err, context.Canceled)
			_ = tx.exec(t.Context(), note, "outside")
			_, _ = tx.value(t.Context(), "insert into journal values ('outside') returning entry")
			_ = tx.exec(LastStatement(t.Context()), note, "last")
			return nil
		})
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.Equal(t, 1, attempts)
		require.Equal(t, "100 100: ", b.balances())
		require.NoError(t, h.end(nil))
		require.Equal(t, "101 100: ", b.balances())
		b.atRest(opts)
	})
}

func TestATransactionWhoseConnectionIsLostWhileItWaitsIsRunAgain(t *testing.T) {
	eachBank(t, allLevels, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		h := b.hold(opts)
		attempts := 0
		done := b.started(b.context(), opts, waiter(&attempts, noteSeen))
		require.Equal(t, "1", b.kill(h.pid))
		require.NoError(t, h.end(nil))
		require.NoError(t, <-done)
		require.Equal(t, 2, attempts)
		require.Equal(t, "102 100: 100", b.balances())
		b.atRest(opts)
	})
}

func TestWhatATransactionHoldsIsGivenBackHoweverItEnds(t *testing.T) {
	eachBank(t, allLevels, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		require.NoError(t, b.hold(opts).end(nil))
		b.atRest(opts)
		require.ErrorIs(t, b.hold(opts).end(errRollBack), errRollBack)
		b.atRest(opts)
		require.Panics(t, func() {
			_ = b.run(b.context(), opts, func(ctx context.Context, tx bankTx) error {
				require.NoError(t, tx.exec(ctx, addOne, 1))
				panic("boom")
			})
		})
		b.atRest(opts)
		h := b.hold(opts)
		require.Equal(t, "1", b.kill("0"))
		require.Error(t, h.end(nil))
		b.atRest(opts)
		require.Equal(t, "101 100: ", b.balances())
	})
}
