package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// execution executes a statement in a transaction.
type execution func(ctx context.Context, sql string, args ...any) error

// lastWay runs a closure in a transaction of a server that knows who it is.
type lastWay func(t *testing.T, run func(*script.Session, string) script.Result, opts TxOptions,
	closure func(context.Context, execution) error, options ...Option) (*script.Server, error)

var lastWays = map[string]lastWay{
	"WithTx": func(t *testing.T, run func(*script.Session, string) script.Result, opts TxOptions,
		closure func(context.Context, execution) error, options ...Option,
	) (*script.Server, error) {
		db, s := lazily(t, run, options...)
		return s, WithTx(within(t, time.Minute), db, opts, func(ctx context.Context, tx *sql.Tx) error {
			return closure(ctx, func(ctx context.Context, sql string, args ...any) error {
				_, err := tx.ExecContext(ctx, sql, args...)
				return err
			})
		})
	},
	"WithPgxTx": func(t *testing.T, run func(*script.Session, string) script.Result, opts TxOptions,
		closure func(context.Context, execution) error, options ...Option,
	) (*script.Server, error) {
		pool, s := lazyPool(t, run, options...)
		return s, WithPgxTx(within(t, time.Minute), pool, opts, func(ctx context.Context, tx pgx.Tx) error {
			return closure(ctx, func(ctx context.Context, sql string, args ...any) error {
				_, err := tx.Exec(ctx, sql, args...)
				return err
			})
		})
	},
}

// inLastWays runs a test with each adapter, and with and without arguments: by the simple protocol a flight is another one.
func inLastWays(t *testing.T, test func(t *testing.T, way lastWay, args ...any)) {
	for name, way := range lastWays {
		for protocol, args := range map[string][]any{"simple": nil, "extended": {1}} {
			t.Run(name+", "+protocol, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { test(t, way, args...) })
			})
		}
	}
}

const (
	firstInsert = "insert into t values (1)"
	lastInsert  = "insert into u values (2)"
)

// with is a statement with a parameter if there are arguments.
func with(sql string, args []any) string {
	if len(args) > 0 {
		return sql + " returning $1::text"
	}
	return sql
}

// twoInserts is a closure whose second statement is the last one.
func twoInserts(args []any) func(context.Context, execution) error {
	return func(ctx context.Context, exec execution) error {
		if err := exec(ctx, firstInsert); err != nil {
			return err
		}
		return exec(LastStatement(ctx), with(lastInsert, args), args...)
	}
}

func TestCommitGoesWithTheLastStatement(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		s, err := way(t, nil, TxOptions{}, twoInserts(args))
		require.NoError(t, err)
		require.Equal(t, []string{"begin", firstInsert, question, with(lastInsert, args), "commit"}, texts(s))
		require.Equal(t, 1, ran(s, "commit"))
	})
}

// TestAMarkedStatementThatCannotCarryCommitIsOneLikeOthers: COMMIT is sent afterwards.
func TestAMarkedStatementThatCannotCarryCommitIsOneLikeOthers(t *testing.T) {
	for name, k := range map[string]struct {
		opts    TxOptions
		options []Option
		sql     string
		first   string
	}{
		"the only one, before the id is known": {sql: lastInsert},
		"several statements":                   {first: firstInsert, sql: "insert into u values (2); select 1"},
		"a procedure":                          {first: firstInsert, sql: "call p()"},
		"DDL":                                  {first: firstInsert, sql: "create table v ()"},
		"COPY":                                 {first: firstInsert, sql: "copy t to '/tmp/t'"},
		"SET":                                  {first: firstInsert, sql: "set local work_mem = '1MB'"},
		"behind a text that may have switched": {first: "select 1; commit and chain", sql: lastInsert},
		"BEGIN that does not wait":             {first: firstInsert, sql: lastInsert, options: []Option{WithLazyBegin(false)}},
	} {
		t.Run(name, func(t *testing.T) {
			for adapter, way := range lastWays {
				t.Run(adapter, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s, _ := way(t, nil, k.opts, func(ctx context.Context, exec execution) error {
							if k.first != "" {
								require.NoError(t, exec(ctx, k.first))
							}
							require.NoError(t, exec(LastStatement(ctx), k.sql))
							return exec(ctx, "select 'more'")
						}, k.options...)
						require.Contains(t, texts(s), "select 'more'")
					})
				})
			}
		})
	}
}

