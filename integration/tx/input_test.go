package tx_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

func TestNilClosureIsErrNilFunc(t *testing.T) {
	ctx := t.Context()
	var db *sql.DB // not even looked at
	var pool *pgxpool.Pool
	require.ErrorIs(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, nil), retrypg.ErrNilFunc)
	require.ErrorIs(t, retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, nil), retrypg.ErrNilFunc)
	_, err := retrypg.WithTxResult[int](ctx, db, retrypg.TxOptions{}, nil)
	require.ErrorIs(t, err, retrypg.ErrNilFunc)
	_, err = retrypg.WithPgxTxResult[int](ctx, pool, retrypg.TxOptions{}, nil)
	require.ErrorIs(t, err, retrypg.ErrNilFunc)
}

func TestNilDatabaseIsErrNilDB(t *testing.T) {
	for name, db := range map[string]retrypg.TxBeginner{
		"nil": nil, "typed nil sql.DB": (*sql.DB)(nil), "typed nil sql.Conn": (*sql.Conn)(nil),
	} {
		t.Run(name, func(t *testing.T) {
			fn := func(context.Context, *sql.Tx) error { panic("the closure ran") }
			require.ErrorIs(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, fn), retrypg.ErrNilDB)
		})
	}
	for name, db := range map[string]retrypg.PgxTxBeginner{
		"nil": nil, "typed nil Pool": (*retrypg.Pool)(nil), "typed nil pgxpool.Pool": (*pgxpool.Pool)(nil),
		"typed nil pgx.Conn": (*pgx.Conn)(nil),
	} {
		t.Run(name, func(t *testing.T) {
			fn := func(context.Context, pgx.Tx) error { panic("the closure ran") }
			require.ErrorIs(t, retrypg.WithPgxTx(t.Context(), db, retrypg.TxOptions{}, fn), retrypg.ErrNilDB)
		})
	}
}

func TestNegativeOptionsAreRefusedBeforeAnythingIsSent(t *testing.T) {
	for name, opts := range map[string]retrypg.TxOptions{
		"attempts": {MaxAttempts: -1},
		"elapsed":  {MaxElapsed: -time.Second},
		"absurd":   {MaxAttempts: -1 << 31, MaxElapsed: -1 << 63},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *stage) {
				db := s.open()
				err := db.withTx(s.context(), opts, func(context.Context, work) error { panic("the closure ran") })
				require.ErrorContains(t, err, "TxOptions")
				require.ErrorContains(t, err, "negative")
			})
		})
	}
}

func TestAbsurdlyLargeOptionsWork(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		opts := retrypg.TxOptions{MaxAttempts: 1<<31 - 1, MaxElapsed: 1<<63 - 1, Name: string(make([]byte, 1<<20))}
		attempts := 0
		require.NoError(t, db.withTx(s.context(), opts, func(ctx context.Context, w work) error {
			attempts = retrypg.AttemptFromContext(ctx)
			if attempts < 3 {
				return w.exec(ctx, conflict)
			}
			return nil
		}))
		require.Equal(t, 3, attempts)
	})
}

func TestClosedHandleIsAnErrorAtOnce(t *testing.T) {
	// A pgxpool.Conn that was released panics in pgxpool itself, whatever is done with it.
	released := func(a adapter) bool { return a.name == "retrypg.Pool_Conn" }
	some(t, func(a adapter) bool { return !released(a) }, func(t *testing.T, s *stage) {
		db := s.open()
		db.close()
		err := db.withTx(s.context(), retrypg.TxOptions{MaxElapsed: time.Hour}, func(context.Context, work) error { panic("the closure ran") })
		require.ErrorContains(t, err, "closed")
		require.NotErrorAs(t, err, new(*retrypg.ExhaustedError), "it was tried again")
		if s.adapter.name != "pgx.Conn" { // its "conn closed" proves nothing to Classify, see there
			require.Equal(t, retrypg.OutcomeNotStarted, retrypg.Classify(err).Outcome)
		}
	})
}

func TestContextThatHasEndedMeansThatNothingIsBegun(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		proxy, dsn := s.proxied()
		db := s.openDSN(dsn, 1)
		never := func(context.Context, work) error { panic("the closure ran") }

		cause := errors.New("the user went away")
		ctx, cancel := context.WithCancelCause(s.context())
		cancel(cause)
		err := db.withTx(ctx, retrypg.TxOptions{}, never)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, cause)

		ctx, stop := context.WithDeadline(s.context(), time.Now().Add(-time.Second))
		defer stop()
		require.ErrorIs(t, db.withTx(ctx, retrypg.TxOptions{}, never), context.DeadlineExceeded)
		require.Zero(t, proxy.Stats().Seen("begin"))
	})
}

func TestAttemptOutsideOfAClosureIsZero(t *testing.T) {
	require.Zero(t, retrypg.AttemptFromContext(t.Context()))
}
