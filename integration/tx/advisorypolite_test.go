package tx_test

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// inOrder returns keys in the order of their locks.
func inOrder(keys ...string) []string {
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(retrypg.AdvisoryKey(a), retrypg.AdvisoryKey(b)) })
	return keys
}

// waitsFor waits until a session waits for the lock of a key, and as many are held by anybody.
func waitsFor(s *stage, key string, held int) {
	s.t.Helper()
	s.until(fmt.Sprintf("exists (select %s and not granted and classid::bigint << 32 | objid::bigint = %d) and %d = (select count(*) %[1]s and granted)",
		advisoryLocks, retrypg.AdvisoryKey(key), held))
}

// TestWhoWaitsForALockKeepsNobodyFromAnother that it needs too: it has none, until it has been late twice and waits in order.
func TestWhoWaitsForALockKeepsNobodyFromAnother(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		keys := inOrder("a", "b", "c")
		first, second, third := keys[0], keys[1], keys[2]
		for _, level := range levels {
			db := s.openDSN(s.dsn(), 1, excluding, retrypg.WithLazyBegin(true))
			opts := retrypg.TxOptions{Isolation: level, Keys: []string{first, second, third}}
			inTheWay(s, db, opts)
			releaseThird := hold(s, third)
			done := make(chan error, 1)
			go func() {
				done <- db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
					held, err := holds(ctx, w)
					if err == nil && held != "3" {
						return fmt.Errorf("%s locks", held)
					}
					return err
				})
			}()
			waitsFor(s, third, 1)
			releaseSecond := hold(s, second) // nobody has it
			releaseThird()
			waitsFor(s, second, 2)        // the first, and the one of the other session
			releaseThird = hold(s, third) // given back
			releaseSecond()
			waitsFor(s, third, 3)
			releaseThird()
			require.NoError(t, <-done, level)
			require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks))
		}
	})
}

func TestTransactionsWithLocksNeverMeetInADeadlock(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		const handles, workers, runs = 2, 4, 40
		_, err := s.admin.Exec(t.Context(), "insert into account select i, 100 from generate_series(3, 6) i")
		require.NoError(t, err)
		for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead} {
			before, want := s.ask("select sum(balance) from account"), 0
			var mu sync.Mutex
			var runners []func() error
			for range handles {
				db := s.openDSN(s.dsn("deadlock_timeout=10ms"), workers, excluding)
				inTheWay(s, db, retrypg.TxOptions{Isolation: level, Keys: []string{"account:1"}})
				for range workers {
					runners = append(runners, func() error {
						for range runs {
							accounts := rand.Perm(6)[:1+rand.IntN(5)]
							opts := retrypg.TxOptions{Isolation: level}
							for _, i := range accounts {
								opts.Keys = append(opts.Keys, "account:"+strconv.Itoa(i+1))
							}
							if err := db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
								for _, i := range accounts {
									err := w.exec(ctx, "update account set balance = balance + 1 where id = "+strconv.Itoa(i+1))
									if retrypg.SQLState(err) == "40P01" {
										return errors.New("not one that may be run again: " + err.Error())
									}
									if err != nil {
										return err
									}
								}
								return nil
							}); err != nil {
								return err
							}
							mu.Lock()
							want += len(accounts)
							mu.Unlock()
						}
						return nil
					})
				}
			}
			for _, err := range together(runners...) {
				require.NoError(t, err)
			}
			require.Equal(t, strconv.Itoa(want), s.ask("select sum(balance) - "+before+" from account"))
			require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks))
		}
	})
}

// TestNothingRunsWithoutItsLocks where the server refuses them, as by lock_timeout. The connection is given up: nobody knows which of the
// locks its session has.
func TestNothingRunsWithoutItsLocks(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		_, err := s.admin.Exec(t.Context(), "create sequence ran")
		require.NoError(t, err)
		for _, last := range []bool{false, true} { // COMMIT goes with the statement
			for _, level := range levels {
				db := s.openDSN(s.dsn("lock_timeout=100ms"), 1, excluding, retrypg.WithLazyBegin(true), retrypg.WithCommitCheck(retrypg.NoCheck))
				opts := retrypg.TxOptions{Isolation: level, Keys: inOrder("a", "b")}
				inTheWay(s, db, opts)
				release := hold(s, opts.Keys[1])
				runs := 0
				err := db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
					if runs++; runs == 2 {
						release()
					}
					if last {
						ctx = retrypg.LastStatement(ctx)
					}
					err := w.exec(ctx, "select nextval('ran')")
					if runs == 1 {
						require.Equal(t, "55P03", retrypg.SQLState(err), "%v %v %v", level, last, err)
						require.ErrorContains(t, err, "advisory locks")
						require.Equal(t, "false", s.ask("select is_called from ran"))
						s.until("1 = (select count(*) " + advisoryLocks + ")")
					}
					return err
				})
				require.NoError(t, err)
				require.Equal(t, 2, runs)
				require.Equal(t, "1", s.ask("select last_value from ran"))
				require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks))
				_, err = s.admin.Exec(t.Context(), "alter sequence ran restart")
				require.NoError(t, err)
			}
		}
	})
}

// TestLocksAreTakenAnewWithTheConnection that takes the place of one which was lost with the first statement.
func TestLocksAreTakenAnewWithTheConnection(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		for _, level := range levels {
			db := s.openDSN(s.dsn(), 1, excluding, retrypg.WithLazyBegin(true))
			opts := retrypg.TxOptions{Isolation: level, Keys: []string{"a", "b"}}
			inTheWay(s, db, opts)
			runs := 0
			require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
				if runs++; runs == 1 {
					s.terminate() // BEGIN was not sent
				}
				held, err := holds(ctx, w)
				if err == nil {
					require.Equal(t, "2", held)
				}
				return err
			}), level)
			require.Equal(t, 1, runs)
			require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks))
		}
	})
}