func TestWhereNothingWouldBeAskedTheOnlyStatementCarriesCommit(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		for _, opts := range []TxOptions{{ReadOnly: true}, {Commit: NoCheck}} {
			s, err := way(t, nil, opts, func(ctx context.Context, exec execution) error {
				return exec(LastStatement(ctx), with("select 1", args), args...)
			})
			require.NoError(t, err)
			require.Equal(t, []string{with("select 1", args), "commit"}, texts(s)[1:])
		}
	})
}

func TestNothingIsSentInATransactionBehindItsLastStatement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		err := WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			require.NoError(t, update(ctx, tx))
			require.NoError(t, update(LastStatement(ctx), tx))
			before := s.Queries()
			_, err := tx.ExecContext(ctx, "delete from t")
			require.ErrorIs(t, err, ErrTxEnded)
			_, err = tx.QueryContext(ctx, "delete from t") //nolint:rowserrcheck,sqlclosecheck // there are no rows
			require.ErrorIs(t, err, ErrTxEnded)
			_, err = tx.PrepareContext(ctx, "delete from t") //nolint:sqlclosecheck // there is no statement
			require.ErrorIs(t, err, ErrTxEnded)
			nested := WithTx(ctx, db, TxOptions{}, update)
			require.ErrorIs(t, nested, ErrTxEnded)
			require.Equal(t, before, s.Queries())
			return nil
		})
		require.ErrorIs(t, err, ErrTxEnded)
		require.Equal(t, OutcomeCommitted, Classify(err).Outcome, "the nested call was to be a part of it")
	})
	synctest.Test(t, func(t *testing.T) {
		pool, s := lazyPool(t, nil)
		require.NoError(t, WithPgxTx(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, firstInsert)
			require.NoError(t, err)
			savepoint, err := tx.Begin(ctx)
			require.NoError(t, err)
			los := tx.LargeObjects()
			_, err = tx.Exec(LastStatement(ctx), lastInsert)
			require.NoError(t, err)
			before := s.Queries()
			for name, f := range map[string]func() error{
				"Exec":     func() error { _, err := tx.Exec(ctx, "delete from t"); return err },
				"Query":    func() error { _, err := tx.Query(ctx, "delete from t"); return err }, //nolint:rowserrcheck // there are no rows
				"QueryRow": func() error { return tx.QueryRow(ctx, "delete from t").Scan() },
				"Prepare":  func() error { _, err := tx.Prepare(ctx, "d", "delete from t"); return err },
				"Begin":    func() error { _, err := tx.Begin(ctx); return err },
				"CopyFrom": func() error {
					_, err := tx.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"v"}, pgx.CopyFromRows(nil))
					return err
				},
				"Batch": func() error {
					b := &pgx.Batch{}
					b.Queue("delete from t")
					return tx.SendBatch(ctx, b).Close()
				},
				"savepoint": func() error { return savepoint.Commit(ctx) },
			} {
				require.ErrorIs(t, f(), ErrTxEnded, name)
			}
			for _, los := range []pgx.LargeObjects{los, tx.LargeObjects()} {
				require.Error(t, los.Unlink(ctx, 1))
			}
			require.Equal(t, before, s.Queries())
			return nil
		}))
	})
}

func TestInASavepointTheMarkHasNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			require.NoError(t, update(ctx, tx))
			require.NoError(t, WithTx(ctx, db, TxOptions{}, func(inner context.Context, tx *sql.Tx) error {
				require.NoError(t, update(LastStatement(ctx), tx))
				return update(LastStatement(inner), tx)
			}))
			require.Zero(t, ran(s, "commit"))
			return update(LastStatement(ctx), tx)
		}))
		require.Equal(t, []string{"update t set v = v", "commit"}, texts(s)[len(texts(s))-2:])
	})
	synctest.Test(t, func(t *testing.T) {
		pool, s := lazyPool(t, nil)
		require.NoError(t, WithPgxTx(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, firstInsert)
			require.NoError(t, err)
			require.NoError(t, WithPgxTx(ctx, pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(LastStatement(ctx), lastInsert)
				return err
			}))
			savepoint, err := tx.Begin(ctx)
			require.NoError(t, err)
			_, err = savepoint.Exec(LastStatement(ctx), lastInsert)
			require.NoError(t, err)
			require.NoError(t, savepoint.Commit(ctx))
			require.Zero(t, ran(s, "commit"))
			return nil
		}))
		require.Equal(t, 1, ran(s, "commit"))
	})
}

