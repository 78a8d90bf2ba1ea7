package retrypg

import (
	"context"
	"database/sql"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// question is what asks for the id of a transaction.
const question = "select pg_catalog.pg_current_xact_id() as x, pg_catalog.current_setting('transaction_isolation') as i, pg_catalog.pg_backend_pid() as p"

// lazily is a database of a server that knows who it is, whose transactions begin with their first statement.
func lazily(t *testing.T, run func(*script.Session, string) script.Result, opts ...Option) (*sql.DB, *script.Server) {
	return scriptedFor(t, knowing(0, run), append([]Option{WithCommitCheck(XID), WithLazyBegin(true)}, opts...)...)
}

func lazyPool(t *testing.T, run func(*script.Session, string) script.Result, opts ...Option) (*Pool, *script.Server) {
	s := script.New(script.Accept(knowing(0, run)))
	return scriptedPool(t, s, append([]Option{WithCommitCheck(XID), WithLazyBegin(true)}, opts...)...), s
}

func TestATransactionWithoutAStatementSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		pool, p := lazyPool(t, nil)
		require.NoError(t, db.PingContext(t.Context()))
		require.NoError(t, pool.Ping(t.Context()))
		before := len(s.Queries()) + len(p.Queries())
		for _, o := range []*sql.TxOptions{nil, {ReadOnly: true}, {Isolation: sql.LevelSerializable}} {
			tx, err := db.BeginTx(t.Context(), o)
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
			tx, err = db.BeginTx(t.Context(), o)
			require.NoError(t, err)
			require.NoError(t, tx.Rollback())
		}
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, func(context.Context, *sql.Tx) error { return nil }))
		require.ErrorIs(t, WithPgxTx(t.Context(), pool, TxOptions{}, func(context.Context, pgx.Tx) error { return sql.ErrNoRows }), sql.ErrNoRows)
		require.NoError(t, WithPgxTx(t.Context(), pool, TxOptions{}, func(context.Context, pgx.Tx) error { return nil }))
		require.Equal(t, before, len(s.Queries())+len(p.Queries()))
		require.EqualValues(t, 1, pool.Stat().TotalConns(), "the connection is as good as before")
	})
}

func TestTheIdIsAskedOnceBehindTheFirstStatementThatTakesASnapshot(t *testing.T) {
	for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelRepeatableRead, sql.LevelSerializable} {
		synctest.Test(t, func(t *testing.T) {
			db, s := lazily(t, nil)
			require.NoError(t, WithTx(t.Context(), db, TxOptions{Isolation: level}, func(ctx context.Context, tx *sql.Tx) error {
				for _, query := range []string{"set local work_mem = '1MB'", "lock table t", "select 1; select 2", "update t set v = v", "delete from t"} {
					if _, err := tx.ExecContext(ctx, query); err != nil {
						return err
					}
				}
				return nil
			}))
			require.Equal(t, []string{
				"set local work_mem = '1MB'", "lock table t", "select 1", "select 2", "update t set v = v", question, "delete from t", "commit",
			}, texts(s)[1:])
		})
	}
}

func TestAnIdThatNoStatementCouldCarryIsAskedForBeforeCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "create table u ()")
			return err
		}))
		require.Equal(t, []string{"begin", "create table u ()", question, "commit"}, texts(s))
	})
}

// TestTheQuestionIsPreparedOnAConnectionThatIsKept: it travels by name then, and no more once DISCARD has dropped it.
func TestTheQuestionIsPreparedOnAConnectionThatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		for range prepareAfter + 3 {
			require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		}
		require.Equal(t, prepareAfter+3, ran(s, "select pg_catalog.pg_current"))
		require.Equal(t, 1, s.Prepared("retrypg_xid"))
		_, err := db.ExecContext(t.Context(), "discard all")
		require.NoError(t, err)
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Equal(t, prepareAfter+4, ran(s, "select pg_catalog.pg_current"))
		require.Equal(t, 1, s.Prepared("retrypg_xid"), "not again")
		require.Equal(t, 1, len(s.Attempts()))
	})
}

