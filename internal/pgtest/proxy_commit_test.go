//go:build unix

package pgtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
)

func fatal(code, message string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message}
}

// What pgx 5.12 reports in each case is written down here because retrypg is built on it: on the simple protocol,
// which carries COMMIT, it says "conn closed" whatever became of the connection.
func TestCommitIsCutExactlyWhereTheRuleSays(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name      string
		match     pgtest.Match
		action    pgtest.Action
		err       string
		tag       string
		committed int
	}{
		{"before the server gets it, FIN", pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), "conn closed", "", 0},
		{"before the server gets it, RST", pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.RST), "conn closed", "", 0},
		{"with half of it", pgtest.Sending("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN), "conn closed", "", 0},
		{"after the server got it", pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Both, pgtest.FIN), "conn closed", "", 1},
		{"after the server got it, client reset", pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Client, pgtest.RST), "conn closed", "", 1},
		{"with the reply at the proxy, FIN", pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), "conn closed", "", 1},
		{"with the reply at the proxy, RST", pgtest.Tag("COMMIT"), pgtest.CutBefore(pgtest.Both, pgtest.RST), "conn closed", "", 1},
		{"with half of the reply", pgtest.Reply("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN), "conn closed", "", 1},
		{"after the reply, before ReadyForQuery", pgtest.ReplyReady("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), "conn closed", "COMMIT", 1},
		{
			"before the server gets it, with a last word of the server", pgtest.Sending("commit"),
			pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(fatal("57P01", "terminating")), "57P01", "", 0,
		},
		{
			"after the server got it, with a last word of a pooler", pgtest.Sent("commit"),
			pgtest.CutAfter(pgtest.Both, pgtest.FIN).Telling(fatal("08P01", "server conn crashed?")), "08P01", "", 1,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t)
			s.proxy.DropCancels(true)
			conn := s.connect(t)
			pid := conn.PgConn().PID()
			_, err := conn.Exec(t.Context(), "begin")
			require.NoError(t, err)
			_, err = conn.Exec(t.Context(), "insert into t values (1)")
			require.NoError(t, err)
			rule := s.proxy.OnMessage(tc.match, tc.action)
			tag, err := conn.Exec(t.Context(), "commit")
			require.ErrorContains(t, err, tc.err)
			require.Equal(t, tc.tag, tag.String())
			require.NoError(t, rule.Wait(t.Context()))
			require.Equal(t, 1, rule.Fired())
			require.True(t, conn.IsClosed())
			require.Zero(t, s.proxy.Stats().Active)
			if tc.name == "after the server got it, client reset" {
				s.proxy.CutAll(pgtest.Server, pgtest.FIN) // the server had not noticed
			}
			s.waitBackendGone(t, pid)
			require.Equal(t, tc.committed, s.rows(t))
		})
	}
}

func inserted(t *testing.T, s *setup) (*pgx.Conn, uint32) {
	t.Helper()
	s.proxy.DropCancels(true)
	conn := s.connect(t)
	_, err := conn.Exec(t.Context(), "begin")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "insert into t values (1)")
	require.NoError(t, err)
	return conn, conn.PgConn().PID()
}

func commit(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "commit")
	return err
}

func TestLateCommitArrivesAfterTheClientIsGone(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn, pid := inserted(t, s)
	rule := s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.DeliverLate(pgtest.RST))
	require.Error(t, commit(t.Context(), conn))
	require.NoError(t, rule.Wait(t.Context()))
	s.waitBackend(t, pid, "state = 'idle in transaction'")
	require.Equal(t, 0, s.rows(t))
	rule.Release()
	s.waitBackendGone(t, pid)
	require.Equal(t, 1, s.rows(t))
}

func TestStrandedCommitStaysInProgressUntilTheBackendIsTerminated(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn, pid := inserted(t, s)
	s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Client, pgtest.FIN))
	require.ErrorContains(t, commit(t.Context(), conn), "conn closed")
	s.waitBackend(t, pid, "state = 'idle in transaction'")
	n, err := s.db.Cluster.TerminateBackends(t.Context(), "datname = '"+s.db.Name+"' and state = 'idle in transaction'")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	s.waitBackendGone(t, pid)
	require.Equal(t, 0, s.rows(t))
}

func TestClientRunsIntoItsDeadlineWhenNobodyTellsIt(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name      string
		match     pgtest.Match
		action    pgtest.Action
		committed int
	}{
		{"only the server's side was cut", pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Server, pgtest.FIN), 0},
		{"COMMIT lost in a black hole", pgtest.Sending("commit"), pgtest.BlackHoleBefore(), 0},
		{"its reply lost in a black hole", pgtest.Sent("commit"), pgtest.BlackHoleAfter(), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t)
			conn, pid := inserted(t, s)
			s.proxy.OnMessage(tc.match, tc.action)
			require.ErrorIs(t, commit(patience(t), conn), context.DeadlineExceeded)
			s.proxy.CutAll(pgtest.Both, pgtest.FIN)
			s.waitBackendGone(t, pid)
			require.Equal(t, tc.committed, s.rows(t))
		})
	}
}

func TestPausedCommitGoesOnWhenReleased(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn, pid := inserted(t, s)
	rule := s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.Pause())
	done := inBackground(func() error { return commit(t.Context(), conn) })
	require.NoError(t, rule.Wait(t.Context()))
	s.waitBackend(t, pid, "state = 'idle in transaction'")
	requireNoAnswer(t, done)
	rule.Release()
	require.NoError(t, <-done)
	require.Equal(t, 1, s.rows(t))
}

func TestPausedCommitIsLostWhenTheConnectionIsCutMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn, pid := inserted(t, s)
	rule := s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.Pause())
	done := inBackground(func() error { return commit(t.Context(), conn) })
	require.NoError(t, rule.Wait(t.Context()))
	require.Equal(t, 1, s.proxy.CutAll(pgtest.Both, pgtest.FIN))
	require.Error(t, <-done)
	rule.Release()
	s.waitBackendGone(t, pid)
	require.Equal(t, 0, s.rows(t))
}