// TestATransactionThatMustNotCommitIsNotCommittedByItsLastStatement: a nested closure has panicked, or asked for the whole to be run again.
func TestATransactionThatMustNotCommitIsNotCommittedByItsLastStatement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		err := WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			require.NoError(t, update(ctx, tx))
			require.Panics(t, func() {
				_ = WithTx(ctx, db, TxOptions{}, func(context.Context, *sql.Tx) error { panic("nested") })
			})
			return update(LastStatement(ctx), tx)
		})
		require.ErrorIs(t, err, errNestedPanic)
		require.Zero(t, ran(s, "commit"))
	})
}

func TestAPlainTransactionHasNoLastStatement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, update(t.Context(), tx))
		require.NoError(t, update(LastStatement(t.Context()), tx))
		require.Zero(t, ran(s, "commit"))
		require.NoError(t, tx.Rollback())
		pool, p := lazyPool(t, nil)
		ptx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		for range 2 {
			_, err = ptx.Exec(LastStatement(t.Context()), lastInsert)
			require.NoError(t, err)
		}
		require.Zero(t, ran(p, "commit"))
		require.NoError(t, ptx.Rollback(t.Context()))
	})
}

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

// TestTheFirstStatementIsNotSentAgainOnceCommitWentWithIt, over another connection: it may have taken effect.
func TestTheFirstStatementIsNotSentAgainOnceCommitWentWithIt(t *testing.T) {
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

func TestAClosureThatFailsBehindItsLastStatementIsToldThatItIsCommitted(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		late := errors.New("too late")
		for _, failure := range []error{late, &pgconn.PgError{Code: "40001", Severity: "ERROR", Routine: "test"}} {
			s, err := way(t, nil, TxOptions{}, func(ctx context.Context, exec execution) error {
				require.NoError(t, twoInserts(args)(ctx, exec))
				return failure
			})
			require.ErrorIs(t, err, ErrTxEnded)
			require.ErrorIs(t, err, failure)
			require.Equal(t, OutcomeCommitted, Classify(err).Outcome)
			require.Equal(t, []int{1, 1, 0}, []int{ran(s, "begin"), ran(s, "commit"), ran(s, "rollback")})
		}
	})
}

func TestAPanicBehindTheLastStatementGoesOnAndNothingIsRolledBack(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		require.PanicsWithValue(t, "late", func() {
			_, _ = way(t, func(_ *script.Session, sql string) script.Result {
				require.NotEqual(t, "rollback", sql)
				return script.Result{}
			}, TxOptions{}, func(ctx context.Context, exec execution) error {
				require.NoError(t, twoInserts(args)(ctx, exec))
				panic("late")
			})
		})
	})
}

// tracePanics is a tracer that panics when the last statement has ended.
type tracePanics struct{}

func (tracePanics) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	return context.WithValue(ctx, tracePanics{}, d.SQL)
}

func (tracePanics) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if sql, _ := ctx.Value(tracePanics{}).(string); strings.HasPrefix(sql, lastInsert) {
		panic("tracer")
	}
}

