package tx_test

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/policy"
)

// excluding makes transactions with keys hold advisory locks where others elsewhere are in their way.
var excluding = retrypg.WithContentionControl(retrypg.ContentionOptions{AdvisoryLocks: true})

// levels are those at which the locks are taken in their own ways. At the default one nobody knows which it is.
var levels = []sql.IsolationLevel{sql.LevelDefault, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable}

// inTheWay makes a handle find that others elsewhere are in the way of its transactions with these options: they conflict, while they
// have their keys, and none is run again.
func inTheWay(s *stage, db database, opts retrypg.TxOptions) {
	s.t.Helper()
	opts.MaxAttempts = 1
	for range 7 {
		err := db.withTx(s.context(), opts, func(ctx context.Context, w work) error { return w.exec(ctx, conflict) })
		require.Equal(s.t, "40001", retrypg.SQLState(err))
	}
}

// holds is how many advisory locks the server process of a transaction has.
func holds(ctx context.Context, w work) (string, error) {
	return w.value(ctx, "select count(*)::text "+advisoryLocks+" and granted and pid = pg_backend_pid()")
}

func TestTwoHandlesExcludeEachOtherWhereTheyAreInEachOthersWay(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		for _, level := range levels {
			t.Run(level.String(), func(t *testing.T) {
				const workers, runs = 3, 20
				opts := retrypg.TxOptions{Isolation: level, Keys: []string{"account:2", "account:1"}}
				var within, most atomic.Int64
				var errs []func() error
				opts.MaxAttempts = 1 // a deadlock would be an error
				for range 2 {
					slices.Reverse(opts.Keys)
					opts := opts
					opts.Keys = slices.Clone(opts.Keys)
					db := s.openDSN(s.dsn("deadlock_timeout=10ms"), workers, excluding)
					inTheWay(s, db, opts)
					for range workers {
						errs = append(errs, func() error {
							for range runs {
								if err := db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
									n := within.Add(1)
									defer within.Add(-1)
									if n > most.Load() {
										most.Store(n)
									}
									held, err := holds(ctx, w)
									if held != "2" {
										return fmt.Errorf("%s locks, %w", held, err)
									}
									return w.exec(ctx, "update account set balance = balance + 1 where id = 1")
								}); err != nil {
									return err
								}
							}
							return nil
						})
					}
				}
				before := s.ask("select balance from account where id = 1")
				for _, err := range together(errs...) {
					require.NoError(t, err)
				}
				require.EqualValues(t, 1, most.Load(), "at a time")
				n, err := strconv.Atoi(before)
				require.NoError(t, err)
				require.Equal(t, strconv.Itoa(n+2*workers*runs), s.ask("select balance from account where id = 1"))
				require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks))
			})
		}
	})
}

// TestNothingStaysLockedHoweverATransactionEnds: all of it happens on one connection, which is given back each time.
func TestNothingStaysLockedHoweverATransactionEnds(t *testing.T) {
	boom := errors.New("boom")
	for name, end := range map[string]func(ctx context.Context, cancel func(), w work) error{
		"commit":   func(context.Context, func(), work) error { return nil },
		"conflict": func(ctx context.Context, _ func(), w work) error { return w.exec(ctx, conflict) },
		"error":    func(context.Context, func(), work) error { return boom },
		"panic":    func(context.Context, func(), work) error { panic(boom) },
		"cancel": func(ctx context.Context, cancel func(), w work) error {
			cancel()
			return w.exec(ctx, "select 1")
		},
		"no statement": nil,
	} {
		t.Run(name, func(t *testing.T) {
			some(t, oursPooled, func(t *testing.T, s *stage) {
				for _, level := range levels {
					db := s.openDSN(s.dsn(), 1, excluding)
					opts := retrypg.TxOptions{Isolation: level, Keys: []string{"b", "a", "a"}, MaxAttempts: 1}
					inTheWay(s, db, opts)
					for range 2 { // the second time what is prepared is used
						ctx, cancel := context.WithCancel(s.context())
						func() {
							defer func() { _ = recover() }()
							_ = db.withTx(ctx, opts, func(ctx context.Context, w work) error {
								if end == nil {
									require.Equal(t, "2", s.ask("select count(*) "+advisoryLocks+" and granted"), level)
									return nil
								}
								held, err := holds(ctx, w)
								require.NoError(t, err)
								require.Equal(t, "2", held, level)
								return end(ctx, cancel, w)
							})
						}()
						cancel()
						if name == "cancel" { // database/sql rolls back on a goroutine of its own
							s.until("not exists (select " + advisoryLocks + ")")
						}
						require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks), level)
					}
				}
				require.NoError(t, s.admin.Ping(t.Context()))
			})
		})
	}
}

