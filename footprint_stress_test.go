package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestNoTransferIsLostOrMadeTwiceWhileTransactionsWaitForEachOtherAndFail moves money between few accounts while contexts end and
// connections are lost, and compares what was told with what is there.
func TestNoTransferIsLostOrMadeTwiceWhileTransactionsWaitForEachOtherAndFail(t *testing.T) {
	const workers, lasts = 8, 1200 * time.Millisecond
	levels := []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelSerializable}
	eachBankWith(t, "deadlock_timeout=20ms", levels, func(t *testing.T, b *bank, opts TxOptions) {
		b.teach(opts)
		end := time.Now().Add(lasts)
		var work sync.WaitGroup
		var mu sync.Mutex
		told := make(map[string]error)
		for w := range workers {
			work.Go(func() {
				for i := 0; time.Now().Before(end); i++ {
					entry := fmt.Sprint(w, "-", i)
					err := b.transfer(opts, entry)
					mu.Lock()
					told[entry] = err
					mu.Unlock()
				}
			})
		}
		kills := 0
		for time.Now().Before(end) {
			b.ask(`select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity
				where application_name = $1 order by random() limit 1) p`, b.app)
			kills++
			time.Sleep(lasts / 20) // else nothing else would happen
		}
		work.Wait()

		require.Equal(t, "400", b.ask("select sum(balance) from account"))
		there := make(map[string]int)
		rows, err := b.plain.Query(t.Context(), "select entry from journal")
		require.NoError(t, err)
		for rows.Next() {
			var entry string
			require.NoError(t, rows.Scan(&entry))
			there[entry]++
		}
		require.NoError(t, rows.Err())
		done, unknown := 0, 0
		for entry, err := range told {
			switch {
			case err == nil:
				done++
				require.Equal(t, 1, there[entry], "%s was told to be there", entry)
			case errors.Is(err, ErrCommitUnknown):
				unknown++
				require.LessOrEqual(t, there[entry], 1, entry)
			default:
				require.Zero(t, there[entry], "%s was told not to be there: %v", entry, err)
			}
			delete(there, entry)
		}
		require.Empty(t, there, "nobody was told of these")
		require.NotZero(t, done)
		require.Eventually(t, func() bool {
			return b.ask("select count(*) from pg_stat_activity where application_name = $1 and state <> 'idle'", b.app) == "0"
		}, time.Minute, time.Millisecond)
		require.Zero(t, b.core.contention.State().Waiting)
		b.atRest(opts)
		t.Logf("%d transfers, %d of them done, %d unknown; %d connections were lost", len(told), done, unknown, kills)
	})
}

// transfer moves 1 between two accounts and writes it down, by what it has read. Its context may end at any time.
func (b *bank) transfer(opts TxOptions, entry string) error {
	from := 1 + rand.IntN(4)
	to := 1 + (from+rand.IntN(3))%4
	ctx := b.context()
	if rand.IntN(4) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rand.N(20*time.Millisecond))
		defer cancel()
	}
	const readForUpdate = readAccount + " for update"
	read := readAccount
	if opts.Isolation == committed[0] {
		read = readForUpdate
	}
	return b.run(ctx, opts, func(ctx context.Context, tx bankTx) error {
		for account, by := range map[int]string{from: "-1", to: "1"} {
			if _, err := tx.value(ctx, read, account); err != nil {
				return err
			}
			// From what was read, so that a stale snapshot is money lost.
			var before int
			text, err := tx.value(ctx, readAccount, account)
			if err != nil {
				return err
			}
			if _, err := fmt.Sscan(text, &before); err != nil {
				return err
			}
			if err := tx.exec(ctx, "update account set balance = $2::int + "+by+" where id = $1", account, before); err != nil {
				return err
			}
		}
		return tx.exec(ctx, note, entry)
	})
}
