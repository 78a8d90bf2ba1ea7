package tx_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
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
									held, err := holds(ctx, w) // the first statement waits for the locks
									n := within.Add(1)
									defer within.Add(-1)
									if n > most.Load() {
										most.Store(n)
									}
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
				require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
					runs++
					// What pgx has prepared is gone, too: this it does not prepare.
					if err := w.exec(ctx, "select 1; select 2"); err != nil {
						return err
					}
					pids[s.ask("select pid "+advisoryLocks+" and granted")] = true
					return nil
				}), level)
				require.Equal(t, 1, runs)
				require.NoError(t, db.exec(s.context(), "deallocate all"))
			}
			require.LessOrEqual(t, len(pids), 2, "from then on nothing is prepared, and no connection lost")
			require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks))
		}
	})
}

// TestAdvisoryLocksCostNoRoundTrip where BEGIN waits for the first statement: they go with it. Where the wait for them is to end before the
// statement would, they cost one.
func TestAdvisoryLocksCostNoRoundTrip(t *testing.T) {
	some(t, oursPooled, func(t *testing.T, s *stage) {
		for _, level := range levels {
			proxy, dsn := s.proxied()
			db := s.openDSN(dsn, 1, excluding, retrypg.WithLazyBegin(true))
			trips := func(elapsed time.Duration, within func(context.Context) (context.Context, context.CancelFunc), keys ...string) (n int) {
				opts := retrypg.TxOptions{Isolation: level, Keys: keys, MaxElapsed: elapsed}
				for range 3 {
					before := proxy.Stats().Flights
					require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
						ctx, cancel := within(ctx)
						defer cancel()
						_, err := holds(ctx, w)
						return err
					}))
					n = proxy.Stats().Flights - before
				}
				return n
			}
			same := func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }
			shorter := func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Minute)
			}
			inTheWay(s, db, retrypg.TxOptions{Isolation: level, Keys: []string{"a"}})
			plain := trips(0, same)
			require.Equal(t, plain, trips(0, same, "a"), level)
			require.Equal(t, plain, trips(0, same, "a", "b"), level)
			require.Equal(t, plain+1, trips(time.Minute, same, "a", "b"), level)
			require.Equal(t, plain+1, trips(0, shorter, "a", "b"), level)
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
