package driver_test

import (
	"context"
	"database/sql"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// sleepAtCommit makes COMMIT wait in the server until it is ended from outside. The commit record is not written then.
const sleepAtCommit = `create function nap() returns trigger language plpgsql as 'begin perform pg_sleep(300); return null; end';
	create constraint trigger nap after insert on t deferrable initially deferred for each row execute function nap()`

// committing is a transaction that has inserted one row and is about to commit.
type committing struct {
	*scene
	db *sql.DB
	tx *sql.Tx
	// Calls of the hooks of these names.
	unknowns, checks, unreplicated atomic.Int32
}

func newCommitting(ctx context.Context, s *scene, opts ...retrypg.Option) *committing {
	s.t.Helper()
	c := &committing{scene: s}
	c.db = s.openWith(s.dsn(), append(opts, retrypg.WithHooks(retrypg.Hooks{
		CommitUnknown:      func(context.Context, *retrypg.CommitUnknownError) { c.unknowns.Add(1) },
		CommitChecked:      func(context.Context, retrypg.CommitCheckInfo) { c.checks.Add(1) },
		CommitUnreplicated: func(context.Context, *pgconn.Notice) { c.unreplicated.Add(1) },
	}))...)
	c.db.SetMaxOpenConns(1)
	var err error
	c.tx, err = c.db.BeginTx(ctx, nil)
	require.NoError(s.t, err)
	_, err = c.tx.ExecContext(ctx, insertRow)
	require.NoError(s.t, err)
	return c
}

// pid is that of the backend of the transaction's connection, to be called where the handle has no other.
func (c *committing) pid() (pid int) {
	c.t.Helper()
	require.NoError(c.t, c.db.QueryRowContext(c.context(), "select pg_backend_pid()").Scan(&pid))
	return pid
}

// asleep waits until COMMIT runs the trigger of sleepAtCommit.
func (c *committing) asleep() {
	c.t.Helper()
	c.wait("exists (select from pg_stat_activity where " + c.mine() + " and wait_event = 'PgSleep')")
}

func (c *committing) requireUnknown(err error) {
	c.t.Helper()
	require.ErrorIs(c.t, err, retrypg.ErrCommitUnknown)
	require.IsType(c.t, &retrypg.CommitUnknownError{}, err)
	require.Equal(c.t, retrypg.Class{
		Retry: retrypg.RetryNever, Outcome: retrypg.OutcomeUnknown, SQLState: retrypg.SQLState(err), Reason: "commit outcome unknown",
	}, retrypg.Classify(err))
	require.EqualValues(c.t, 1, c.unknowns.Load(), "calls of the hook")
	require.NotContains(c.t, err.Error(), "conn closed")
	require.NoError(c.t, c.db.PingContext(c.context()))
}

func (c *committing) requireNotApplied(err error) {
	c.t.Helper()
	require.Error(c.t, err)
	require.NotErrorIs(c.t, err, retrypg.ErrCommitUnknown)
	require.Zero(c.t, c.unknowns.Load(), "calls of the hook")
	require.NoError(c.t, c.db.PingContext(c.context()))
	c.settle()
	require.Zero(c.t, c.rows())
}

// fatal is what a server or a pooler says as it ends a connection. Only a server names a routine.
func fatal(code, message string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message}
}

const either = -1 // the server may have been quicker than the cut, or not

// lostAnswers are ways to lose the answer to COMMIT, and how many rows are there afterwards.
var lostAnswers = []struct {
	name  string
	match pgtest.Match
	cut   pgtest.Action
	rows  int
}{
	{"cut before the server got it", pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), 0},
	{"reset before the server got it", pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.RST), 0},
	{"cut with half of it sent", pgtest.Sending("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN), 0},
	{"cut after the server got it", pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Both, pgtest.FIN), either},
	{"reset after the server got it", pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Both, pgtest.RST), either},
	{"cut before the reply", pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), 1},
	{"cut inside the reply", pgtest.Reply("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN), 1},
	{
		"a pooler says that its server is gone", pgtest.Reply("commit"),
		pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(fatal("08P01", "server conn crashed?")), 1,
	},
}

// TestCommitIsSettledWhenItsAnswerWasLost: nil where the row is there, and an error that says so where it is not.
func TestCommitIsSettledWhenItsAnswerWasLost(t *testing.T) {
	server := newServer(t)
	for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
		for _, tc := range lostAnswers {
			t.Run(check.String()+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				c := newCommitting(s.context(), s, retrypg.WithCommitCheck(check))
				s.proxy.OnMessage(tc.match, tc.cut)
				err := c.tx.Commit()
				rows := s.rows()
				switch {
				case err == nil:
					require.Equal(t, 1, rows)
				default:
					c.requireNotApplied(err)
					require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
				}
				if tc.rows != either {
					require.Equal(t, tc.rows, rows)
				}
				require.EqualValues(t, 1, c.checks.Load())
				require.Zero(t, c.unreplicated.Load())
			})
		}
	}
}

func TestCommitIsUnknownWhenItsAnswerWasLostAndNobodyAsks(t *testing.T) {
	server := newServer(t)
	for _, tc := range lostAnswers {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			c := newCommitting(s.context(), s, retrypg.WithCommitCheck(retrypg.NoCheck))
			s.proxy.OnMessage(tc.match, tc.cut)
			err := c.tx.Commit()
			c.requireUnknown(err)
			s.settle()
			if tc.rows == either {
				require.LessOrEqual(t, s.rows(), 1)
			} else {
				require.Equal(t, tc.rows, s.rows())
			}
		})
	}
}