// waiting runs a transaction that waits for an advisory lock which another session has, until act ends the wait, and returns its error.
// Its closure must not run.
func waiting(ctx context.Context, s *stage, db database, opts retrypg.TxOptions, act func()) error {
	s.t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		s.until("exists (select " + advisoryLocks + " and not granted)")
		act()
	})
	err := db.withTx(ctx, opts, func(context.Context, work) error {
		s.t.Error("it ran without its lock")
		return nil
	})
	wg.Wait()
	return err
}

// hold lets another session have the lock of a key until release is called.
func hold(s *stage, key string) (release func()) {
	s.t.Helper()
	lock := strconv.FormatInt(retrypg.AdvisoryKey(key), 10)
	other, err := pgx.Connect(s.t.Context(), s.server.DSN())
	require.NoError(s.t, err)
	_, err = other.Exec(s.t.Context(), "select pg_advisory_lock("+lock+")")
	require.NoError(s.t, err)
	return func() { require.NoError(s.t, other.Close(context.Background())) }
}

func TestAWaitForAnAdvisoryLockEndsWithItsContextOrItsTimeAndLeavesNothing(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		for _, level := range levels {
			connects := 0
			db := s.openDSN(s.dsn(), 1, excluding, retrypg.WithBeforeConnect(func(context.Context, *pgx.ConnConfig) error {
				connects++
				return nil
			}), retrypg.WithBreaker(breaker.Options{Failures: 1})) // to wait for somebody's lock is no failure of the server
			opts := retrypg.TxOptions{Isolation: level, Keys: []string{"a", "b"}}
			slices.SortFunc(opts.Keys, func(a, b string) int { return cmp.Compare(retrypg.AdvisoryKey(b), retrypg.AdvisoryKey(a)) })
			inTheWay(s, db, opts)
			for _, key := range opts.Keys {
				release := hold(s, key)
				require.NoError(t, db.exec(s.context(), "select 1"))
				before := connects
				late := opts
				late.MaxElapsed = 500 * time.Millisecond
				err := waiting(s.context(), s, db, late, func() {})
				var e *retrypg.ExhaustedError
				require.ErrorAs(t, err, &e, level)
				require.Equal(t, policy.StopMaxElapsed, e.Reason, level)
				require.ErrorContains(t, err, "advisory locks")
				require.Equal(t, before, connects, "it is too late for another connection")
				s.until("1 = (select count(*) " + advisoryLocks + ")")

				ctx, cancel := context.WithCancel(s.context())
				err = waiting(ctx, s, db, opts, func() {
					taken := "1" // by the other session
					if key == opts.Keys[0] {
						taken = "2" // and the one that comes before it
					}
					require.Equal(t, taken, s.ask("select count(*) "+advisoryLocks+" and granted"), "in the order of the locks")
					cancel()
				})
				require.ErrorIs(t, err, context.Canceled, level)
				s.until("1 = (select count(*) " + advisoryLocks + ")")
				release()
				s.until("not exists (select " + advisoryLocks + ")")
			}
			s.usable(db, level.String())
		}
	})
}

