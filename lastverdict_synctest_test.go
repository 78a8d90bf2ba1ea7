package retrypg

import (
	"context"
	"database/sql"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

func TestALastStatementThatFailsIsRunAgainWithItsTransaction(t *testing.T) {
	for name, at := range map[string]string{"the statement": lastInsert, "COMMIT": "commit"} {
		t.Run(name, func(t *testing.T) {
			inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
				s, err := way(t, failing(at, 2, conflictError()), TxOptions{}, twoInserts(args))
				require.NoError(t, err)
				require.Equal(t, 3, ran(s, "begin"))
				require.Len(t, s.Attempts(), 1, "the connection is as good as before")
				s, err = way(t, failing(at, 2, serverError("23505", "duplicate key")), TxOptions{}, twoInserts(args))
				require.Equal(t, "23505", SQLState(err))
				require.Equal(t, OutcomeRolledBack, Classify(err).Outcome)
				require.Equal(t, 1, ran(s, "begin"))
			})
		})
	}
}

func TestTheErrorOfALastStatementThatIsSwallowedIsToldAndAConflictRunAgain(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		swallow := func(ctx context.Context, exec execution) error {
			_ = twoInserts(args)(ctx, exec)
			return nil
		}
		s, err := way(t, failing(lastInsert, 2, conflictError()), TxOptions{}, swallow)
		require.NoError(t, err)
		require.Equal(t, 3, ran(s, "begin"))
		_, err = way(t, failing(lastInsert, 2, serverError("23505", "duplicate key")), TxOptions{}, swallow)
		require.Equal(t, "23505", SQLState(err))
		require.ErrorContains(t, err, "return the statement's error")
		// Where the closure goes on, too.
		s, err = way(t, failing(lastInsert, 2, conflictError()), TxOptions{}, func(ctx context.Context, exec execution) error {
			if twoInserts(args)(ctx, exec) != nil {
				return exec(ctx, "delete from t")
			}
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, 3, ran(s, "begin"))
		require.Equal(t, 2*len(args), ran(s, "delete"), "refused by the server, which has skipped COMMIT, or not sent")
	})
}

// lastLost is a script that loses the connection at a statement, the first time, and says of the transaction what status says.
func lastLost(at, status string) func(*script.Session, string) script.Result {
	var lost atomic.Bool
	return func(_ *script.Session, sql string) script.Result {
		switch {
		case strings.HasPrefix(sql, at) && lost.CompareAndSwap(false, true):
			return script.Result{Close: true}
		case strings.Contains(sql, "pg_xact_status"):
			return told(status)
		}
		return script.Result{}
	}
}

func TestALostAnswerToALastStatementIsAskedAbout(t *testing.T) {
	for _, at := range []string{lastInsert, "commit"} {
		t.Run(at, func(t *testing.T) {
			inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
				var checks []CommitCheckInfo
				hooks := WithHooks(Hooks{CommitChecked: func(_ context.Context, i CommitCheckInfo) { checks = append(checks, i) }})
				s, err := way(t, lastLost(at, "committed"), TxOptions{}, twoInserts(args), hooks)
				require.NoError(t, err)
				require.Equal(t, 1, ran(s, "begin"))
				require.Len(t, checks, 1)

				s, err = way(t, lastLost(at, "aborted"), TxOptions{}, twoInserts(args), hooks)
				require.NoError(t, err)
				require.Equal(t, 2, ran(s, "begin"))
				require.Len(t, checks, 2)

				s, err = way(t, lastLost(at, ""), TxOptions{}, twoInserts(args), hooks)
				require.ErrorIs(t, err, ErrCommitUnknown)
				requireNotExhausted(t, err)
				require.Equal(t, 1, ran(s, "begin"))
				require.Len(t, checks, 3)

				for committed, n := range map[bool]int{true: 1, false: 2} {
					s, err = way(t, lastLost(at, ""), TxOptions{Verify: func(context.Context, Querier) (bool, error) { return committed, nil }}, twoInserts(args))
					require.NoError(t, err)
					require.Equal(t, n, ran(s, "begin"))
				}
				s, err = way(t, lastLost(at, ""), TxOptions{Commit: NoCheck}, twoInserts(args))
				require.ErrorIs(t, err, ErrCommitUnknown)
				require.Equal(t, 1, ran(s, "begin"))
				s, err = way(t, lastLost(at, ""), TxOptions{ReadOnly: true}, func(ctx context.Context, exec execution) error {
					return exec(LastStatement(ctx), with("select 1", args), args...)
				})
				require.NoError(t, err)
				require.Equal(t, map[bool]int{true: 2, false: 1}[at == "commit"], ran(s, "begin"))
			})
		})
	}
}

