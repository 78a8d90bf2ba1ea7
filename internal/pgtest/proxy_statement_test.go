//go:build unix

package pgtest_test

import (
	"io"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
)

func TestExtendedStatementIsCutExactlyWhereTheRuleSays(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec"} {
		for _, tc := range []struct {
			name      string
			match     pgtest.Match
			committed int
		}{
			{"before the server gets it", pgtest.Sending("insert"), 0},
			{"when the server has it all", pgtest.Sent("insert"), 1},
			{"with the reply at the proxy", pgtest.ReplyReady("insert"), 1},
		} {
			t.Run(mode+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				s := newSetup(t)
				s.proxy.DropCancels(true)
				conn := connect(t, s.dsn("default_query_exec_mode="+mode))
				pid := conn.PgConn().PID()
				const insert = "insert into t values ($1)"
				_, err := conn.Exec(t.Context(), insert, 1) // describes it, so that the next run is one batch if the mode caches
				require.NoError(t, err)
				action := pgtest.CutBefore(pgtest.Both, pgtest.FIN)
				if tc.name == "when the server has it all" {
					action = pgtest.CutAfter(pgtest.Both, pgtest.FIN)
				}
				s.proxy.OnMessage(tc.match, action)
				_, err = conn.Exec(t.Context(), insert, 2)
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				s.waitBackendGone(t, pid)
				require.Equal(t, 1+tc.committed, s.rows(t))
			})
		}
	}
}

func TestRowsBeforeTheCutArrive(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn := s.connect(t)
	s.proxy.OnMessage(pgtest.Row("select g", 3), pgtest.CutAfter(pgtest.Both, pgtest.FIN))
	rows, err := conn.Query(t.Context(), "select g from generate_series(1, 10) g")
	require.NoError(t, err)
	var got []int
	_, err = pgx.ForEachRow(rows, []any{new(int)}, func() error {
		got = append(got, len(got)+1)
		return nil
	})
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, []int{1, 2, 3}, got)
}

func TestIdleConnectionIsCut(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		how   pgtest.Cut
		args  []any
		check func(t *testing.T, err error)
	}{
		{"FIN, simple", pgtest.FIN, nil, func(t *testing.T, err error) { require.ErrorContains(t, err, "conn closed") }},
		{"FIN, extended", pgtest.FIN, []any{1}, func(t *testing.T, err error) { require.ErrorIs(t, err, io.ErrUnexpectedEOF) }},
		{"RST, simple", pgtest.RST, nil, func(t *testing.T, err error) { require.ErrorIs(t, err, syscall.ECONNRESET) }},
		{"RST, extended", pgtest.RST, []any{1}, func(t *testing.T, err error) { require.ErrorIs(t, err, syscall.ECONNRESET) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t)
			conn := s.connect(t)
			sql := "insert into t values (1)"
			if tc.args != nil {
				sql = "insert into t values ($1)"
				_, err := conn.Prepare(t.Context(), sql, sql)
				require.NoError(t, err)
			}
			require.Equal(t, 1, s.proxy.CutAll(pgtest.Both, tc.how))
			s.waitBackendGone(t, conn.PgConn().PID())
			_, err := conn.Exec(t.Context(), sql, tc.args...)
			tc.check(t, err)
			require.Zero(t, s.rows(t))
			require.Zero(t, s.proxy.CutAll(pgtest.Both, tc.how), "it was cut already")
		})
	}
}

func TestAnswerReplacesTheServer(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn := s.connect(t)
	s.proxy.OnMessages(2, pgtest.Sending("insert"), pgtest.Answer(
		&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "40001", Message: "told to"},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	))
	for range 2 {
		_, err := conn.Exec(t.Context(), "insert into t values (1)")
		requireCode(t, err, "40001")
		require.False(t, conn.IsClosed())
	}
	_, err := conn.Exec(t.Context(), "insert into t values (1)")
	require.NoError(t, err)
	require.Equal(t, 1, s.rows(t))
}

func TestFirstOfTwoRulesTakesTheMessage(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn := s.connect(t)
	failWith := func(code string) pgtest.Action {
		return pgtest.Answer(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code},
			&pgproto3.ReadyForQuery{TxStatus: 'I'})
	}
	first := s.proxy.OnMessage(pgtest.Sending("select"), failWith("40001"))
	second := s.proxy.OnMessage(pgtest.Sending("select"), failWith("40P01"))
	removed := s.proxy.OnMessage(pgtest.Sending("select"), failWith("XX000"))
	removed.Remove()
	for _, code := range []string{"40001", "40P01"} {
		_, err := conn.Exec(t.Context(), "select from t")
		requireCode(t, err, code)
	}
	_, err := conn.Exec(t.Context(), "select from t")
	require.NoError(t, err)
	require.Equal(t, []int{1, 1, 0}, []int{first.Fired(), second.Fired(), removed.Fired()})
}

func TestSeveralStatementsInOneQueryAreAnsweredUnderItsText(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn := s.connect(t)
	s.proxy.OnMessage(pgtest.Tag("SELECT 1"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	results, err := conn.PgConn().Exec(t.Context(), "begin; select pg_current_xact_id()").ReadAll()
	require.Error(t, err)
	require.NotEmpty(t, results)
	require.Equal(t, "BEGIN", results[0].CommandTag.String(), "the first answer had passed")
	require.Equal(t, 1, s.proxy.Stats().Seen("BEGIN;"))
}