func TestAStatementBehindABeginThatIsRefusedIsNotRun(t *testing.T) {
	refused := serverError("0A000", "cannot use serializable mode in a hot standby")
	for name, args := range map[string][]any{"simple": nil, "extended": {1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := lazily(t, failing("begin", 1, refused))
				tx, err := db.BeginTx(t.Context(), nil)
				require.NoError(t, err)
				for range 2 {
					_, err = tx.ExecContext(t.Context(), "insert into t values ($1)", args...)
					require.Equal(t, "0A000", SQLState(err))
				}
				require.ErrorIs(t, tx.Commit(), pgx.ErrTxCommitRollback)
				require.Equal(t, []string{"begin"}, texts(s))
				require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
				require.Len(t, s.Attempts(), 1, "the connection is as good as before")
			})
		})
	}
}

func TestATransactionWhoseBeginIsRefusedFailsWithThatError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, p := lazyPool(t, failing("begin", 1, serverError("0A000", "cannot use serializable mode in a hot standby")))
		err := WithPgxTx(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			_, _ = tx.Exec(ctx, "insert into t values (1)")
			return nil
		})
		require.Equal(t, "0A000", SQLState(err))
		require.Zero(t, ran(p, "insert"))
	})
}

// endingAt closes a connection when a statement with that prefix arrives, n times.
func endingAt(prefix string, n int32) func(*script.Session, string) script.Result {
	var seen atomic.Int32
	return func(_ *script.Session, sql string) script.Result {
		return script.Result{Close: strings.HasPrefix(sql, prefix) && seen.Add(1) <= n}
	}
}

// TestAFirstStatementThatMeetsADeadConnectionTakesAnother: BEGIN and what came with it have had no effect that outlives the connection.
func TestAFirstStatementThatMeetsADeadConnectionTakesAnother(t *testing.T) {
	for _, at := range []string{"begin", "insert"} {
		t.Run("sql, lost at "+at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := lazily(t, endingAt(at, 1))
				holdAndRelease(t, db, 2)
				tx, err := db.BeginTx(t.Context(), nil)
				require.NoError(t, err)
				stmt, err := tx.PrepareContext(t.Context(), "insert into t values (1)")
				require.NoError(t, err)
				defer stmt.Close()
				_, err = stmt.ExecContext(t.Context())
				if at == "insert" { // not the first flight any more
					require.Error(t, err)
					require.Error(t, tx.Commit())
					return
				}
				require.NoError(t, err)
				require.NoError(t, tx.Commit())
				require.Len(t, s.Attempts(), 3)
			})
		})
		t.Run("Pool, lost at "+at, func(t *testing.T) {
			ways := map[string]func(ctx context.Context, tx pgx.Tx) error{
				"Exec": func(ctx context.Context, tx pgx.Tx) error {
					_, err := tx.Exec(ctx, "insert into t values (1)")
					return err
				},
				"Query": func(ctx context.Context, tx pgx.Tx) error {
					rows, err := tx.Query(ctx, "insert into t values (1)")
					if err != nil {
						return err
					}
					rows.Close()
					return rows.Err()
				},
				"QueryRow": func(ctx context.Context, tx pgx.Tx) error {
					if err := tx.QueryRow(ctx, "insert into t values (1)").Scan(); err != pgx.ErrNoRows { //nolint:errorlint // pgx returns it bare
						return err
					}
					return nil
				},
				"SendBatch": func(ctx context.Context, tx pgx.Tx) error {
					b := &pgx.Batch{}
					b.Queue("insert into t values (1)")
					return tx.SendBatch(ctx, b).Close()
				},
			}
			if at == "insert" {
				delete(ways, "SendBatch") // BEGIN has been answered by then
			}
			for name, way := range ways {
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						pool, s := lazyPool(t, endingAt(at, 1))
						require.NoError(t, pool.Ping(t.Context()))
						tx, err := pool.Begin(t.Context())
						require.NoError(t, err)
						require.NoError(t, way(t.Context(), tx))
						require.NoError(t, tx.Commit(t.Context()))
						require.Len(t, s.Attempts(), 2)
						require.Equal(t, 1, ran(s, "commit"))
					})
				})
			}
		})
	}
}

