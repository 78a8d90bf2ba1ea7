package driver_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// observed is what pgx says of a failed call, and what Classify makes of it.
type observed struct {
	text    string // part of the error's text
	code    string // SQLSTATE, "" if the server said nothing
	safe    bool   // pgconn.SafeToRetry
	closed  bool   // of the connection
	retry   retrypg.Retry
	outcome retrypg.Outcome
}

func (o observed) require(t *testing.T, conn *pgx.Conn, err error) {
	t.Helper()
	require.ErrorContains(t, err, o.text)
	require.Equal(t, o.safe, pgconn.SafeToRetry(err), "SafeToRetry of %q", err)
	require.Equal(t, o.closed, conn.IsClosed(), "closed")
	class := retrypg.Classify(err)
	require.Equal(t, o.code, class.SQLState)
	require.Equal(t, o.retry.String(), class.Retry.String(), "of %q", err)
	require.Equal(t, o.outcome.String(), class.Outcome.String(), "of %q", err)
}

// The kinds of errors that a lost connection ends with in pgx 5.12.
var (
	// "conn closed" hides the error of reading and claims to be safe, whether the statement ran or not.
	hidden     = observed{text: "conn closed", safe: true, closed: true, retry: retrypg.RetryReconnect}
	endOfFile  = observed{text: "unexpected EOF", closed: true, retry: retrypg.RetryReconnect}
	notWritten = observed{
		text: "write failed", safe: true, closed: true,
		retry: retrypg.RetryReconnect, outcome: retrypg.OutcomeNotStarted,
	}
	rawWrite   = observed{text: "connection reset by peer", closed: true, retry: retrypg.RetryReconnect}
	terminated = observed{
		text: "terminating connection due to administrator command", code: "57P01", closed: true,
		retry: retrypg.RetryReconnect, outcome: retrypg.OutcomeRolledBack,
	}
)

// pgxCalls are the ways in which plain pgx sends a statement: over the simple protocol, over the extended one, as BEGIN
// and as a batch.
var pgxCalls = map[string]func(context.Context, *pgx.Conn) error{
	"simple": func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, insertRow)
		return err
	},
	"extended": func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, insertRowArgs, 1)
		return err
	},
	"begin": func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Begin(ctx)
		return err
	},
	"batch": func(ctx context.Context, c *pgx.Conn) error {
		b := &pgx.Batch{}
		b.Queue(insertRowArgs, 1)
		return c.SendBatch(ctx, b).Close()
	},
}

func TestPgxReportsALostConnectionAsClassifyExpects(t *testing.T) {
	server := newServer(t)
	cutIdle := func(how pgtest.Cut) func(*scene) {
		return func(s *scene) {
			s.proxy.CutAll(pgtest.Both, how)
			s.gone()
		}
	}
	onInsert := func(match pgtest.Match, action pgtest.Action) func(*scene) {
		return func(s *scene) { s.proxy.OnMessage(match, action) }
	}
	for _, tc := range []struct {
		name  string
		fault func(*scene)
		want  map[string]observed
		rows  int
	}{
		{
			"backend terminated while idle", (*scene).terminate,
			map[string]observed{"simple": terminated, "extended": terminated, "begin": terminated, "batch": terminated},
			0,
		},
		{
			"closed while idle", cutIdle(pgtest.FIN),
			map[string]observed{"simple": hidden, "extended": endOfFile, "begin": hidden},
			0,
		},
		{
			"reset while idle", cutIdle(pgtest.RST),
			map[string]observed{"simple": notWritten, "extended": notWritten, "begin": notWritten, "batch": rawWrite},
			0,
		},
		{
			"cut before the server got it", onInsert(pgtest.Sending("insert into t"), pgtest.CutBefore(pgtest.Both, pgtest.FIN)),
			map[string]observed{"simple": hidden, "extended": endOfFile},
			0,
		},
		{
			"cut before the reply", onInsert(anyAnswer, pgtest.CutBefore(pgtest.Both, pgtest.FIN)),
			map[string]observed{"simple": hidden, "extended": endOfFile, "batch": hidden},
			1,
		},
	} {
		for call, want := range tc.want {
			t.Run(tc.name+"/"+call, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				var params []string
				if call == "batch" {
					params = []string{"default_query_exec_mode=exec"} // the mode in which a batch is one message sequence
				}
				conn := s.connect(params...)
				if call == "extended" { // only the statement itself is to be left to be sent
					_, err := conn.Prepare(s.context(), insertRowArgs, insertRowArgs)
					require.NoError(t, err)
				}
				tc.fault(s)
				want.require(t, conn, pgxCalls[call](s.context(), conn))
				s.settle()
				require.Equal(t, tc.rows, s.rows())
			})
		}
	}
}

