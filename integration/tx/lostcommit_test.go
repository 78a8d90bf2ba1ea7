package tx_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// loss is one way to lose the answer to COMMIT.
type loss struct {
	match   pgtest.Match
	action  pgtest.Action
	applied bool
}

// losses are the ways after which nobody can know, from the evidence of the connection, what became of the COMMIT. The
// server can be asked.
var losses = map[string]loss{
	"cut before the server got it":            {pgtest.Sent("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), false},
	"reset before the server got it":          {pgtest.Sent("commit"), pgtest.CutBefore(pgtest.Both, pgtest.RST), false},
	"cut when the server had a half":          {pgtest.Sent("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN), false},
	"cut after the server got it":             {pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Client, pgtest.FIN), true},
	"reset after the server got it":           {pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Client, pgtest.RST), true},
	"cut before the answer":                   {pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), true},
	"cut in the middle of the answer":         {pgtest.Reply("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN), true},
	"a pooler's error in place of the answer": {pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(poolerError("08P01", "server conn crashed?")), true},
	"a pooler's 57P01 in place of the answer": {pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(poolerError("57P01", "terminating")), true},
	"a crash warning in place of the answer":  {pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(crashWarning()), true},
}

// poolerError is an error without a routine: not PostgreSQL speaks, but something before it that does not know either.
func poolerError(code, message string) pgproto3.BackendMessage {
	return &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message}
}

// crashWarning is what a backend says when another one has crashed: it may come after the commit record.
func crashWarning() pgproto3.BackendMessage {
	return &pgproto3.NoticeResponse{
		Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "57P02", Message: "terminating connection", Routine: "quickdie",
	}
}

// unchecked are the options of a transaction about which the server is not asked.
var unchecked = retrypg.TxOptions{Commit: retrypg.NoCheck}

// TestLostCommitIsSettled: by asking the server. Where the transaction was not applied it is run again, if there is another
// connection to run it on.
func TestLostCommitIsSettled(t *testing.T) {
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			some(t, settles, func(t *testing.T, s *stage) {
				proxy, dsn := s.proxied()
				var told []retrypg.CommitCheckInfo
				hooks := retrypg.Hooks{CommitChecked: func(_ context.Context, info retrypg.CommitCheckInfo) {
					told = append(told, info)
				}}
				db := s.openDSN(dsn, 1, retrypg.WithHooks(hooks))
				rule := proxy.OnMessage(loss.match, loss.action)
				runs := 0
				err := db.withTx(s.context(), retrypg.TxOptions{Name: "write"}, func(ctx context.Context, w work) error {
					runs++
					return insert(ctx, w, "a")
				})
				require.NoError(t, rule.Wait(s.context()))
				outcome := "committed"
				switch {
				case loss.applied:
					require.NoError(t, err)
					require.Equal(t, 1, runs)
				case s.pinned:
					require.Error(t, err)
					require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
					require.Equal(t, 1, runs)
					outcome = "not_applied"
				default:
					require.NoError(t, err)
					require.Equal(t, 2, runs)
					outcome = "not_applied"
				}
				if s.ours {
					require.Len(t, told, 1)
					require.Equal(t, outcome, told[0].Outcome)
					require.Equal(t, "write", told[0].Name)
					require.Positive(t, told[0].Asked)
					require.Error(t, told[0].Err)
				}
				s.quiet()
				require.Equal(t, err == nil, s.notes("a") == 1)
				if !s.pinned {
					s.usable(db, "b")
				}
			})
		})
	}
}

func TestLostCommitIsUnknownAndNeverRunAgainWithoutACheck(t *testing.T) {
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *stage) {
				proxy, dsn := s.proxied()
				told := 0
				hooks := retrypg.Hooks{CommitUnknown: func(_ context.Context, e *retrypg.CommitUnknownError) {
					told++
					require.Error(t, e.Err)
				}}
				db := s.openDSN(dsn, 1, retrypg.WithHooks(hooks))
				rule := proxy.OnMessage(loss.match, loss.action)
				runs := 0
				err := db.withTx(s.context(), unchecked, func(ctx context.Context, w work) error {
					runs++
					return insert(ctx, w, "a")
				})
				require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
				var unknown *retrypg.CommitUnknownError
				require.ErrorAs(t, err, &unknown)
				require.Error(t, unknown.Err)
				require.NotErrorAs(t, err, new(*retrypg.ExhaustedError))
				class := retrypg.Classify(err)
				require.Equal(t, retrypg.OutcomeUnknown, class.Outcome)
				require.Equal(t, retrypg.RetryNever, class.Retry)
				require.Equal(t, 1, runs)
				require.NoError(t, rule.Wait(s.context()))
				require.Equal(t, 1, proxy.Stats().Seen("begin"))
				if s.ours {
					require.Equal(t, 1, told)
				}
				s.quiet()
				require.Equal(t, loss.applied, s.notes("a") == 1)
				if !s.pinned {
					s.usable(db, "b")
				}
			})
		})
	}
}

// TestLostCommitDeliveredLaterIsUnknownWithoutACheck: the server gets the COMMIT when the caller has long been told.
func TestLostCommitDeliveredLaterIsUnknownWithoutACheck(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		proxy, dsn := s.proxied()
		db := s.openDSN(dsn, 1)
		rule := proxy.OnMessage(pgtest.Sent("commit"), pgtest.DeliverLate(pgtest.FIN))
		err := db.withTx(s.context(), unchecked, write("a"))
		require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
		require.Zero(t, s.notes("a"))
		rule.Release()
		s.quiet()
		require.Equal(t, 1, s.notes("a"))
	})
}