// TestAPanicWithinTheLastStatementDoesNotHideThatItCommitted: what follows would be autocommitted.
func TestAPanicWithinTheLastStatementDoesNotHideThatItCommitted(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		tracer := WithConnConfig(func(cfg *pgx.ConnConfig) error { cfg.Tracer = tracePanics{}; return nil })
		s, err := way(t, nil, TxOptions{}, func(ctx context.Context, exec execution) error {
			require.NoError(t, exec(ctx, firstInsert))
			require.PanicsWithValue(t, "tracer", func() { _ = exec(LastStatement(ctx), with(lastInsert, args), args...) })
			require.ErrorIs(t, exec(ctx, "delete from t"), ErrTxEnded)
			return nil
		}, tracer)
		require.NoError(t, err)
		require.Equal(t, []int{1, 1, 0}, []int{ran(s, "begin"), ran(s, "commit"), ran(s, "delete")})
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

func TestAClosureThatEndsItsTransactionBehindItsLastStatementIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		pool, p := lazyPool(t, nil)
		for _, commits := range []bool{true, false} {
			require.ErrorIs(t, WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				require.NoError(t, update(ctx, tx))
				require.NoError(t, update(LastStatement(ctx), tx))
				if commits {
					return tx.Commit()
				}
				require.ErrorIs(t, tx.Rollback(), ErrTxEnded)
				return nil
			}), ErrTxEnded)
			require.ErrorIs(t, WithPgxTx(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
				for _, ctx := range []context.Context{ctx, LastStatement(ctx)} {
					_, err := tx.Exec(ctx, lastInsert)
					require.NoError(t, err)
				}
				if commits {
					return tx.Commit(ctx)
				}
				require.ErrorIs(t, tx.Rollback(ctx), ErrTxEnded)
				return nil
			}), ErrTxEnded)
		}
		require.Equal(t, []int{2, 2, 0}, []int{ran(s, "commit"), ran(p, "commit"), ran(s, "rollback") + ran(p, "rollback")})
	})
}

// TestAPanicWithinAStatementThatFailsIsNotTakenForALostAnswer.
func TestAPanicWithinAStatementThatFailsIsNotTakenForALostAnswer(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		tracer := WithConnConfig(func(cfg *pgx.ConnConfig) error { cfg.Tracer = tracePanics{}; return nil })
		s, err := way(t, failing(lastInsert, 1, serverError("23505", "duplicate key")), TxOptions{}, func(ctx context.Context, exec execution) error {
			require.NoError(t, exec(ctx, firstInsert))
			require.PanicsWithValue(t, "tracer", func() { _ = exec(LastStatement(ctx), with(lastInsert, args), args...) })
			return nil
		}, tracer)
		require.Equal(t, "23505", SQLState(err))
		require.Len(t, s.Attempts(), 1, "the connection is as good as before")
	})
}

func TestAPreparedLastStatementCarriesCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			stmt, err := tx.PrepareContext(ctx, lastInsert)
			require.NoError(t, err)
			defer stmt.Close()
			_, err = stmt.ExecContext(ctx)
			require.NoError(t, err)
			_, err = stmt.ExecContext(LastStatement(ctx))
			return err
		}))
		require.Equal(t, []string{"begin", lastInsert, question, lastInsert, "commit"}, texts(s))
	})
}

// flights counts the writes on the connections of a script: pgx writes a flight at once.
func flights(n *atomic.Int64) Option {
	return WithConnConfig(func(cfg *pgx.ConnConfig) error {
		dial := cfg.DialFunc
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &counting{conn, n}, err
		}
		return nil
	})
}

type counting struct {
	net.Conn
	n *atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(p)
}

func TestTwoStatementsAreTwoFlightsAndOneThatReadsIsASingleOne(t *testing.T) {
	for _, args := range [][]any{nil, {1}} {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int64
			db, s := scriptedFor(t, knowing(0, nil), WithCommitCheck(XID), WithLazyBegin(true), flights(&n))
			count := func(opts TxOptions, statements int) int64 {
				before := n.Load()
				require.NoError(t, WithTx(t.Context(), db, opts, func(ctx context.Context, tx *sql.Tx) error {
					for range statements - 1 {
						if _, err := tx.ExecContext(ctx, "select 1"+strings.Repeat(" + $1", len(args)), args...); err != nil {
							return err
						}
					}
					_, err := tx.ExecContext(LastStatement(ctx), "select 1"+strings.Repeat(" + $1", len(args)), args...)
					return err
				}))
				return n.Load() - before
			}
			count(TxOptions{}, 2) // connects, and prepares the statement
			require.EqualValues(t, 2, count(TxOptions{}, 2))
			require.EqualValues(t, 3, count(TxOptions{}, 3))
			require.EqualValues(t, 1, count(TxOptions{ReadOnly: true}, 1))
			require.EqualValues(t, 2, count(TxOptions{}, 1), "COMMIT by itself")
			require.True(t, slices.Contains(s.Queries(), "commit"))
		})
	}
}

