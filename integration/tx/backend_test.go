package tx_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// moments are where a backend can be killed, each with the closure that does it in its first attempt. The closure writes
// the note "a".
var moments = map[string]func(s *stage) closure{
	"after BEGIN": func(s *stage) closure {
		return func(ctx context.Context, w work) error {
			if err := w.exec(ctx, "set local work_mem = '1MB'"); err != nil { // BEGIN may wait for the first statement
				return err
			}
			if retrypg.AttemptFromContext(ctx) == 1 {
				s.terminate()
			}
			return insert(ctx, w, "a")
		}
	},
	"between two statements": func(s *stage) closure {
		return func(ctx context.Context, w work) error {
			if err := insert(ctx, w, "a"); err != nil {
				return err
			}
			if retrypg.AttemptFromContext(ctx) == 1 {
				s.terminate()
			}
			return w.exec(ctx, "update note set parent = 1 where id = 'a'")
		}
	},
	"in a statement": func(*stage) closure {
		return func(ctx context.Context, w work) error {
			if err := insert(ctx, w, "a"); err != nil {
				return err
			}
			if retrypg.AttemptFromContext(ctx) == 1 {
				return w.exec(ctx, "select pg_terminate_backend(pg_backend_pid()), pg_sleep(600)")
			}
			return nil
		}
	},
	"before COMMIT": func(s *stage) closure {
		return func(ctx context.Context, w work) error {
			if err := insert(ctx, w, "a"); err != nil {
				return err
			}
			if retrypg.AttemptFromContext(ctx) == 1 {
				s.terminate()
			}
			return nil
		}
	},
	"in COMMIT, before its record": func(*stage) closure {
		return func(ctx context.Context, w work) error {
			if err := insert(ctx, w, "a"); err != nil {
				return err
			}
			if retrypg.AttemptFromContext(ctx) == 1 {
				// Deferred triggers are run by COMMIT.
				return w.exec(ctx, `create function die() returns trigger language plpgsql
						as 'begin perform pg_terminate_backend(pg_backend_pid()), pg_sleep(600); end';
					create constraint trigger die after insert on account deferrable initially deferred
						for each row execute function die();
					insert into account values (3, 0)`)
			}
			return nil
		}
	},
}

func TestKilledBackendIsReplacedAndTheTransactionAppliedOnce(t *testing.T) {
	for moment, kill := range moments {
		t.Run(moment, func(t *testing.T) {
			some(t, pooled, func(t *testing.T, s *stage) {
				db := s.open()
				fn, attempts := kill(s), 0
				require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
					attempts = retrypg.AttemptFromContext(ctx)
					return fn(ctx, w)
				}))
				require.Equal(t, 2, attempts)
				require.Equal(t, 1, s.notes("a"))
				s.quiet()
			})
		})
	}
}

func TestKilledBackendOfAPinnedConnectionIsAnErrorAndNothingIsApplied(t *testing.T) {
	for moment, kill := range moments {
		t.Run(moment, func(t *testing.T) {
			some(t, func(a adapter) bool { return a.pinned }, func(t *testing.T, s *stage) {
				db := s.open()
				fn, runs := kill(s), 0
				err := db.withTx(s.context(), retrypg.TxOptions{MaxAttempts: 3}, func(ctx context.Context, w work) error {
					runs++
					return fn(ctx, w)
				})
				require.Error(t, err)
				require.NotErrorIs(t, err, retrypg.ErrCommitUnknown)
				require.Equal(t, 1, runs)
				require.Zero(t, s.notes("a"))
			})
		})
	}
}

func TestBackendKilledBeforeBeginIsReplaced(t *testing.T) {
	some(t, pooled, func(t *testing.T, s *stage) {
		db := s.open()
		require.NoError(t, db.exec(s.context(), "select 1"))
		s.terminate()
		runs := 0
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			return insert(ctx, w, "a")
		}))
		require.Equal(t, 1, runs)
		require.Equal(t, 1, s.notes("a"))
	})
}

func TestBackendOfAPinnedConnectionKilledBeforeBeginIsAnErrorAndNothingIsApplied(t *testing.T) {
	some(t, func(a adapter) bool { return a.pinned }, func(t *testing.T, s *stage) {
		db := s.open()
		require.NoError(t, db.exec(s.context(), "select 1"))
		s.terminate()
		runs := 0
		err := db.withTx(s.context(), retrypg.TxOptions{MaxAttempts: 3}, func(ctx context.Context, w work) error {
			runs++
			return insert(ctx, w, "a")
		})
		require.Error(t, err)
		require.LessOrEqual(t, runs, 1)
		require.Zero(t, s.notes("a"))
		require.NotErrorIs(t, err, retrypg.ErrCommitUnknown)
	})
}

// TestConnectionCutAnywhereBeforeCommitIsReplaced cuts the network, not the server: the client sees no FATAL.
func TestConnectionCutAnywhereBeforeCommitIsReplaced(t *testing.T) {
	for name, match := range map[string]pgtest.Match{
		"BEGIN": pgtest.Sent("begin"), "BEGIN answered": pgtest.ReplyReady("begin"),
		"statement": pgtest.Sent("insert"), "statement answered": pgtest.ReplyReady("insert"),
	} {
		for how, cut := range map[string]pgtest.Cut{"FIN": pgtest.FIN, "RST": pgtest.RST} {
			t.Run(name+" "+how, func(t *testing.T) {
				some(t, pooled, func(t *testing.T, s *stage) {
					proxy, dsn := s.proxied()
					db := s.openDSN(dsn, 1)
					rule := proxy.OnMessage(match, pgtest.CutBefore(pgtest.Both, cut))
					require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, write("a")))
					require.NoError(t, rule.Wait(s.context()))
					require.Equal(t, 1, s.notes("a"))
					require.Equal(t, 1, proxy.Stats().Seen("commit"))
				})
			})
		}
	}
}

// TestServerThatIsAwayIsWaitedFor: BEGIN of the second attempt needs a server that does not take connections yet.
func TestServerThatIsAwayIsWaitedFor(t *testing.T) {
	some(t, func(a adapter) bool { return a.ours && !a.pinned }, func(t *testing.T, s *stage) {
		proxy, dsn := s.proxied()
		var refused int
		hooks := retrypg.Hooks{Backoff: func(_ context.Context, i retrypg.BackoffInfo) {
			if i.Operation != "connect" {
				return
			}
			if refused++; refused == 3 {
				require.NoError(t, proxy.SetAccept(pgtest.AcceptForward))
			}
		}}
		db := s.openDSN(dsn, 1, retrypg.WithHooks(hooks))
		attempts := 0
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			attempts = retrypg.AttemptFromContext(ctx)
			if err := w.exec(ctx, "set local work_mem = '1MB'"); err != nil { // BEGIN may wait for the first statement
				return err
			}
			if attempts == 1 {
				require.NoError(t, proxy.SetAccept(pgtest.AcceptRefuse))
				proxy.CutAll(pgtest.Both, pgtest.RST)
			}
			return insert(ctx, w, "a")
		}))
		require.Equal(t, 2, attempts, "waiting for the server is not an attempt of the transaction")
		require.Equal(t, 3, refused)
		require.Equal(t, 1, s.notes("a"))
	})
}
