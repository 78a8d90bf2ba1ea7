package tx_test

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// together runs the functions at once and returns their errors.
func together(fns ...func() error) []error {
	errs := make([]error, len(fns))
	var wg sync.WaitGroup
	for i, fn := range fns {
		wg.Go(func() { errs[i] = fn() })
	}
	wg.Wait()
	return errs
}

// meeting is where n goroutines wait for each other, once.
type meeting struct {
	mu   sync.Mutex
	left int
	full chan struct{}
}

func newMeeting(n int) *meeting { return &meeting{left: n, full: make(chan struct{})} }

func (m *meeting) join(ctx context.Context) error {
	m.mu.Lock()
	if m.left--; m.left == 0 {
		close(m.full)
	}
	m.mu.Unlock()
	select {
	case <-m.full:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func settings(ctx context.Context, w work) (string, error) {
	return w.value(ctx, `select concat_ws(' ', current_setting('transaction_isolation'),
		'read-only', current_setting('transaction_read_only'), 'deferrable', current_setting('transaction_deferrable'))`)
}

var errPoor = errors.New("not enough money")

// TestWriteSkewIsHealed: two transactions read both accounts and each takes 150 from one of them, which the sum of 200
// allows only once. Both have read before either writes, so PostgreSQL ends one of them; its next attempt must see what
// the other did, under the same settings.
func TestWriteSkewIsHealed(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		both := newMeeting(2)
		var mu sync.Mutex
		seen, runs := map[string]int{}, 0
		withdraw := func(id int) func() error {
			db := s.open()
			return func() error {
				opts := retrypg.TxOptions{Isolation: sql.LevelSerializable, Deferrable: true}
				return db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
					set, err := settings(ctx, w)
					if err != nil {
						return err
					}
					mu.Lock()
					seen[set]++
					runs++
					mu.Unlock()
					sum, err := w.value(ctx, "select sum(balance)::text from account")
					if err != nil {
						return err
					}
					if retrypg.AttemptFromContext(ctx) == 1 {
						if err := both.join(ctx); err != nil {
							return err
						}
					}
					if n, _ := strconv.Atoi(sum); n < 150 {
						return errPoor
					}
					return w.exec(ctx, "update account set balance = balance - 150 where id = $1", id)
				})
			}
		}
		errs := together(withdraw(1), withdraw(2))
		require.ElementsMatch(t, []bool{true, false}, []bool{errs[0] == nil, errs[1] == nil}, "%v", errs)
		require.ErrorIs(t, errors.Join(errs...), errPoor)
		require.Equal(t, "50", s.ask("select sum(balance) from account"))
		require.GreaterOrEqual(t, runs, 3, "no attempt was run again")
		require.Equal(t, map[string]int{"serializable read-only off deferrable on": runs}, seen)
	})
}

// TestSerializationFailureAtCommitIsHealed: another transaction that forms a cycle with ours commits after our last
// statement, so COMMIT is what fails.
func TestSerializationFailureAtCommitIsHealed(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		finished := 0
		err := db.withTx(s.context(), retrypg.TxOptions{Isolation: sql.LevelSerializable}, func(ctx context.Context, w work) error {
			if _, err := w.value(ctx, "select sum(balance)::text from account"); err != nil {
				return err
			}
			if err := w.exec(ctx, "update account set balance = balance + 1 where id = 1"); err != nil {
				return err
			}
			if retrypg.AttemptFromContext(ctx) == 1 {
				_, err := s.admin.Exec(ctx, `begin isolation level serializable;
					select sum(balance) from account;
					update account set balance = balance + 10 where id = 2;
					commit`)
				require.NoError(t, err)
			}
			finished++
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, 2, finished, "the closure must have come to its end in each attempt")
		require.Equal(t, "101 110", s.ask("select string_agg(balance::text, ' ' order by id) from account"))
	})
}

func TestDeadlockIsHealed(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		both := newMeeting(2)
		var mu sync.Mutex
		runs := 0
		move := func(from, to int) func() error {
			db := s.openDSN(s.dsn("deadlock_timeout=20ms"), 1)
			return func() error {
				return db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
					mu.Lock()
					runs++
					mu.Unlock()
					if err := w.exec(ctx, "update account set balance = balance - 10 where id = $1", from); err != nil {
						return err
					}
					if retrypg.AttemptFromContext(ctx) == 1 {
						if err := both.join(ctx); err != nil {
							return err
						}
					}
					return w.exec(ctx, "update account set balance = balance + 10 where id = $1", to)
				})
			}
		}
		require.Equal(t, []error{nil, nil}, together(move(1, 2), move(2, 1)))
		require.GreaterOrEqual(t, runs, 3, "there was no deadlock")
		require.Equal(t, "100 100", s.ask("select string_agg(balance::text, ' ' order by id) from account"))
	})
}