// TestCommitThatNeverArrivesIsFencedAndRunAgain: the client's end is cut, the server's is left open, so that the
// transaction would stay in progress for ever. Should its COMMIT arrive after all, it meets a backend that is gone.
func TestCommitThatNeverArrivesIsFencedAndRunAgain(t *testing.T) {
	some(t, func(a adapter) bool { return settles(a) && !a.pinned }, func(t *testing.T, s *stage) {
		proxy, dsn := s.proxied()
		var told []retrypg.CommitCheckInfo
		hooks := retrypg.Hooks{CommitChecked: func(_ context.Context, info retrypg.CommitCheckInfo) { told = append(told, info) }}
		db := s.openDSN(dsn, 1, retrypg.WithHooks(hooks))
		rule := proxy.OnMessage(pgtest.Sent("commit"), pgtest.DeliverLate(pgtest.FIN))
		runs := 0
		require.NoError(t, db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			runs++
			return insert(ctx, w, "a")
		}))
		require.Equal(t, 2, runs)
		if s.ours {
			require.Len(t, told, 1)
			require.True(t, told[0].Fenced)
		}
		rule.Release()
		s.quiet()
		require.Equal(t, 1, s.notes("a"))
	})
}

// TestCommandTagOfCommitIsEnough: only ReadyForQuery is lost.
func TestCommandTagOfCommitIsEnough(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		proxy, dsn := s.proxied()
		db := s.openDSN(dsn, 1)
		rule := proxy.OnMessage(pgtest.ReplyReady("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		err := db.withTx(s.context(), retrypg.TxOptions{}, write("a"))
		if settles(s.adapter) {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, retrypg.ErrCommitUnknown, "another driver does not show the tag")
		}
		require.NoError(t, rule.Wait(s.context()))
		require.Equal(t, 1, s.notes("a"))
		if !s.pinned {
			s.usable(db, "b")
		}
	})
}

// endDuringCommit runs a transaction whose context ends when the server has its COMMIT and the answer is kept back.
func endDuringCommit(t *testing.T, s *stage, opts retrypg.TxOptions) error {
	t.Helper()
	proxy, dsn := s.proxied()
	db := s.openDSN(dsn, 1)
	rule := proxy.OnMessage(pgtest.Reply("commit"), pgtest.Pause())
	defer rule.Remove()
	cause := errors.New("the user went away")
	ctx, cancel := context.WithCancelCause(s.context())
	defer cancel(nil)
	stop := context.AfterFunc(s.context(), func() { cancel(nil) })
	defer stop()
	outside := s.context()
	go func() {
		_ = rule.Wait(outside)
		cancel(cause)
	}()
	runs := 0
	err := db.withTx(ctx, opts, func(ctx context.Context, w work) error {
		runs++
		return insert(ctx, w, "a")
	})
	require.Equal(t, 1, runs)
	require.Equal(t, 1, s.notes("a"))
	return err
}

func TestContextThatEndsDuringCommitIsUnknownWithoutACheck(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		err := endDuringCommit(t, s, unchecked)
		require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestContextThatEndsDuringCommitDoesNotHideThatItCommitted(t *testing.T) {
	some(t, settles, func(t *testing.T, s *stage) {
		require.NoError(t, endDuringCommit(t, s, zero))
	})
}

// TestCommitThatCouldNotBeSentIsNotApplied: the connection is found dead when COMMIT is written.
func TestCommitThatCouldNotBeSentIsNotApplied(t *testing.T) {
	some(t, func(a adapter) bool { return a.cause && !a.pinned }, func(t *testing.T, s *stage) {
		proxy, dsn := s.proxied()
		db := s.openDSN(dsn, 1)
		attempts := 0
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			attempts = retrypg.AttemptFromContext(ctx)
			if err := insert(ctx, w, "a"); err != nil {
				return err
			}
			if attempts == 1 {
				require.Positive(t, proxy.CutAll(pgtest.Both, pgtest.RST))
			}
			return nil
		}))
		require.Equal(t, 2, attempts)
		require.Equal(t, 1, s.notes("a"))
	})
}

// TestLostCommitWithNestedCallsRunsEachClosureOnce: the loss is reported by the outermost call, and no savepoint hides it.
func TestLostCommitWithNestedCallsRunsEachClosureOnce(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		proxy, dsn := s.proxied()
		db := s.openDSN(dsn, 1)
		proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		outer, inner := 0, 0
		err := db.withTx(s.context(), unchecked, func(ctx context.Context, _ work) error {
			outer++
			return db.withTx(ctx, zero, func(ctx context.Context, w work) error {
				inner++
				return insert(ctx, w, "a")
			})
		})
		require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
		require.Equal(t, []int{1, 1}, []int{outer, inner})
		require.Equal(t, 1, s.notes("a"))
	})
}

// TestLostCommitOfAnInnerTransactionEndsTheOuterOne: it belongs to another database, and the outer closure returns its
// error. The outer transaction must not be run again either: that would run the inner one again.
func TestLostCommitOfAnInnerTransactionEndsTheOuterOne(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		proxy, dsn := s.proxied()
		db, other := s.open(), s.openDSN(dsn, 1)
		proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		runs := 0
		err := db.withTx(s.context(), zero, func(ctx context.Context, w work) error {
			runs++
			require.NoError(t, insert(ctx, w, "outer"))
			return other.withTx(ctx, unchecked, write("other"))
		})
		require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
		require.Equal(t, 1, runs)
		require.Zero(t, s.notes("outer"))
		require.Equal(t, 1, s.notes("other"))
	})
}
