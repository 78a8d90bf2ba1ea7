package retrypg

import (
	"context"
	"database/sql"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

// contend makes the transactions of db with these options contended: each conflicts, and is not run again.
func contend(t *testing.T, db *sql.DB, opts TxOptions) {
	t.Helper()
	opts.MaxAttempts = 1
	for range 6 {
		require.Equal(t, "40001", SQLState(WithTx(t.Context(), db, opts, func(context.Context, *sql.Tx) error { return &pgconn.PgError{Severity: "ERROR", Code: "40001"} })))
	}
}

// holding runs a transaction until release is called, which waits for its end.
func holding(t *testing.T, db *sql.DB, opts TxOptions) (release func()) {
	t.Helper()
	begun, end, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		if err := WithTx(t.Context(), db, opts, func(context.Context, *sql.Tx) error {
			close(begun)
			<-end
			return nil
		}); err != nil {
			t.Error(err)
		}
	}()
	<-begun
	return func() {
		close(end)
		<-done
	}
}

var byKeys = map[string]TxOptions{"keys": {Name: "transfer", Keys: []string{"a", "b", "a"}}, "no keys": {Name: "transfer"}}

func TestWhoWaitsForItsTurnHoldsNoConnectionAndObeysItsContextAndItsTime(t *testing.T) {
	for name, opts := range byKeys {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, nil)
				c, err := coreOf(t.Context(), db)
				require.NoError(t, err)
				contend(t, db, opts)
				release := holding(t, db, opts)
				begun := ran(s, "begin")

				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				start := time.Now()
				time.AfterFunc(50*time.Millisecond, func() {
					require.Equal(t, 1, db.Stats().InUse)
					require.Equal(t, 1, c.contention.State().Waiting)
				})
				err = WithTx(ctx, db, opts, update)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "not begun")
				require.Equal(t, 100*time.Millisecond, time.Since(start))

				late := opts
				late.MaxElapsed = 200 * time.Millisecond
				start = time.Now()
				e := requireExhausted(t, WithTx(t.Context(), db, late, update))
				require.Equal(t, policy.StopMaxElapsed, e.Reason)
				require.Zero(t, e.Attempts)
				require.Equal(t, 200*time.Millisecond, time.Since(start))
				require.Equal(t, begun, ran(s, "begin"))

				release()
				require.NoError(t, WithTx(t.Context(), db, opts, update))
			})
		})
	}
}

func TestATransactionInsideOfAnotherOnAnotherHandleIsNotMadeToWait(t *testing.T) {
	for name, opts := range byKeys {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, _ := scriptedFor(t, nil)
				contend(t, db, opts)
				start := time.Now()
				err := WithTx(t.Context(), db, opts, func(ctx context.Context, _ *sql.Tx) error {
					conn, err := db.Conn(ctx)
					require.NoError(t, err)
					defer conn.Close()
					return WithTx(ctx, conn, opts, update)
				})
				require.NoError(t, err)
				require.Zero(t, time.Since(start))
			})
		})
	}
}

// TestWhoWaitsForItselfGoesOnAfterAWhile: the context does not tell that one runs inside of the other.
func TestWhoWaitsForItselfGoesOnAfterAWhile(t *testing.T) {
	for name, opts := range byKeys {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, _ := scriptedFor(t, nil)
				contend(t, db, opts)
				start := time.Now()
				require.NoError(t, WithTx(t.Context(), db, opts, func(context.Context, *sql.Tx) error {
					return WithTx(t.Context(), db, opts, update)
				}))
				require.Equal(t, time.Second, time.Since(start))
			})
		})
	}
}

func TestAPanicGivesUpItsTurn(t *testing.T) {
	for name, opts := range byKeys {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, _ := scriptedFor(t, nil)
				contend(t, db, opts)
				require.Panics(t, func() {
					_ = WithTx(t.Context(), db, opts, func(context.Context, *sql.Tx) error { panic("boom") })
				})
				start := time.Now()
				require.NoError(t, WithTx(t.Context(), db, opts, update))
				require.Zero(t, time.Since(start))
			})
		})
	}
}

func TestBeforeAnAttemptThatIsAdmittedInItsTurnNobodySleepsButByThePolicyOfTheUser(t *testing.T) {
	for name, tt := range map[string]struct {
		opts []Option
		want time.Duration
	}{
		"default": {nil, 0},
		"of the user": {
			[]Option{WithBackoff(policy.Must(policy.Fixed(time.Second, policy.NoJitter)))}, 3 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, failing("update", 3, conflictError()), tt.opts...)
				contend(t, db, TxOptions{})
				start, begun := time.Now(), ran(s, "begin")
				require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
				require.Equal(t, tt.want, time.Since(start))
				require.Equal(t, 4, ran(s, "begin")-begun)
			})
		})
	}
}

func TestAConflictWithSomebodyElsewhereIsWaitedOutAsLongAsEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("update", 9, conflictError()))
		c, err := coreOf(t.Context(), db)
		require.NoError(t, err)
		set := c.tuned.Load().set
		set.jitter = policy.NoJitter
		tuned, err := c.tune(set)
		require.NoError(t, err)
		c.tuned.Store(tuned)
		start := time.Now()
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Equal(t, 10, ran(s, "begin"))
		require.Greater(t, time.Since(start), time.Second, "no attempt is left, and none was made in vain while there was hope")
	})
}

func TestWithoutContentionControlNobodyWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := scriptedFor(t, nil, WithoutContentionControl())
		contend(t, db, TxOptions{})
		release := holding(t, db, TxOptions{})
		start := time.Now()
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Zero(t, time.Since(start))
		release()
	})
}