// TestEachAttemptHasTheSameOptions asks the server, in every attempt, for every combination.
func TestEachAttemptHasTheSameOptions(t *testing.T) {
	levels := map[sql.IsolationLevel]string{
		sql.LevelDefault:         "read committed",
		sql.LevelReadUncommitted: "read uncommitted",
		sql.LevelReadCommitted:   "read committed",
		sql.LevelRepeatableRead:  "repeatable read",
		sql.LevelSnapshot:        "repeatable read",
		sql.LevelSerializable:    "serializable",
	}
	onOff := map[bool]string{true: "on", false: "off"}
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		for level, name := range levels {
			for flags := range 4 {
				opts := retrypg.TxOptions{Isolation: level, ReadOnly: flags&1 != 0, Deferrable: flags&2 != 0}
				var seen []string
				require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
					set, err := settings(ctx, w)
					if err != nil {
						return err
					}
					seen = append(seen, set)
					if len(seen) < 3 {
						return w.exec(ctx, conflict)
					}
					return nil
				}))
				want := strings.Join([]string{name, "read-only", onOff[opts.ReadOnly], "deferrable", onOff[opts.Deferrable]}, " ")
				require.Equal(t, []string{want, want, want}, seen)
			}
		}
	})
}

// TestOptionsDoNotOutliveTheTransaction: the next one on the same connection has the defaults again.
func TestOptionsDoNotOutliveTheTransaction(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1)
		opts := retrypg.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true, Deferrable: true}
		require.NoError(t, db.withTx(s.context(), opts, func(context.Context, work) error { return nil }))
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			set, err := settings(ctx, w)
			require.Equal(t, "read committed read-only off deferrable off", set)
			return err
		}))
	})
}

// TestZeroOptionsLeaveTheServersDefaults: a default_transaction_isolation of the session holds.
func TestZeroOptionsLeaveTheServersDefaults(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn("default_transaction_isolation=serializable"), 1)
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			set, err := settings(ctx, w)
			require.Equal(t, "serializable read-only off deferrable off", set)
			return err
		}))
	})
}

func TestUnsupportedIsolationIsRefusedBeforeTheClosureRuns(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		err := db.withTx(s.context(), retrypg.TxOptions{Isolation: sql.LevelLinearizable}, func(context.Context, work) error {
			t.Error("the closure ran")
			return nil
		})
		require.ErrorContains(t, err, "isolation")
		require.NotErrorAs(t, err, new(*retrypg.ExhaustedError))
		s.usable(db, "a")
	})
}

func TestLockTimeoutIsRunAgainAsTheTableSays(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn("lock_timeout=20ms"), 1)
		lock, err := s.admin.Begin(s.context())
		require.NoError(t, err)
		_, err = lock.Exec(s.context(), "select from account where id = 1 for update")
		require.NoError(t, err)
		var first error
		attempts := 0
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			attempts = retrypg.AttemptFromContext(ctx)
			if attempts == 2 {
				require.NoError(t, lock.Rollback(ctx))
			}
			err := w.exec(ctx, "update account set balance = 7 where id = 1")
			if attempts == 1 {
				first = err
			}
			return err
		}))
		require.Equal(t, retrypg.RetryTransaction, retrypg.Classify(first).Retry)
		require.Equal(t, "55P03", retrypg.SQLState(first))
		require.Equal(t, 2, attempts)
		require.ErrorIs(t, lock.Rollback(s.context()), pgx.ErrTxClosed)
	})
}

func TestStatementTimeoutIsReturnedAfterOneRun(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1)
		runs := 0
		err := db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			require.NoError(t, w.exec(ctx, "set local statement_timeout = '20ms'"))
			return w.exec(ctx, "select pg_sleep(30)")
		})
		require.Equal(t, "57014", retrypg.SQLState(err))
		require.NotErrorAs(t, err, new(*retrypg.ExhaustedError))
		require.Equal(t, 1, runs)
		s.usable(db, "a")
	})
}
