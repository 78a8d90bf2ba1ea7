package commit_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// kept opens a database on one connection, on which BEGIN is prepared, and returns what the server is sent for a BEGIN.
func (s *scene) kept(params ...string) (db *sql.DB, messages func() []string) {
	s.t.Helper()
	var mu sync.Mutex
	var seen []string
	s.proxy.OnMessages(1_000_000, func(m pgtest.Message) bool {
		if m.Dir == pgtest.FromClient && (m.Type == 'Q' || m.Type == 'E') && strings.Contains(m.SQL, "pg_current_xact_id() as x") {
			mu.Lock()
			seen = append(seen, string(m.Type))
			mu.Unlock()
		}
		return false
	}, pgtest.Pause())
	dsn := withKey(s.dsn, "retry_lazy_begin", "off")
	for _, p := range params {
		dsn += "&" + p
	}
	db = openDB(s.t, dsn, retrypg.Hooks{})
	for range 20 {
		require.NoError(s.t, retrypg.WithTx(s.t.Context(), db, retrypg.TxOptions{}, nothing))
	}
	return db, func() []string {
		mu.Lock()
		defer mu.Unlock()
		all := seen
		seen = nil
		return all
	}
}

// TestBeginIsPreparedOnAConnectionThatIsKept, where pgx may prepare statements.
func TestBeginIsPreparedOnAConnectionThatIsKept(t *testing.T) {
	s := newScene(t)
	_, messages := s.kept()
	require.Equal(t, strings.Repeat("Q", 10)+strings.Repeat("E", 10), strings.Join(messages(), ""))
	_, messages = newScene(t).kept("default_query_exec_mode=simple_protocol")
	require.Equal(t, strings.Repeat("Q", 20), strings.Join(messages(), ""))
}

// TestAPreparedBeginAsksWhatTheTextAsks: all that holds of a BEGIN as text holds of it.
func TestAPreparedBeginAsksWhatTheTextAsks(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	db, messages := s.kept()
	_ = messages()
	for name, match := range map[string]pgtest.Match{"answer": pgtest.Reply("commit"), "commit": pgtest.Sending("commit")} {
		s.proxy.OnMessage(match, pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, insertOne(name)))
		require.Equal(t, 1, s.items(name))
		require.Equal(t, "E", messages()[0])
		for range 20 { // the connection is another one now
			require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, nothing))
		}
		_ = messages()
	}

	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "set transaction isolation level serializable"); err != nil {
			return err
		}
		var level string
		err := tx.QueryRowContext(ctx, "show transaction_isolation").Scan(&level)
		require.Equal(t, "serializable", level)
		return err
	}))
	_, err := db.ExecContext(ctx, "set default_transaction_isolation = 'repeatable read'")
	require.NoError(t, err)
	_ = messages()
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"E"}, messages(), "which found out that it must not ask")
	_, err = s.admin.Exec(ctx, insertItem, "other's")
	require.NoError(t, err)
	var n int
	require.NoError(t, tx.QueryRowContext(ctx, "select count(*) from item where id = 'other''s'").Scan(&n))
	require.Equal(t, 1, n)
	require.NoError(t, tx.Commit())
}

// TestAPreparedBeginThatIsGoneIsSentAsText, from then on.
func TestAPreparedBeginThatIsGoneIsSentAsText(t *testing.T) {
	for _, text := range []string{"deallocate all", "discard all", "deallocate retrypg_xid", "deallocate retrypg_begin"} {
		s := newScene(t)
		db, messages := s.kept()
		_, err := db.ExecContext(t.Context(), text)
		require.NoError(t, err)
		_ = messages()
		for i := range 3 {
			id := fmt.Sprint(text, i)
			require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, insertOne(id)))
			require.Equal(t, 1, s.items(id))
		}
		require.Equal(t, "QQQ", strings.TrimPrefix(strings.Join(messages(), ""), "E"), text)
	}
}

// TestAPreparedBeginThatMeetsADeadConnectionIsSentOnAnother.
func TestAPreparedBeginThatMeetsADeadConnectionIsSentOnAnother(t *testing.T) {
	s := newScene(t)
	db, messages := s.kept()
	_ = messages()
	s.proxy.OnMessage(pgtest.Sending("begin"), pgtest.CutBefore(pgtest.Both, pgtest.RST))
	require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, insertOne("a")))
	require.Equal(t, 1, s.items("a"))
	sent := messages()
	require.Equal(t, "Q", sent[len(sent)-1], "over a new connection")
}

// TestAStatementOfTheProgramsOwnIsNotTakenForBegin: it may have the same name.
func TestAStatementOfTheProgramsOwnIsNotTakenForBegin(t *testing.T) {
	s := newScene(t)
	db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Prepare(ctx, "retrypg_begin", "select 1")
		return err
	}))
	for i := range 15 {
		require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, insertOne(fmt.Sprint(i))))
	}
	require.Equal(t, 1, s.items("14"))
}