// TestCommitDoesNotGoWithAStatementThatCanBeSentOverAnotherConnection: it is lost with BEGIN, and nothing is unknown then.
func TestCommitDoesNotGoWithAStatementThatCanBeSentOverAnotherConnection(t *testing.T) {
	for name, run := range map[string]func(*testing.T, func(*script.Session, string) script.Result) (*script.Server, error){
		"sql": func(t *testing.T, run func(*script.Session, string) script.Result) (*script.Server, error) {
			db, s := lazily(t, run, WithCommitCheck(NoCheck))
			require.NoError(t, db.PingContext(t.Context())) // so that it was in use before
			return s, WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error { return update(LastStatement(ctx), tx) })
		},
		"Pool": func(t *testing.T, run func(*script.Session, string) script.Result) (*script.Server, error) {
			pool, s := lazyPool(t, run, WithCommitCheck(NoCheck))
			require.NoError(t, pool.Ping(t.Context()))
			return s, WithPgxTx(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(LastStatement(ctx), "update t set v = v")
				return err
			})
		},
	} {
		for _, at := range []string{"update", "commit"} {
			t.Run(name+" "+at, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, err := run(t, lastLost(at, ""))
					if at == "update" {
						require.NoError(t, err)
						require.Equal(t, 2, ran(s, "update"))
						return
					}
					require.ErrorIs(t, err, ErrCommitUnknown)
					require.Equal(t, 1, ran(s, "update"))
				})
			})
		}
	}
}

func TestAResultThatWasLostIsNotTakenForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, lastLost("commit", "committed"))
		pool, p := lazyPool(t, lastLost("commit", "committed"))
		_, err := WithTxResult(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
			require.NoError(t, update(ctx, tx))
			_, err := tx.ExecContext(LastStatement(ctx), "update t set v = $1", 1)
			require.ErrorIs(t, err, ErrTxEnded)
			return 0, err
		})
		_, perr := WithPgxTxResult(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) (int, error) {
			_, err := tx.Exec(ctx, firstInsert)
			require.NoError(t, err)
			_, err = tx.Exec(LastStatement(ctx), "insert into u values ($1)", 1)
			return 0, err
		})
		for _, err := range []error{err, perr} {
			require.ErrorIs(t, err, ErrTxEnded)
			require.Equal(t, OutcomeCommitted, Classify(err).Outcome)
			require.ErrorContains(t, err, "is committed")
		}
		require.Equal(t, 2, ran(s, "begin")+ran(p, "begin"))
	})
}

// TestWhatTheTagSaysHoldsWhateverFollowsIt: the commit record was written by then.
func TestWhatTheTagSaysHoldsWhateverFollowsIt(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		s, err := way(t, func(_ *script.Session, sql string) script.Result {
			if sql == "commit" {
				return script.Result{After: script.Error("57P01", "terminating connection")}
			}
			return script.Result{}
		}, TxOptions{}, twoInserts(args))
		require.NoError(t, err)
		require.Zero(t, ran(s, "select case"), "nobody asks")
		require.Equal(t, 1, ran(s, "begin"))
	})
}

// TestAFATALThatPostgreSQLSendsBeforeTheCommitRecordOnlyIsRunAgain, and another one asked about.
func TestAFATALThatPostgreSQLSendsBeforeTheCommitRecordOnlyIsRunAgain(t *testing.T) {
	for code, asked := range map[string]int{"57P01": 0, "XX000": 1} {
		for _, at := range []string{lastInsert, "commit"} {
			t.Run(code+" "+at, func(t *testing.T) {
				inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
					fatal := serverError(code, "terminating connection")
					fatal.Severity, fatal.SeverityUnlocalized = "FATAL", "FATAL"
					fail, checks := failing(at, 1, fatal), 0
					s, err := way(t, func(c *script.Session, sql string) script.Result {
						if strings.Contains(sql, "pg_xact_status") {
							return told("aborted")
						}
						return fail(c, sql)
					}, TxOptions{}, twoInserts(args), WithHooks(Hooks{CommitChecked: func(context.Context, CommitCheckInfo) { checks++ }}))
					if code == "57P01" {
						require.NoError(t, err)
						require.Equal(t, 2, ran(s, "begin"))
					}
					require.Equal(t, asked, checks)
				})
			})
		}
	}
}

func TestAnUnreplicatedLastStatementIsACommitThatIsToldOf(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		marked := 0
		notice := &pgproto3.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "57P01", Routine: "SyncRepWaitForLSN"}
		s, err := way(t, func(_ *script.Session, sql string) script.Result {
			if sql == "commit" {
				return script.Result{Notice: notice, Close: true}
			}
			return script.Result{}
		}, TxOptions{}, twoInserts(args), WithHooks(Hooks{CommitUnreplicated: func(context.Context, *pgconn.Notice) { marked++ }}))
		require.NoError(t, err)
		require.Equal(t, 1, marked)
		require.Equal(t, 1, ran(s, "begin"))
	})
}

