package tx_test

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// contended runs transfers of several workers between a few accounts, each a SERIALIZABLE read-modify-write, and returns how
// often closures ran. All must commit.
func contended(s *stage, db database, workers, transfers int, keys bool) (attempts int) {
	const accounts = 4
	var runs atomic.Int64
	errs := make([]func() error, workers)
	for w := range errs {
		errs[w] = func() error {
			for i := range transfers {
				from, to := 1+(w+i)%accounts, 1+(w+i+1+i%(accounts-1))%accounts
				opts := retrypg.TxOptions{Name: "transfer", Isolation: sql.LevelSerializable}
				if keys {
					opts.Keys = []string{"account:" + strconv.Itoa(from), "account:" + strconv.Itoa(to)}
				}
				err := db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
					runs.Add(1)
					for id, by := range map[int]int{from: -1, to: 1} {
						balance, err := w.value(ctx, fmt.Sprintf("select balance::text from account where id = %d", id))
						if err != nil {
							return err
						}
						n, err := strconv.Atoi(balance)
						if err != nil {
							return err
						}
						if err := w.exec(ctx, fmt.Sprintf("update account set balance = %d where id = %d", n+by, id)); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		}
	}
	for _, err := range together(errs...) {
		require.NoError(s.t, err)
	}
	return int(runs.Load())
}

func TestTransfersThatAreInEachOthersWayAllCommit(t *testing.T) {
	const workers, transfers = 8, 50
	for name, keys := range map[string]bool{"keys": true, "no keys": false} {
		t.Run(name, func(t *testing.T) {
			some(t, pooled, func(t *testing.T, s *stage) {
				_, err := s.admin.Exec(t.Context(), "insert into account values (3, 100), (4, 100)")
				require.NoError(t, err)
				db := s.openDSN(s.dsn("deadlock_timeout=10ms"), workers)
				attempts := contended(s, db, workers, transfers, keys)
				require.Equal(t, "400", s.ask("select sum(balance) from account"))
				t.Logf("%d transfers, %d attempts", workers*transfers, attempts)
				if keys {
					// A SERIALIZABLE transaction of a table this small reads all of it, so some conflict with others.
					require.Less(t, attempts, 3*workers*transfers)
				}
			})
		})
	}
}

// escalating makes a transaction run alone, and hold the advisory locks of its keys, after its first conflict.
var escalating = retrypg.WithContentionControl(retrypg.ContentionOptions{EscalateAfter: 1, AdvisoryLocks: true})

// advisoryLocks are those of the test's database.
const advisoryLocks = "from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())"

func oursPooled(a adapter) bool { return a.ours && pooled(a) }

// conflictOnce makes the first attempt of a closure conflict.
func conflictOnce(ctx context.Context, w work) error {
	if retrypg.AttemptFromContext(ctx) == 1 {
		return w.exec(ctx, conflict)
	}
	return nil
}

func TestAnEscalatedAttemptHoldsItsAdvisoryLockToItsEndAndNoLonger(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		key := retrypg.AdvisoryKey("account:1")
		require.Equal(t, strconv.FormatInt(key, 10), s.ask("select ('x' || encode(substr(sha256('retrypg:key:account:1'), 1, 8), 'hex'))::bit(64)::bigint"))
		db := s.open(escalating)
		for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
			opts := retrypg.TxOptions{Isolation: level, Keys: []string{"account:1"}}
			err := db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
				if err := conflictOnce(ctx, w); err != nil {
					return err
				}
				held, err := w.value(ctx, fmt.Sprintf(`select count(*)::text from pg_locks where locktype = 'advisory' and granted and pid = pg_backend_pid()
					and classid::bigint << 32 | objid::bigint = %d`, key))
				require.NoError(t, err)
				require.Equal(t, "1", held, level)
				session, err := w.value(ctx, fmt.Sprintf("select pg_advisory_unlock(%d)::text", key)) // of the session, if it had one
				require.NoError(t, err)
				require.Equal(t, "false", session, level)
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks))
		}
	})
}

// TestAnEscalatedAttemptSeesWhatTheHolderOfItsLockHasChanged: had it waited for the lock in its transaction, its snapshot would
// be older than that change, and the attempt a conflict for certain.
func TestAnEscalatedAttemptSeesWhatTheHolderOfItsLockHasChanged(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		key := retrypg.AdvisoryKey("account:1")
		for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
			db := s.open(escalating) // one that does not know yet that others are in the way
			other, err := pgx.Connect(t.Context(), s.dsn())
			require.NoError(t, err)
			_, err = other.Exec(t.Context(), "begin; update account set balance = balance + 1 where id = 1; select pg_advisory_xact_lock("+strconv.FormatInt(key, 10)+")")
			require.NoError(t, err)
			runs := 0
			var wg sync.WaitGroup
			wg.Go(func() {
				s.until("exists (select " + advisoryLocks + " and not granted)")
				_, err := other.Exec(t.Context(), "commit")
				require.NoError(t, err)
				require.NoError(t, other.Close(t.Context()))
			})
			opts := retrypg.TxOptions{Isolation: level, Keys: []string{"account:1"}}
			err = db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
				runs++
				if err := conflictOnce(ctx, w); err != nil {
					return err
				}
				return w.exec(ctx, "update account set balance = balance + 1 where id = 1")
			})
			wg.Wait()
			require.NoError(t, err)
			require.Equal(t, 2, runs, level)
		}
	})
}

func TestWhoGivesUpWaitingForAnAdvisoryLockLeavesNoneBehind(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		db := s.open(escalating)
		key := strconv.FormatInt(retrypg.AdvisoryKey("b"), 10)
		_, err := s.admin.Exec(t.Context(), "select pg_advisory_lock("+key+")")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(s.context())
		var wg sync.WaitGroup
		wg.Go(func() {
			s.until("exists (select " + advisoryLocks + " and not granted)")
			cancel()
		})
		opts := retrypg.TxOptions{Isolation: sql.LevelSerializable, Keys: []string{"b", "a", "a"}}
		err = db.withTx(ctx, opts, func(ctx context.Context, w work) error {
			if err := conflictOnce(ctx, w); err != nil {
				return err
			}
			return w.exec(ctx, "select 1")
		})
		wg.Wait()
		require.ErrorIs(t, err, context.Canceled)
		_, err = s.admin.Exec(t.Context(), "select pg_advisory_unlock("+key+")")
		require.NoError(t, err)
		s.until("not exists (select " + advisoryLocks + ")")
		s.usable(db, "after")
	})
}

// TestATransactionWithinAnotherIsNotMadeToWait: it would wait for what the other one has.
func TestATransactionWithinAnotherIsNotMadeToWait(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		db := s.open(retrypg.WithContentionControl(retrypg.ContentionOptions{EscalateAfter: 1}))
		opts := retrypg.TxOptions{Name: "both", Keys: []string{"x"}}
		err := db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
			if err := conflictOnce(ctx, w); err != nil {
				return err
			}
			// A savepoint, of the same transaction.
			return db.withTx(ctx, opts, func(ctx context.Context, w work) error { return w.exec(ctx, "select 1") })
		})
		require.NoError(t, err)
	})
}
