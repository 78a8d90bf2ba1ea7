package tx_test

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/policy"
)

// waiting runs a transaction that waits for an advisory lock which another session has, until act ends the wait, and returns its error.
// No statement of its closure must run.
func waiting(ctx context.Context, s *stage, db database, opts retrypg.TxOptions, act func()) error {
	s.t.Helper()
	_, err := s.admin.Exec(s.t.Context(), "create sequence if not exists ran")
	require.NoError(s.t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		s.until("exists (select " + advisoryLocks + " and not granted)")
		act()
	})
	err = db.withTx(ctx, opts, func(ctx context.Context, w work) error {
		err := w.exec(ctx, "select nextval('ran')") // which no rollback would hide
		require.Error(s.t, err)
		return err
	})
	wg.Wait()
	require.Equal(s.t, "false", s.ask("select is_called from ran"), "it ran without its lock")
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
		for _, lazy := range []bool{true, false} {
			for _, level := range levels {
				connects := 0
				db := s.openDSN(s.dsn(), 1, excluding, retrypg.WithLazyBegin(lazy), retrypg.WithBeforeConnect(func(context.Context, *pgx.ConnConfig) error {
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
						taken := "1" // by the other session: who waits has given back what it had
						if !lazy && level == sql.LevelReadCommitted && key == opts.Keys[0] {
							taken = "2" // a transaction cannot give back the one that comes before
						}
						require.Equal(t, taken, s.ask("select count(*) "+advisoryLocks+" and granted"))
						cancel()
					})
					require.ErrorIs(t, err, context.Canceled, level)
					s.until("1 = (select count(*) " + advisoryLocks + ")")
					release()
					s.until("not exists (select " + advisoryLocks + ")")
				}
				s.usable(db, level.String()+strconv.FormatBool(lazy))
			}
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
			require.NoError(t, one.withTx(s.context(), opts, func(ctx context.Context, w work) error {
				return w.exec(ctx, "select 'x'")
			}), level)
			wg.Wait()
			require.Equal(t, "0", s.ask("select count(*) "+advisoryLocks))
		}
	})
}
