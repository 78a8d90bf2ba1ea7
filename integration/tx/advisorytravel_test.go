package tx_test

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// TestAWaitForLocksEndsOnTheServerToo where the first statement is the last one: requests to cancel are held back while COMMIT is on its way.
func TestAWaitForLocksEndsOnTheServerToo(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		for _, level := range levels {
			db := s.openDSN(s.dsn(), 1, excluding, retrypg.WithLazyBegin(true))
			opts := retrypg.TxOptions{Isolation: level, Keys: []string{"a"}, ReadOnly: true}
			inTheWay(s, db, retrypg.TxOptions{Isolation: level, Keys: opts.Keys})
			release := hold(s, "a")
			ctx, cancel := context.WithCancel(s.context())
			var wg sync.WaitGroup
			wg.Go(func() {
				waitsFor(s, "a", 1)
				cancel()
			})
			err := db.withTx(ctx, opts, func(ctx context.Context, w work) error {
				return w.exec(retrypg.LastStatement(ctx), "select 1")
			})
			require.ErrorIs(t, err, context.Canceled)
			wg.Wait()
			s.until("1 = (select count(*) " + advisoryLocks + ")")
			release()
		}
	})
}

// TestALargeFirstStatementMayWaitForItsLocks for longer than sent data may stay unacknowledged: the server reads nothing meanwhile.
func TestALargeFirstStatementMayWaitForItsLocks(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		const timeout = 100 * time.Millisecond
		dsn := pgtest.DSN([]string{s.server.Cluster.Addr()}, "dbname="+s.server.Name, "search_path="+s.name, "application_name="+s.name) // not over a Unix socket
		for _, level := range levels {
			db := s.openDSN(dsn, 1, excluding, retrypg.WithLazyBegin(true), retrypg.WithTCPUserTimeout(timeout))
			opts := retrypg.TxOptions{Isolation: level, Keys: []string{"a", "b"}}
			inTheWay(s, db, opts)
			release := hold(s, "a")
			var wg sync.WaitGroup
			wg.Go(func() {
				waitsFor(s, "a", 1)
				s.ask("select pg_sleep(1)")
				release()
			})
			runs := 0
			require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
				runs++
				if err := w.exec(ctx, "select length('"+strings.Repeat("x", 1<<20)+"')"); err != nil {
					return err
				}
				held, err := holds(ctx, w)
				require.Equal(t, "2", held)
				return err
			}))
			wg.Wait()
			require.Equal(t, 1, runs, level)
		}
	})
}

// TestAWaitForLocksEndsWithTheContextOfTheFirstStatementOrOfTheTransaction: where they are not the same, with the first that ends.
func TestAWaitForLocksEndsWithTheContextOfTheFirstStatementOrOfTheTransaction(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		for _, level := range levels {
			db := s.openDSN(s.dsn(), 1, excluding, retrypg.WithLazyBegin(true))
			opts := retrypg.TxOptions{Isolation: level, Keys: []string{"a"}}
			inTheWay(s, db, opts)
			release := hold(s, "a")
			err := db.withTx(s.context(), opts, func(outer context.Context, w work) error {
				ctx, cancel := context.WithCancel(outer)
				go func() {
					waitsFor(s, "a", 1)
					cancel()
				}()
				err := w.exec(ctx, "select 1")
				require.NoError(t, outer.Err())
				return err
			})
			require.ErrorIs(t, err, context.Canceled, level)
			s.until("1 = (select count(*) " + advisoryLocks + ")")

			outer, cancel := context.WithTimeout(s.context(), 200*time.Millisecond)
			err = db.withTx(outer, opts, func(ctx context.Context, w work) error {
				err := w.exec(context.WithoutCancel(ctx), "select 1")
				require.ErrorIs(t, err, context.DeadlineExceeded, level)
				return err
			})
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, level)
			s.until("1 = (select count(*) " + advisoryLocks + ")")
			release()
		}
	})
}

// TestWhoAsksForTheConnectionWaitsForTheLocks for as long as the transaction may, and not as for the answer to a BEGIN.
func TestWhoAsksForTheConnectionWaitsForTheLocks(t *testing.T) {
	some(t, func(a adapter) bool { return a.name == "retrypg.Pool" }, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn("connect_timeout=1"), 1, excluding, retrypg.WithLazyBegin(true))
		opts := retrypg.TxOptions{Keys: []string{"a"}}
		inTheWay(s, db, opts)
		release := hold(s, "a")
		var wg sync.WaitGroup
		wg.Go(func() {
			waitsFor(s, "a", 1)
			s.ask("select pg_sleep(1.2)")
			release()
		})
		require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
			w.(pgxWork).tx.Conn()
			held, err := holds(ctx, w)
			require.Equal(t, "1", held)
			return err
		}))
		wg.Wait()
	})
}

// TestATextThatCommitsIsNotSentTwiceWhereItsLockWasRefused: the session has the lock all the same, by the program, so that the server runs the
// text although what was prepared to take it is gone.
func TestATextThatCommitsIsNotSentTwiceWhereItsLockWasRefused(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1, excluding, retrypg.WithLazyBegin(true))
		opts := retrypg.TxOptions{Isolation: sql.LevelRepeatableRead, Keys: []string{"a"}}
		inTheWay(s, db, opts)
		require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
			_, err := holds(ctx, w)
			return err
		}))
		require.NoError(t, db.exec(s.context(), "select pg_advisory_lock("+strconv.FormatInt(retrypg.AdvisoryKey("a"), 10)+")"))
		require.NoError(t, db.exec(s.context(), "deallocate retrypg_locks_0_1"))
		before := s.ask("select balance from account where id = 1")
		err := db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
			return w.exec(ctx, "update account set balance = balance + 1 where id = 1; commit")
		})
		require.ErrorIs(t, err, retrypg.ErrTxEnded)
		require.Equal(t, "1", s.ask("select balance - "+before+" from account where id = 1"))
	})
}