func TestPgxReportsATerminatedStatementAsRolledBack(t *testing.T) {
	s := newScene(t, newServer(t))
	conn := s.connect()
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(s.t.Context(), "with x as (insert into t values (1)) select pg_sleep(300)")
		done <- err
	}()
	s.wait("exists (select from pg_stat_activity where " + s.mine() + " and wait_event = 'PgSleep')")
	s.terminate()
	terminated.require(t, conn, <-done)
	require.Zero(t, s.rows())
}

func TestPgxReportsCommitAsClassifyExpects(t *testing.T) {
	server := newServer(t)
	// begun returns a connection with a transaction that has inserted a row.
	begun := func(t *testing.T, ctx context.Context) (*scene, *pgx.Conn, pgx.Tx) {
		s := newScene(t, server)
		conn := s.connect()
		tx, err := conn.Begin(ctx)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, insertRow)
		require.NoError(t, err)
		return s, conn, tx
	}
	interrupted := func(text string) observed { return observed{text: text, closed: true} }

	t.Run("reply lost", func(t *testing.T) {
		t.Parallel()
		s, conn, tx := begun(t, t.Context())
		s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		hidden.require(t, conn, tx.Commit(s.context()))
		require.Equal(t, 1, s.rows())
	})
	t.Run("ReadyForQuery lost", func(t *testing.T) {
		t.Parallel()
		s, conn, _ := begun(t, t.Context())
		s.proxy.OnMessage(pgtest.ReplyReady("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		tag, err := conn.Exec(s.context(), "commit")
		hidden.require(t, conn, err)
		require.Equal(t, "COMMIT", tag.String())
		require.Equal(t, 1, s.rows())
	})
	t.Run("aborted transaction", func(t *testing.T) {
		t.Parallel()
		s, conn, tx := begun(t, t.Context())
		_, err := tx.Exec(s.context(), "select 1/0")
		observed{text: "division by zero", code: "22012", outcome: retrypg.OutcomeRolledBack}.require(t, conn, err)
		_, err = tx.Exec(s.context(), insertRow)
		observed{text: "aborted", code: "25P02", outcome: retrypg.OutcomeRolledBack}.require(t, conn, err)
		require.Equal(t, byte('E'), conn.PgConn().TxStatus())
		err = tx.Commit(s.context())
		require.Equal(t, pgx.ErrTxCommitRollback, err)
		observed{text: "commit", outcome: retrypg.OutcomeRolledBack}.require(t, conn, err)
		require.Equal(t, byte('I'), conn.PgConn().TxStatus())
	})
	t.Run("deadline during COMMIT", func(t *testing.T) {
		t.Parallel()
		ctx := newExpiring(t.Context())
		s, conn, tx := begun(t, ctx)
		s.afterwards(s.proxy.OnMessage(pgtest.Sent("commit"), pgtest.BlackHoleAfter()), ctx.expire)
		err := tx.Commit(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		interrupted("timeout: context deadline exceeded").require(t, conn, err)
	})
	t.Run("cancellation during COMMIT", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		s, conn, tx := begun(t, ctx)
		s.afterwards(s.proxy.OnMessage(pgtest.Sent("commit"), pgtest.BlackHoleAfter()), cancel)
		err := tx.Commit(ctx)
		require.ErrorIs(t, err, context.Canceled)
		interrupted("context canceled").require(t, conn, err)
	})
	t.Run("context done before COMMIT", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		s, conn, tx := begun(t, ctx)
		cancel()
		err := tx.Commit(ctx)
		observed{text: "context already done", safe: true, closed: true, outcome: retrypg.OutcomeNotStarted}.require(t, conn, err)
		s.settle()
		require.Zero(t, s.rows())
	})
}

func TestPgxReportsAStalePlanOrStatementAsHealable(t *testing.T) {
	server := newServer(t)
	for name, tc := range map[string]struct {
		behind string
		want   observed
	}{
		"cached plan": {"alter table t alter n type bigint", observed{
			text: "cached plan must not change result type", code: "0A000",
			retry: retrypg.RetryStatement, outcome: retrypg.OutcomeRolledBack,
		}},
		"statement gone": {"deallocate all", observed{
			text: "does not exist", code: "26000",
			retry: retrypg.RetryStatement, outcome: retrypg.OutcomeRolledBack,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			conn := s.connect()
			read := func() error {
				var n int
				return conn.QueryRow(s.context(), "select n from t union all select $1", 1).Scan(&n)
			}
			require.NoError(t, read())
			_, err := conn.Exec(s.context(), tc.behind)
			require.NoError(t, err)
			tc.want.require(t, conn, read())
			require.NoError(t, read(), "the same statement again works")
		})
	}
}
