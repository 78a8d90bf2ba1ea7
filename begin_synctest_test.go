package retrypg

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// knowing is a script of a server that says who it is, with the numbers of its processes higher by shift than those that
// it told at connect, as behind a pooler. other answers everything else.
func knowing(shift int, other func(s *script.Session, sql string) script.Result) func(*script.Session, string) script.Result {
	row := func(columns int, values ...string) script.Result {
		r := script.Result{Rows: [][]string{values}}
		for range columns {
			r.Columns = append(r.Columns, script.Column{Name: "c", OID: 25})
		}
		return r
	}
	return func(s *script.Session, sql string) script.Result {
		pid := strconv.Itoa(s.Number() + shift)
		if other != nil {
			if r := other(s, sql); r.Err != nil || r.Close || r.Hang || r.Notice != nil || r.Columns != nil {
				return r
			}
		}
		switch {
		case strings.Contains(sql, "pg_control_system"):
			return row(8, pid, "f", "00000001", "100", "", "50", "7001", "off")
		case strings.HasPrefix(sql, "select case when"): // with every transaction
			return row(8, "727", "read committed", pid, "f", "00000001", "100", "", "50")
		case strings.Contains(sql, "pg_current_xact_id()"):
			return row(3, "727", "read committed", pid)
		}
		return script.Result{}
	}
}

// texts are the statements that came, without those that ask who the server is.
func texts(s *script.Server) (list []string) {
	for _, sql := range s.Queries() {
		if !strings.Contains(sql, "pg_control_system") {
			list = append(list, sql)
		}
	}
	return list
}

func TestTheServerIsAskedOnceForEachConnectionWhoItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, knowing(0, nil), WithCommitCheck(XID), WithLazyBegin(false))
		for range 3 {
			require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		}
		require.Equal(t, 1, len(s.Queries())-len(texts(s)))
		require.Equal(t, []string{"begin", "select pg_catalog.pg_current_xact_id() as x, pg_catalog.current_setting('transaction_isolation') as i, pg_catalog.pg_backend_pid() as p", "update t set v = v", "commit"},
			texts(s)[:4])
		require.Equal(t, 12, len(texts(s)))
	})
}

func TestBehindAPoolerEachTransactionAsksWhoTheServerIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, knowing(1000, nil), WithCommitCheck(XID))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Contains(t, texts(s)[1], "pg_postmaster_start_time")
	})
}

// TestAPoolerThatCouldNotBeRecognisedIsFoundByTheFirstTransaction: its processes had the right numbers at first.
func TestAPoolerThatCouldNotBeRecognisedIsFoundByTheFirstTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		switched := false
		run := knowing(0, nil)
		db, s := scriptedFor(t, func(s *script.Session, sql string) script.Result {
			if switched && strings.HasPrefix(sql, "select pg_catalog.pg_current") {
				return knowing(1000, nil)(s, sql)
			}
			return run(s, sql)
		}, WithCommitCheck(XID))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		switched = true
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.NotContains(t, texts(s)[5], "pg_postmaster_start_time")
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Contains(t, texts(s)[9], "pg_postmaster_start_time")
	})
}

// TestAServerThatDoesNotSayWhoItIsHasPlainTransactions: one that is not PostgreSQL.
func TestAServerThatDoesNotSayWhoItIsHasPlainTransactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, func(_ *script.Session, sql string) script.Result {
			switch {
			case strings.Contains(sql, "pg_control_system"):
				return script.Result{Err: serverError("42883", "unknown function: pg_control_system()")}
			case sql == "commit":
				return script.Result{Close: true}
			}
			return script.Result{}
		}, WithCommitCheck(XID))
		err := WithTx(t.Context(), db, TxOptions{}, update)
		require.ErrorIs(t, err, ErrCommitUnknown)
		require.ErrorContains(t, err, "does not say who it is")
		require.Equal(t, []string{"begin", "update t set v = v", "commit"}, texts(s))
	})
}

func TestAFatalAnswerToTheQuestionWhoTheServerIsFailsTheAttemptToConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := 0
		db, s := scriptedFor(t, knowing(0, func(_ *script.Session, sql string) script.Result {
			if strings.Contains(sql, "pg_control_system") && failed < 2 {
				failed++
				if failed == 1 {
					return script.Result{Close: true}
				}
				return script.Result{Close: true, Err: &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01"}}
			}
			return script.Result{}
		}), WithCommitCheck(XID))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Len(t, s.Attempts(), 3)
	})
}

