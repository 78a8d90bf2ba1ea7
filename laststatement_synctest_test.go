package retrypg

import (
	"context"
	"database/sql"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
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
		second  string
	}{
		"the only one, before the id is known": {sql: lastInsert},
		"several statements":                   {first: firstInsert, sql: "insert into u values (2); select 1"},
		"a procedure":                          {first: firstInsert, sql: "call p()"},
		"DDL":                                  {first: firstInsert, sql: "create table v ()"},
		"COPY":                                 {first: firstInsert, sql: "copy t to '/tmp/t'"},
		"SET":                                  {first: firstInsert, sql: "set local work_mem = '1MB'"},
		"behind a text that may have switched": {first: firstInsert, second: "rollback; begin", sql: lastInsert},
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
							if k.second != "" {
								require.NoError(t, exec(ctx, k.second))
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

// TestAConnectionThatIsEndedAtBeginIsExchangedBeneathTheOnlyStatement: nothing behind BEGIN has run.
func TestAConnectionThatIsEndedAtBeginIsExchangedBeneathTheOnlyStatement(t *testing.T) {
	inLastWays(t, func(t *testing.T, way lastWay, args ...any) {
		fatal, runs := serverError("57P01", "terminating connection"), 0
		fatal.Severity, fatal.SeverityUnlocalized = "FATAL", "FATAL"
		s, err := way(t, failing("begin", 1, fatal), TxOptions{ReadOnly: true}, func(ctx context.Context, exec execution) error {
			runs++
			return exec(LastStatement(ctx), with("select 1", args), args...)
		})
		require.NoError(t, err)
		require.Equal(t, []int{1, 1, 1, 2}, []int{runs, ran(s, "select 1"), ran(s, "commit"), len(s.Attempts())})
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