// TestAPanicWithinTheLastStatementDoesNotHideThatItCommitted: what follows would be autocommitted.
func TestAPanicWithinTheLastStatementDoesNotHideThatItCommitted(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		noticing := func(_ *script.Session, sql string) script.Result {
			switch {
			case strings.HasPrefix(sql, lastInsert):
				return script.Result{Notice: &pgproto3.NoticeResponse{Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000"}}
			case strings.Contains(sql, "pg_xact_status"):
				return told("committed")
			}
			return script.Result{}
		}
		panicking := WithConnConfig(func(cfg *pgx.ConnConfig) error {
			cfg.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) { panic("notice") }
			return nil
		})
		s, err := way(t, noticing, TxOptions{}, func(ctx context.Context, exec execution) error {
			require.NoError(t, exec(ctx, firstInsert))
			require.PanicsWithValue(t, "notice", func() { _ = exec(LastStatement(ctx), with(lastInsert, args), args...) })
			require.Error(t, exec(ctx, "delete from t"))
			return nil
		}, panicking)
		require.NoError(t, err)
		// The connection may be gone before the server has read COMMIT.
		require.Equal(t, []int{1, 0}, []int{ran(s, "begin"), ran(s, "delete")})
	})
}

// TestALastStatementOfAConnectionWithATracerIsOneLikeOthers: the tracer may send something of its own first.
func TestALastStatementOfAConnectionWithATracerIsOneLikeOthers(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		tracer := WithConnConfig(func(cfg *pgx.ConnConfig) error { cfg.Tracer = &watcher{}; return nil })
		s, err := way(t, nil, TxOptions{}, func(ctx context.Context, exec execution) error {
			require.NoError(t, exec(ctx, firstInsert))
			require.NoError(t, exec(LastStatement(ctx), with(lastInsert, args), args...))
			return exec(ctx, "delete from t")
		}, tracer)
		require.NoError(t, err)
		require.Equal(t, []int{1, 1, 1}, []int{ran(s, "begin"), ran(s, "commit"), ran(s, "delete")})
	})
}

// TestAContextThatEndsWithTheLastStatementDoesNotHideTheVerdict: database/sql rolls back by itself then, and does not ask the driver to
// commit.
func TestAContextThatEndsWithTheLastStatementDoesNotHideTheVerdict(t *testing.T) {
	for name, k := range map[string]struct {
		status string
		hang   bool
		want   error
	}{
		"answered":                  {},
		"not answered, committed":   {status: "committed", hang: true},
		"not answered, rolled back": {status: "aborted", hang: true, want: context.Canceled},
		"not answered, unknown":     {hang: true, want: ErrCommitUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
				var cancel context.CancelFunc
				s, err := way(t, func(_ *script.Session, sql string) script.Result {
					switch {
					case sql == "commit" && k.hang:
						cancel()
						return script.Result{Hang: true}
					case strings.Contains(sql, "pg_xact_status"):
						return told(k.status)
					}
					return script.Result{}
				}, TxOptions{}, func(ctx context.Context, exec execution) error {
					err := exec(ctx, firstInsert)
					require.NoError(t, err)
					ctx, cancel = context.WithCancel(ctx)
					defer cancel()
					return exec(LastStatement(ctx), with(lastInsert, args), args...)
				})
				require.ErrorIs(t, err, k.want)
				require.Equal(t, 1, ran(s, "commit"))
			})
		})
	}
}

// TestATransactionWhoseContextEndsBehindItsLastStatementIsCommitted, although database/sql rolls back on a goroutine of its own.
func TestATransactionWhoseContextEndsBehindItsLastStatementIsCommitted(t *testing.T) {
	for _, waits := range []bool{false, true} {
		for _, status := range []string{"committed", ""} {
			synctest.Test(t, func(t *testing.T) {
				db, s := lazily(t, func(_ *script.Session, sql string) script.Result {
					switch {
					case sql == "commit" && status == "":
						return script.Result{Close: true}
					case strings.Contains(sql, "pg_xact_status"):
						return told(status)
					}
					return script.Result{}
				})
				ctx, cancel := context.WithCancel(t.Context())
				err := WithTx(ctx, db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
					require.NoError(t, update(ctx, tx))
					err := update(LastStatement(ctx), tx)
					cancel()
					if waits {
						synctest.Wait() // database/sql has rolled back
					}
					return err
				})
				if status == "" {
					require.ErrorIs(t, err, ErrCommitUnknown)
				} else {
					require.NoError(t, err)
				}
				synctest.Wait()
				require.Equal(t, []int{1, 0}, []int{ran(s, "commit"), ran(s, "rollback")})
			})
		}
	}
}

// TestARefusedCommitIsNotTakenForARefusedQuestion: after that one the id would not be asked for any more.
func TestARefusedCommitIsNotTakenForARefusedQuestion(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		s, err := way(t, failing("commit", 1, conflictError()), TxOptions{}, twoInserts(args))
		require.NoError(t, err)
		require.Equal(t, 2, ran(s, "select pg_catalog.pg_current"))
	})
}
