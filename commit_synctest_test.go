package retrypg

import (
	"context"
	"database/sql"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

func TestACommitWhoseAnswerIsLostIsUnknownAndNeverRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []*CommitUnknownError
		db, s := scriptedFor(t, lostAt("commit", 1), WithHooks(Hooks{
			CommitUnknown: func(_ context.Context, err *CommitUnknownError) { told = append(told, err) },
		}))
		n, err := WithTxResult(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
			return 1, update(ctx, tx)
		})
		require.Zero(t, n)
		require.ErrorIs(t, err, ErrCommitUnknown)
		requireNotExhausted(t, err)
		require.Equal(t, OutcomeUnknown, Classify(err).Outcome)
		require.Equal(t, 1, ran(s, "begin"))
		require.Equal(t, 1, ran(s, "commit"))
		require.Len(t, told, 1)
		require.Zero(t, db.Stats().OpenConnections, "the connection is not used again")
	})
}

func TestACommitThatOutlastsTheDeadlineIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, func(_ *script.Session, sql string) script.Result {
			return script.Result{Hang: sql == "commit"}
		})
		start := time.Now()
		err := WithTx(within(t, time.Second), db, TxOptions{}, update)
		require.ErrorIs(t, err, ErrCommitUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, ran(s, "commit"))
		require.Equal(t, time.Second+answerGrace, time.Since(start), "an answer on its way is waited for")
	})
}

func TestACommitThatTheServerRefusedWithAConflictIsRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("commit", 2, conflictError()))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Equal(t, 3, ran(s, "begin"))
		require.Equal(t, 3, ran(s, "commit"))
	})
}

func TestASwallowedConflictIsRunAgainAndASwallowedViolationIsAnError(t *testing.T) {
	swallow := func(ctx context.Context, tx *sql.Tx) error {
		_ = update(ctx, tx)
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("update", 2, conflictError()))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, swallow))
		require.Equal(t, 3, ran(s, "begin"))
	})
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("update", 1000, serverError("23505", "duplicate key")))
		err := WithTx(t.Context(), db, TxOptions{}, swallow)
		require.Equal(t, "23505", SQLState(err))
		require.ErrorIs(t, err, pgx.ErrTxCommitRollback)
		require.ErrorContains(t, err, "return the statement's error")
		require.Equal(t, 1, ran(s, "begin"))
	})
}