func TestAFirstStatementThatMayHaveRunIsSentAgainOnlyWhereThatIsSafe(t *testing.T) {
	for name, tc := range map[string]struct {
		query string
		used  bool
	}{
		"a procedure":      {"call p()", true},
		"a new connection": {"insert into t values (1)", false},
		"a text that ends": {"insert into t values (1); commit", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := lazily(t, endingAt(strings.Split(tc.query, " ")[0], 1))
				if tc.used {
					require.NoError(t, db.PingContext(t.Context()))
				}
				tx, err := db.BeginTx(t.Context(), nil)
				require.NoError(t, err)
				_, err = tx.ExecContext(t.Context(), tc.query)
				require.Error(t, err)
				_, err = tx.ExecContext(t.Context(), "insert into t values (2)")
				require.Error(t, err)
				require.Error(t, tx.Commit())
				require.Len(t, s.Attempts(), 1)
			})
		})
	}
}

// TestWhereATransactionCannotBeMovedNothingRunsOutsideOfIt: the statements that follow must not be autocommitted ones on a connection
// that took the place of the lost one.
func TestWhereATransactionCannotBeMovedNothingRunsOutsideOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Accept(knowing(0, endingAt("begin", 1))), script.Refused())
		db := scripted(t, s, WithCommitCheck(XID), WithLazyBegin(true))
		require.NoError(t, db.PingContext(t.Context()))
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(within(t, time.Second), "insert into t values (1)")
		require.Error(t, err)
		_, err = tx.ExecContext(t.Context(), "insert into t values (2)")
		require.Error(t, err)
		require.Error(t, tx.Commit())
		require.Zero(t, ran(s, "insert"))
	})
}

// TestABeginThatWaitsTellsTheBreakerNothing: it has shown nothing of the server. Its first statement does.
func TestABeginThatWaitsTellsTheBreakerNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := lazily(t, endingAt("begin", 1000), WithBreaker(breaker.Options{Failures: 1}))
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), "insert into t values (1)")
		require.Error(t, err)
		require.NotErrorIs(t, err, breaker.ErrOpen)
		require.Error(t, tx.Commit())
		_, err = db.Conn(t.Context())
		require.ErrorIs(t, err, breaker.ErrOpen)
	})
}

func TestRawFindsTheTransactionBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := lazily(t, nil)
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		tx, err := conn.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, conn.Raw(func(driverConn any) error {
			require.EqualValues(t, 'T', driverConn.(interface{ Conn() *pgx.Conn }).Conn().PgConn().TxStatus())
			return nil
		}))
		require.Equal(t, []string{"begin", ""}, texts(s))
		require.NoError(t, tx.Rollback())
		require.Equal(t, 1, ran(s, "rollback"))
	})
}

func TestConnOfATransactionOfAPoolFindsItBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, s := lazyPool(t, nil)
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 'T', tx.Conn().PgConn().TxStatus())
		require.Equal(t, []string{"begin", ""}, texts(s))
		require.NoError(t, tx.Rollback(t.Context()))
	})
}

// TestBehindAPoolerBeginIsSentByItself: what that does with a refused BEGIN that a statement follows is not for certain.
func TestBehindAPoolerBeginIsSentByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, knowing(1000, nil), WithCommitCheck(XID), WithLazyBegin(true))
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, ran(s, "begin"))
		require.NoError(t, tx.Rollback())
	})
}

// TestWithoutCommitCheckAQueryWaitsForBegin: nobody has said that there is no pooler in between.
func TestWithoutCommitCheckAQueryWaitsForBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("begin", 1, serverError("0A000", "no")), WithCommitCheck(NoCheck), WithLazyBegin(true))
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), "insert into t values (1)")
		require.Equal(t, "0A000", SQLState(err))
		require.NoError(t, tx.Rollback())
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Equal(t, []string{"begin", "begin", "update t set v = v", "commit"}, texts(s))
	})
}