func TestAServerProcessThatDiesWithALockIsNoObstacle(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		for _, level := range levels {
			opts := retrypg.TxOptions{Isolation: level, Keys: []string{"a"}}
			one, two := s.openDSN(s.dsn(), 1, excluding), s.openDSN(s.dsn(), 1, excluding)
			inTheWay(s, one, opts)
			inTheWay(s, two, opts)
			pids, got := make(chan string, 2), make(chan error, 1)
			err := one.withTx(s.context(), opts, func(ctx context.Context, w work) error {
				if retrypg.AttemptFromContext(ctx) > 1 {
					return nil
				}
				pid, err := w.value(ctx, "select pg_backend_pid()::text")
				require.NoError(t, err)
				pids <- pid
				go func() {
					got <- two.withTx(s.context(), opts, func(ctx context.Context, w work) error {
						_, err := w.value(ctx, "select 'x'")
						return err
					})
				}()
				s.until("exists (select " + advisoryLocks + " and not granted)")
				s.ask("select pg_terminate_backend(" + pid + ")")
				_, err = w.value(ctx, "select 'x'")
				return err
			})
			require.NoError(t, err, level)
			require.NoError(t, <-got, level)

			// And one that dies while it waits: the transaction goes on waiting over another connection.
			release := hold(s, "a")
			var wg sync.WaitGroup
			wg.Go(func() {
				s.until("exists (select " + advisoryLocks + " and not granted)")
				s.ask("select count(pg_terminate_backend(pid)) " + advisoryLocks + " and not granted")
				s.until("exists (select " + advisoryLocks + " and not granted)")
				release()
			})
			require.NoError(t, one.withTx(s.context(), opts, func(context.Context, work) error { return nil }), level)
			wg.Wait()
			require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks))
		}
	})
}

// TestWhatIsPreparedForLocksMayBeDropped by the program, as a pool does that resets its connections.
func TestWhatIsPreparedForLocksMayBeDropped(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		for _, level := range levels {
			db := s.openDSN(s.dsn(), 1, excluding)
			opts := retrypg.TxOptions{Isolation: level, Keys: []string{"a"}}
			inTheWay(s, db, opts)
			pids := make(map[string]bool)
			for range 5 {
				runs := 0
				require.NoError(t, db.withTx(s.context(), opts, func(context.Context, work) error {
					runs++
					pids[s.ask("select pid "+advisoryLocks+" and granted")] = true
					return nil // what pgx has prepared is gone, too
				}), level)
				require.Equal(t, 1, runs)
				require.NoError(t, db.exec(s.context(), "deallocate all"))
			}
			require.LessOrEqual(t, len(pids), 2, "from then on nothing is prepared, and no connection lost")
			require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks))
		}
	})
}

// TestAdvisoryLocksCostOneRoundTrip where BEGIN would wait for the first statement.
func TestAdvisoryLocksCostOneRoundTrip(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		for _, level := range levels {
			proxy, dsn := s.proxied()
			db := s.openDSN(dsn, 1, excluding, retrypg.WithLazyBegin(true))
			trips := func(keys ...string) (n int) {
				opts := retrypg.TxOptions{Isolation: level, Keys: keys}
				for range 3 {
					before := proxy.Stats().Flights
					require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
						_, err := holds(ctx, w)
						return err
					}))
					n = proxy.Stats().Flights - before
				}
				return n
			}
			inTheWay(s, db, retrypg.TxOptions{Isolation: level, Keys: []string{"a"}})
			require.Equal(t, trips()+1, trips("a", "b"), level)
		}
	})
}

func TestATransactionWithTooManyKeysTakesNoAdvisoryLocks(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		for n, want := range map[int]string{64: "64", 65: "0"} {
			var keys []string
			for i := range n {
				keys = append(keys, strconv.Itoa(i))
			}
			db := s.openDSN(s.dsn(), 1, excluding)
			opts := retrypg.TxOptions{Isolation: sql.LevelSerializable, Keys: keys}
			inTheWay(s, db, opts)
			require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
				held, err := holds(ctx, w)
				require.Equal(t, want, held)
				return err
			}))
		}
	})
}