// TestAMarkedStatementThatWasNotSentLeavesTheTransactionAsItWas, and the next one does not carry COMMIT.
func TestAMarkedStatementThatWasNotSentLeavesTheTransactionAsItWas(t *testing.T) {
	for name, way := range lastWays {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := way(t, nil, TxOptions{}, func(ctx context.Context, exec execution) error {
					require.NoError(t, exec(ctx, firstInsert))
					require.Error(t, exec(LastStatement(ctx), "insert into u values ($1)", 1, 2), "one argument too many")
					require.NoError(t, exec(ctx, "delete from t where v = $1", 1))
					return exec(ctx, "delete from u")
				})
				require.NoError(t, err)
				require.Equal(t, []string{"delete from t where v = $1", "delete from u", "commit"}, texts(s)[3:])
			})
		})
	}
}

func TestABeginThatIsRefusedWithItsOnlyStatementIsThatError(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		var checks int
		s, err := way(t, failing("begin", 1, serverError("0A000", "no")), TxOptions{ReadOnly: true}, func(ctx context.Context, exec execution) error {
			return exec(LastStatement(ctx), with("select 1", args), args...)
		}, WithHooks(Hooks{CommitChecked: func(context.Context, CommitCheckInfo) { checks++ }}))
		require.Equal(t, "0A000", SQLState(err))
		require.Equal(t, []int{0, 0, 0}, []int{ran(s, "select 1"), ran(s, "commit"), checks})
		require.Len(t, s.Attempts(), 1)
	})
}

func TestInATransactionThatIsAbortedOrOverTheMarkHasNoEffect(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		s, err := way(t, failing("bad", 1, serverError("42601", "syntax error")), TxOptions{}, func(ctx context.Context, exec execution) error {
			require.NoError(t, exec(ctx, firstInsert))
			require.NoError(t, exec(ctx, "savepoint s"))
			require.Error(t, exec(ctx, "bad"))
			require.Equal(t, "25P02", SQLState(exec(LastStatement(ctx), with(lastInsert, args), args...)))
			return exec(ctx, "rollback to savepoint s")
		})
		_ = err // a script knows no savepoints
		require.Equal(t, 1, ran(s, "rollback to savepoint s"))
		s, err = way(t, nil, TxOptions{}, func(ctx context.Context, exec execution) error {
			require.NoError(t, exec(ctx, firstInsert))
			require.NoError(t, exec(ctx, "rollback"))
			return exec(LastStatement(ctx), with(lastInsert, args), args...)
		})
		require.ErrorIs(t, err, ErrTxEnded)
		require.Zero(t, ran(s, "commit"))
	})
}

// TestARefusedCommitIsNotTakenForARefusedQuestion: after that one the id would not be asked for any more.
func TestARefusedCommitIsNotTakenForARefusedQuestion(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		s, err := way(t, failing("commit", 1, conflictError()), TxOptions{}, twoInserts(args))
		require.NoError(t, err)
		require.Equal(t, 2, ran(s, "select pg_catalog.pg_current"))
	})
}

// TestATextWithArgumentsMayBeSeveralStatements by the simple protocol.
func TestATextWithArgumentsMayBeSeveralStatements(t *testing.T) {
	for name, way := range lastWays {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				simple := WithConnConfig(func(cfg *pgx.ConnConfig) error {
					cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
					return nil
				})
				s, err := way(t, nil, TxOptions{}, func(ctx context.Context, exec execution) error {
					require.NoError(t, exec(ctx, firstInsert))
					require.NoError(t, exec(LastStatement(ctx), "insert into u values ($1); select 1", 1))
					return exec(ctx, "delete from t")
				}, simple)
				require.NoError(t, err)
				require.Equal(t, []string{"delete from t", "commit"}, texts(s)[len(texts(s))-2:])
			})
		})
	}
}

func TestLargeObjectsThatAreAskedForBehindTheLastStatementDoNotWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, s := lazyPool(t, nil)
		require.NoError(t, WithPgxTx(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			for _, ctx := range []context.Context{ctx, LastStatement(ctx)} {
				_, err := tx.Exec(ctx, lastInsert)
				require.NoError(t, err)
			}
			before := s.Queries()
			los := tx.LargeObjects()
			require.Error(t, los.Unlink(ctx, 1))
			require.Equal(t, before, s.Queries())
			return nil
		}))
	})
}