// TestAQuestionThatIsRefusedRunsTheTransactionAgainWithout: PostgreSQL refuses to hand out ids when it is about to run out of them
// (54000), and reading must go on.
func TestAQuestionThatIsRefusedRunsTheTransactionAgainWithout(t *testing.T) {
	for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelSerializable} {
		synctest.Test(t, func(t *testing.T) {
			db, s := lazily(t, failing("select pg_catalog.pg_current", 1000, serverError("54000", "database is not accepting commands")))
			for range 2 {
				require.NoError(t, WithTx(t.Context(), db, TxOptions{Isolation: level}, update))
			}
			require.Equal(t, 1, ran(s, "select pg_catalog.pg_current"))
			require.Equal(t, 2, ran(s, "commit"))
			require.Equal(t, 1, ran(s, "rollback"))
			time.Sleep(lackingIDs)
			require.NoError(t, WithTx(t.Context(), db, TxOptions{Isolation: level}, update))
			require.Equal(t, 2, ran(s, "select pg_catalog.pg_current"), "after a while it is asked again")
		})
	}
}

// TestAServerIsAskedForItsRoleAfterARefusedBegin: that is not the status of the connection any more.
func TestAServerIsAskedForItsRoleAfterARefusedBegin(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		for _, refuses := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s := script.New(script.Serve(script.Script{
					Parameters: map[string]string{"in_hot_standby": ""},
					Run: func(_ *script.Session, sql string) script.Result {
						switch {
						case refuses && strings.HasPrefix(sql, "begin"):
							return script.Result{Err: serverError("53200", "out of memory")}
						case strings.Contains(sql, "pg_is_in_recovery"):
							return script.Text("f")
						case strings.HasPrefix(sql, "insert"):
							return script.Result{Err: serverError("25006", "cannot execute INSERT in a read-only transaction")}
						}
						return script.Result{}
					},
				}))
				pool := scriptedPool(t, s, WithLazyBegin(lazy))
				tx, err := pool.BeginTx(t.Context(), pgx.TxOptions{})
				if err == nil {
					_, _ = tx.Exec(t.Context(), "select 1")
					_ = tx.Rollback(t.Context())
				}
				_, err = pool.Exec(t.Context(), "insert into t values (1)")
				require.Error(t, err)
				asked := false
				for _, sql := range s.Queries() {
					asked = asked || strings.Contains(sql, "pg_is_in_recovery")
				}
				require.True(t, asked, "lazy %v, refuses %v: %v", lazy, refuses, s.Queries())
			})
		}
	}
}

// TestOnAHotStandbyBeginIsSentByItself: promoted before the first statement, it would have one of a primary.
func TestOnAHotStandbyBeginIsSentByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		promoted := false
		nothing := func(*script.Session, string) script.Result { return script.Result{} }
		db, s := scriptedFor(t, standby(&promoted, nothing), WithCommitCheck(XID), WithLazyBegin(true))
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, ran(s, "begin"))
		require.NoError(t, tx.Rollback())
	})
}

// TestABeginThatWaitsIsNoSuccessForTheBreaker: it must not make up for a failure before it.
func TestABeginThatWaitsIsNoSuccessForTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := lazily(t, endingAt("call", 1000), WithBreaker(breaker.Options{Failures: 2}))
		holdAndRelease(t, db, 2)
		for range 2 {
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(t.Context(), "call p()")
			require.Error(t, err)
			require.Error(t, tx.Commit())
		}
		_, err := db.Conn(t.Context())
		require.ErrorIs(t, err, breaker.ErrOpen)
	})
}

// TestWhereTheNewConnectionCannotBeginNothingRunsOutsideOfTheTransaction.
func TestWhereTheNewConnectionCannotBeginNothingRunsOutsideOfTheTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusing := script.Serve(script.Script{
			Parameters: map[string]string{"in_hot_standby": "on"}, // so that BEGIN does not wait
			Run:        knowing(0, failing("begin", 1, serverError("53200", "out of memory"))),
		})
		s := script.New(script.Accept(knowing(0, endingAt("begin", 1))), refusing)
		db := scripted(t, s, WithCommitCheck(XID), WithLazyBegin(true))
		require.NoError(t, db.PingContext(t.Context()))
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), "insert into t values (1)")
		require.Equal(t, "53200", SQLState(err))
		_, err = tx.ExecContext(t.Context(), "insert into t values (2)")
		require.Error(t, err)
		require.Error(t, tx.Commit())
		require.Zero(t, ran(s, "insert"))
	})
}
