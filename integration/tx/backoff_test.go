package tx_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// TestConnectionIsGivenBackBeforeTheBackoff: with a pool of one connection somebody else gets it between two attempts.
// The closure goes on failing until that has happened.
func TestConnectionIsGivenBackBeforeTheBackoff(t *testing.T) {
	some(t, pooled, func(t *testing.T, s *stage) {
		db := s.openDSN(s.dsn(), 1)
		ctx := s.context()
		served := make(chan error, 1)
		done := false
		require.NoError(t, db.withTx(ctx, retrypg.TxOptions{MaxAttempts: 100}, func(ctx context.Context, w work) error {
			if retrypg.AttemptFromContext(ctx) == 1 {
				outside := s.context()
				go func() { served <- db.exec(outside, "insert into note (id) values ('other')") }()
			}
			select {
			case err := <-served:
				done = true
				return err
			default:
				return w.exec(ctx, conflict)
			}
		}))
		require.True(t, done)
		require.Equal(t, 1, s.notes("other"))
	})
}

// TestNothingIsOpenOnTheServerDuringTheBackoff looks at the server when a wait begins.
func TestNothingIsOpenOnTheServerDuringTheBackoff(t *testing.T) {
	for name, fail := range map[string]closure{
		"failed statement": func(ctx context.Context, w work) error { return w.exec(ctx, conflict) },
		"swallowed":        func(ctx context.Context, w work) error { _ = w.exec(ctx, conflict); return nil },
		"rolled back by the closure": func(ctx context.Context, w work) error {
			err := w.exec(ctx, conflict)
			if rollback := w.rollback(ctx); rollback != nil {
				return rollback
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			some(t, ours, func(t *testing.T, s *stage) {
				waits := 0
				hooks := retrypg.Hooks{Backoff: func(_ context.Context, i retrypg.BackoffInfo) {
					waits++
					require.Equal(t, "transaction", i.Operation)
					require.Equal(t, "transfer", i.Name)
					require.Equal(t, waits, i.Attempt)
					require.Equal(t, retrypg.RetryTransaction, i.Class.Retry)
					require.Equal(t, "idle", s.ask("select string_agg(state, ',') from pg_stat_activity where application_name = $1", s.name))
				}}
				db := s.openDSN(s.dsn(), 1, retrypg.WithHooks(hooks))
				opts := retrypg.TxOptions{Name: "transfer"}
				require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
					if retrypg.AttemptFromContext(ctx) < 4 {
						return fail(ctx, w)
					}
					return nil
				}))
				require.Equal(t, 3, waits)
			})
		})
	}
}
