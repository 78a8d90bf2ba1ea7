package commit_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// asked returns a database whose BEGIN waits for the first statement, and what the server is sent for the question for an id: a letter
// for each message, P Parse, E Execute, Q Query.
func (s *scene) asked() (db *sql.DB, messages func() string) {
	s.t.Helper()
	var mu sync.Mutex
	var seen strings.Builder
	s.proxy.OnMessages(1_000_000, func(m pgtest.Message) bool {
		if m.Dir == pgtest.FromClient && strings.Contains("PEQ", string(m.Type)) && strings.Contains(m.SQL, "pg_current_xact_id() as x") {
			mu.Lock()
			seen.WriteByte(m.Type)
			mu.Unlock()
		}
		return false
	}, pgtest.Pause())
	return openDB(s.t, s.dsn, retrypg.Hooks{}, retrypg.WithLazyBegin(true)), func() string {
		mu.Lock()
		defer mu.Unlock()
		all := seen.String()
		seen.Reset()
		return all
	}
}

func TestTheQuestionIsPreparedWithAFlightOfAConnectionThatIsKept(t *testing.T) {
	for _, text := range []string{"discard all", "deallocate all", "deallocate retrypg_xid"} {
		s := newScene(t)
		db, messages := s.asked()
		for i := range 15 {
			require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, insertOne(fmt.Sprint(i))))
		}
		require.Equal(t, strings.Repeat("PE", 11)+"EEEE", messages(), "the eleventh prepares it")
		_, err := db.ExecContext(t.Context(), text)
		require.NoError(t, err)
		// Without arguments: pgx's own prepared statements have gone, too.
		require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "insert into item values ('"+text+"')")
			return err
		}))
		require.Equal(t, "PE", messages(), text)
	}
}

func TestALostCommitIsSettledByTheAnswerThatCameWithAStatement(t *testing.T) {
	for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelRepeatableRead, sql.LevelSerializable} {
		for name, match := range map[string]pgtest.Match{"applied": pgtest.Reply("commit"), "not applied": pgtest.Sending("commit")} {
			t.Run(level.String()+" "+name, func(t *testing.T) {
				s := newScene(t)
				db, messages := s.asked()
				s.proxy.OnMessage(match, pgtest.CutBefore(pgtest.Both, pgtest.FIN))
				runs := 0
				require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{Isolation: level}, func(ctx context.Context, tx *sql.Tx) error {
					runs++
					return insertOne("a")(ctx, tx)
				}))
				require.Equal(t, 1, s.items("a"))
				if name == "applied" {
					require.Equal(t, 1, runs)
					require.Equal(t, "PE", messages())
				} else {
					require.Equal(t, 2, runs)
				}
			})
		}
	}
}

// TestTheSnapshotIsTakenByTheFirstQueryOfTheProgram: neither BEGIN, which waits, nor the question takes it.
func TestTheSnapshotIsTakenByTheFirstQueryOfTheProgram(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	db, messages := s.asked()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	require.NoError(t, err)
	_, err = tx.ExecContext(ctx, "lock table item in row share mode")
	require.NoError(t, err)
	_, err = s.admin.Exec(ctx, insertItem, "other's")
	require.NoError(t, err)
	_, err = tx.ExecContext(ctx, "set local work_mem = '1MB'")
	require.NoError(t, err)
	require.Empty(t, messages())
	var n int
	require.NoError(t, tx.QueryRowContext(ctx, "select count(*) from item").Scan(&n))
	require.Equal(t, 1, n)
	require.Equal(t, "PE", messages())
	_, err = s.admin.Exec(ctx, insertItem, "another's")
	require.NoError(t, err)
	require.NoError(t, tx.QueryRowContext(ctx, "select count(*) from item").Scan(&n))
	require.Equal(t, 1, n)
	require.NoError(t, tx.Commit())
}

func TestAFirstStatementThatSetsACharacteristicIsNotAskedWith(t *testing.T) {
	s := newScene(t)
	db, messages := s.asked()
	require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
		for _, text := range []string{"set local work_mem = '1MB'", "set transaction isolation level serializable"} {
			if _, err := tx.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		var level string
		err := tx.QueryRowContext(ctx, "show transaction_isolation").Scan(&level)
		require.Equal(t, "serializable", level)
		require.Empty(t, messages())
		return err
	}))
	require.Equal(t, "Q", messages(), "before COMMIT")
}

// TestWhatIsWrongInTheFirstStatementIsSaidAsWithoutABeginAheadOfIt: the position in the text, too.
func TestWhatIsWrongInTheFirstStatementIsSaidAsWithoutABeginAheadOfIt(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	for _, lazy := range []bool{true, false} {
		db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithLazyBegin(lazy))
		for query, args := range map[string][]any{"select 1, nope": nil, "select 1, nope, $1::int": {1}} {
			tx, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(ctx, query, args...)
			var pgErr *pgconn.PgError
			require.ErrorAs(t, err, &pgErr)
			require.Equal(t, "42703", pgErr.Code)
			require.EqualValues(t, 11, pgErr.Position)
			_, err = tx.ExecContext(ctx, "select 1")
			require.Equal(t, "25P02", retrypg.SQLState(err))
			require.Error(t, tx.Commit())
		}
	}
}
