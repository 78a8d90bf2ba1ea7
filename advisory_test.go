package retrypg

import (
	"context"
	"database/sql"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// serverRefuses returns the ErrorResponse to a query.
func serverRefuses(t *testing.T, query string) []byte {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgt.Shared(t).DSN())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	_, err = conn.Exec(t.Context(), query, pgx.QueryExecModeSimpleProtocol)
	var e *pgconn.PgError
	require.ErrorAs(t, err, &e)
	msg, err := (&pgproto3.ErrorResponse{Severity: e.Severity, Code: e.Code, Message: e.Message}).Encode(nil)
	require.NoError(t, err)
	return msg
}

// TestALockThatTheSessionHasNotIsNotTakenOver, be it the only one, the first or the last: another session has it, behind a pooler that was
// not noticed.
func TestALockThatTheSessionHasNotIsNotTakenOver(t *testing.T) {
	l := &link{core: &core{}}
	for _, keys := range [][]int64{{1}, {1, 2, 3}} {
		for missing := range keys {
			held := slices.Delete(slices.Clone(keys), missing, missing+1)
			query := "begin; " + takeOver.text(keys)
			if len(held) > 0 {
				query = takeForSession.text(held) + "; " + query
			}
			err := l.refusedLocks(serverRefuses(t, query))
			require.ErrorIs(t, err, errOtherSession)
			require.ErrorContains(t, err, "rolled back")
		}
	}
	require.False(t, l.core.lockTexts.Load())
	require.True(t, l.core.lockPooled.Load(), "it is not tried again")
}

func TestAnErrorOfTheServerThatCannotBeReadIsOneAllTheSame(t *testing.T) {
	msg := serverRefuses(t, "select 1/0")
	l := &link{core: &core{}}
	require.Equal(t, "22012", SQLState(l.refusedLocks(msg)))
	for n := 5; n < len(msg); n++ {
		require.Error(t, l.refusedLocks(msg[:n]))
	}
}

func TestAStatementThatWasPreparedForLocksAndDroppedIsSentAsTextFromThenOn(t *testing.T) {
	l := &link{core: &core{}, preparable: true}
	require.True(t, l.preparesLocks(1))
	err := l.refusedLocks(serverRefuses(t, "execute retrypg_locks_0_1"))
	require.Equal(t, invalidStatementName, SQLState(err))
	var e *lockError
	require.ErrorAs(t, err, &e)
	require.True(t, e.again(), "over another connection")
	require.False(t, l.preparesLocks(1))
}

func TestBehindAPoolerThatWasNotNoticedNoLockIsOneOfASession(t *testing.T) {
	pool, err := NewPool(t.Context(), pgt.Shared(t).DSN("pool_max_conns=1"), WithContentionControl(ContentionOptions{AdvisoryLocks: true}))
	require.NoError(t, err)
	defer pool.Close()
	pool.core.lockPooled.Store(true)
	for level, want := range map[sql.IsolationLevel]string{sql.LevelReadCommitted: "2", sql.LevelDefault: "0", sql.LevelSerializable: "0"} {
		opts := TxOptions{Isolation: level, Keys: []string{"a", "b"}, MaxAttempts: 1}
		for range 8 {
			err := WithPgxTx(t.Context(), pool, opts, func(context.Context, pgx.Tx) error { return errInTheWay })
			require.Equal(t, "40001", SQLState(err))
		}
		require.NoError(t, WithPgxTx(t.Context(), pool, opts, func(ctx context.Context, tx pgx.Tx) error {
			var held string
			err := tx.QueryRow(ctx, "select count(*)::text from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()").Scan(&held)
			require.Equal(t, want, held, level)
			return err
		}))
	}
}