// TestATransactionWhoseIdIsRefusedIsBegunPlainly: PostgreSQL refuses to hand out ids when it is about to run out of them
// (54000), and reading must go on.
func TestATransactionWhoseIdIsRefusedIsBegunPlainly(t *testing.T) {
	refuse := func(n int) func(*script.Session, string) script.Result {
		return knowing(0, failing("select pg_catalog.pg_current", n, serverError("54000", "database is not accepting commands")))
	}
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, refuse(1), WithCommitCheck(XID), WithLazyBegin(false))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		seen := texts(s)
		require.Equal(t, "begin", seen[0])
		require.Equal(t, []string{"rollback", "begin", "update t set v = v", "commit"}, seen[2:])
	})
	synctest.Test(t, func(t *testing.T) { // which asks before its COMMIT, and does so no more
		db, s := scriptedFor(t, refuse(1000), WithCommitCheck(XID))
		serializable := TxOptions{Isolation: sql.LevelSerializable}
		require.NoError(t, WithTx(t.Context(), db, serializable, update))
		require.NoError(t, WithTx(t.Context(), db, serializable, update))
		begin := "begin isolation level serializable"
		seen := texts(s)
		require.Equal(t, []string{begin, "update t set v = v"}, seen[:2])
		require.Equal(t, []string{
			"rollback", begin, "update t set v = v", "commit", begin, "update t set v = v", "commit",
		}, seen[3:])
	})
}

// watcher is a tracer of the user's.
type watcher struct{ seen []string }

func (w *watcher) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	w.seen = append(w.seen, data.SQL)
	return ctx
}

func (w *watcher) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if data.Err == nil {
		w.seen = append(w.seen, data.CommandTag.String())
	}
}

func TestATracerOfTheUsersSeesBeginAndCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watcher{}
		db, _ := scriptedFor(t, knowing(0, nil), WithCommitCheck(XID), WithLazyBegin(false), WithConnConfig(func(cfg *pgx.ConnConfig) error {
			cfg.Tracer = w
			return nil
		}))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.True(t, strings.HasPrefix(w.seen[0], "begin; select"), w.seen[0])
		require.Equal(t, "BEGIN", w.seen[1])
		require.Equal(t, []string{"commit", "COMMIT"}, w.seen[len(w.seen)-2:])
	})
}

// TestAContextThatEndsWhileCommitIsAnsweredLeavesAConnectionThatWorks: the answer came in time, and the deadline that was
// set for it is taken away.
func TestAContextThatEndsWhileCommitIsAnsweredLeavesAConnectionThatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, knowing(0, func(_ *script.Session, sql string) script.Result {
			if sql == "commit" {
				time.Sleep(time.Second + answerGrace/2)
			}
			return script.Result{}
		}), WithCommitCheck(XID))
		require.NoError(t, WithTx(within(t, time.Second), db, TxOptions{}, update))
		time.Sleep(time.Minute)
		_, err := db.ExecContext(t.Context(), "update t set v = v")
		require.NoError(t, err)
		require.Len(t, s.Attempts(), 1, "it is the same connection")
		require.Zero(t, s.Cancels())
	})
}

func TestACommitIsAskedAboutForAtLeastThreeSecondsAndNoLongerThanItsBound(t *testing.T) {
	for name, tc := range map[string]struct {
		ctx  func(t *testing.T) context.Context
		want time.Duration
	}{
		"no deadline":             {func(t *testing.T) context.Context { return t.Context() }, 20 * time.Second},
		"a deadline":              {func(t *testing.T) context.Context { return within(t, 10*time.Second) }, 10 * time.Second},
		"a deadline that is near": {func(t *testing.T) context.Context { return within(t, time.Second) }, minCommitCheck},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lost := false
				run := knowing(0, nil)
				db, _ := scriptedFor(t, func(s *script.Session, sql string) script.Result {
					switch {
					case lost:
						return script.Result{Err: serverError("57014", "canceling statement"), Close: true}
					case sql == "commit":
						lost = true
						return script.Result{Close: true}
					}
					return run(s, sql)
				}, WithCommitCheck(XID), WithCommitCheckMaxElapsed(20*time.Second))
				ctx := tc.ctx(t)
				start := time.Now()
				err := WithTx(ctx, db, TxOptions{}, update)
				require.ErrorIs(t, err, ErrCommitUnknown)
				require.InDelta(t, tc.want.Seconds(), time.Since(start).Seconds(), 0.3)
			})
		})
	}
}