// TestCommitIsNilWhenOnlyItsReplicationIsUnknown: the server says that it has committed, and goes.
func TestCommitIsNilWhenOnlyItsReplicationIsUnknown(t *testing.T) {
	s := newScene(t, newServer(t))
	c := newCommitting(s.context(), s)
	s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(&pgproto3.NoticeResponse{
		Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "57P01", Routine: "SyncRepWaitForLSN",
		Message: "canceling the wait for synchronous replication and terminating connection due to administrator command",
	}))
	require.NoError(t, c.tx.Commit())
	require.Equal(t, 1, s.rows())
	require.EqualValues(t, 1, c.unreplicated.Load())
	require.Zero(t, c.checks.Load(), "there was nothing to ask")
	require.Zero(t, c.unknowns.Load())
}

func TestCommitThatTheServerConfirmedIsNilWhateverFollows(t *testing.T) {
	server := newServer(t)
	for name, cut := range map[string]pgtest.Action{
		"cut":              pgtest.CutBefore(pgtest.Both, pgtest.FIN),
		"termination":      pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(fatal("57P01", "terminating connection")),
		"error of a proxy": pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(fatal("08P01", "server conn crashed?")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			c := newCommitting(s.context(), s)
			rule := s.proxy.OnMessage(pgtest.ReplyReady("commit"), cut)
			require.NoError(t, c.tx.Commit())
			require.NoError(t, rule.Wait(s.context()))
			require.Equal(t, 1, s.rows())
			require.Zero(t, c.unknowns.Load())
			require.NoError(t, c.db.PingContext(s.context()))
		})
	}
}

func TestCommitThatTheServerRefusedIsItsBareErrorOnALivingConnection(t *testing.T) {
	server := newServer(t)
	t.Run("a deferred constraint", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		s.run("alter table t add constraint one unique (n) deferrable initially deferred")
		c := newCommitting(s.context(), s)
		_, err := c.tx.ExecContext(s.context(), insertRow)
		require.NoError(t, err)
		var pid int
		require.NoError(t, c.tx.QueryRowContext(s.context(), "select pg_backend_pid()").Scan(&pid))
		err = c.tx.Commit()
		requireBare(t, "23505", err)
		require.Equal(t, pid, c.pid())
		c.requireNotApplied(err)
	})
	t.Run("a serialization failure", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		db := s.open(ours)
		mine, err := db.BeginTx(s.context(), &sql.TxOptions{Isolation: sql.LevelSerializable})
		require.NoError(t, err)
		other, err := db.BeginTx(s.context(), &sql.TxOptions{Isolation: sql.LevelSerializable})
		require.NoError(t, err)
		for _, tx := range []*sql.Tx{mine, other} {
			require.NoError(t, readAll(tx.QueryContext(s.context(), "select * from t")))
		}
		for _, tx := range []*sql.Tx{mine, other} {
			_, err = tx.ExecContext(s.context(), insertRow)
			require.NoError(t, err)
		}
		require.NoError(t, other.Commit())
		err = mine.Commit()
		requireBare(t, "40001", err)
		require.Equal(t, retrypg.RetryTransaction, retrypg.Classify(err).Retry)
		require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
		require.Equal(t, 1, s.rows())
	})
	t.Run("a transaction that is aborted", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		c := newCommitting(s.context(), s)
		_, err := c.tx.ExecContext(s.context(), "select 1/0")
		requireBare(t, "22012", err)
		err = c.tx.Commit()
		require.Equal(t, pgx.ErrTxCommitRollback, err)
		require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
		c.requireNotApplied(err)
	})
	t.Run("a cancelled COMMIT", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		s.run(sleepAtCommit)
		c := newCommitting(s.context(), s)
		done := make(chan error, 1)
		go func() { done <- c.tx.Commit() }()
		c.asleep()
		_, err := s.server.Cluster.CancelBackends(s.context(), s.mine())
		require.NoError(t, err)
		err = <-done
		requireBare(t, "57014", err)
		c.requireNotApplied(err)
	})
}

func TestCommitOfATerminatedBackendIsTheServersErrorAndNotApplied(t *testing.T) {
	server := newServer(t)
	t.Run("during COMMIT", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		s.run(sleepAtCommit)
		c := newCommitting(s.context(), s)
		done := make(chan error, 1)
		go func() { done <- c.tx.Commit() }()
		c.asleep()
		s.terminate()
		err := <-done
		requireBare(t, "57P01", err)
		require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
		c.requireNotApplied(err)
	})
	t.Run("before COMMIT", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		c := newCommitting(s.context(), s)
		s.terminate()
		err := c.tx.Commit()
		requireBare(t, "57P01", err)
		c.requireNotApplied(err)
	})
}

func TestCommitOnAConnectionKnownToBeBrokenIsNotApplied(t *testing.T) {
	server := newServer(t)
	t.Run("reset while idle", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		c := newCommitting(s.context(), s)
		require.Equal(t, 1, s.proxy.CutAll(pgtest.Both, pgtest.RST))
		s.gone()
		c.requireNotApplied(c.tx.Commit())
	})
	t.Run("closed while idle", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		c := newCommitting(s.context(), s)
		require.Equal(t, 1, s.proxy.CutAll(pgtest.Both, pgtest.FIN))
		s.gone()
		c.requireNotApplied(c.tx.Commit())
	})
	t.Run("closed by an earlier statement", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		c := newCommitting(s.context(), s)
		s.proxy.CutAll(pgtest.Both, pgtest.FIN)
		_, err := c.tx.ExecContext(s.context(), insertRow)
		requireLost(t, err)
		c.requireNotApplied(c.tx.Commit())
	})
}
