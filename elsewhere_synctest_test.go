package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// terminating is what pg_terminate_backend and a fast shutdown make a server process say.
func terminating(routine string) *pgproto3.ErrorResponse {
	fatal := serverError("57P01", "terminating connection due to administrator command")
	fatal.Severity, fatal.SeverityUnlocalized, fatal.Routine = "FATAL", "FATAL", routine
	return fatal
}

// eachWay runs f for each way of database/sql to run a statement.
func eachWay(t *testing.T, f func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error)) {
	for name, way := range statementWays {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, way) }) })
	}
}

func TestAStatementWhoseServerProcessWasTerminatedIsSentOverAnotherConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("insert", 5, terminating("ProcessInterrupts")))
		_, err := db.ExecContext(t.Context(), "insert into t values (1)")
		require.NoError(t, err)
		require.Equal(t, 6, ran(s, "insert"))
		require.Len(t, s.Attempts(), 6, "more than database/sql itself tries")
	})
}

func TestAStatementThatIsTerminatedAgainAndAgainFailsWithTheErrorOfTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("insert", 1000, terminating("ProcessInterrupts")))
		_, err := db.ExecContext(t.Context(), "insert into t values (1)")
		require.IsType(t, (*pgconn.PgError)(nil), err)
		require.Equal(t, "57P01", SQLState(err))
		require.Equal(t, DefaultMaxAttempts, ran(s, "insert"))
	})
}

// TestAPinnedConnectionWhoseFirstStatementHasFailedForGoodIsNotExchangedForTheNextOne: what may be done about the one says nothing of
// the other.
func TestAPinnedConnectionWhoseFirstStatementHasFailedForGoodIsNotExchangedForTheNextOne(t *testing.T) {
	for name, next := range map[string]func(ctx context.Context, conn *sql.Conn) error{
		"exec": func(ctx context.Context, conn *sql.Conn) error {
			_, err := conn.ExecContext(ctx, "update t set a = 1")
			return err
		},
		"query": func(ctx context.Context, conn *sql.Conn) error {
			var a int
			return conn.QueryRowContext(ctx, "update t set a = 1 returning a").Scan(&a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				terminated := failing("insert", 1000, terminating("ProcessInterrupts"))
				db, s := scriptedFor(t, func(s *script.Session, sql string) script.Result {
					time.Sleep(time.Second)
					return terminated(s, sql)
				}, WithMaxElapsed(time.Millisecond))
				conn, err := db.Conn(t.Context())
				require.NoError(t, err)
				_, err = conn.ExecContext(t.Context(), "insert into t values (1)")
				require.Equal(t, "57P01", SQLState(err))
				require.Error(t, next(t.Context(), conn))
				require.Zero(t, ran(s, "update"))
				_ = conn.Close() // it is broken
			})
		})
	}
}

// TestAPinnedConnectionThatWasUsedIsNotExchanged: what its holder has set on it would be gone.
func TestAPinnedConnectionThatWasUsedIsNotExchanged(t *testing.T) {
	for name, use := range map[string]func(ctx context.Context, conn *sql.Conn) error{
		"by a statement": func(ctx context.Context, conn *sql.Conn) error {
			_, err := conn.ExecContext(ctx, "set search_path = mine")
			return err
		},
		"through Raw": func(ctx context.Context, conn *sql.Conn) error {
			return conn.Raw(func(driverConn any) error {
				_, err := driverConn.(*Conn).Conn().Exec(ctx, "set search_path = mine")
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, failing("insert", 1, terminating("ProcessInterrupts")))
				conn, err := db.Conn(t.Context())
				require.NoError(t, err)
				defer conn.Close()
				require.NoError(t, use(t.Context(), conn))
				_, err = conn.ExecContext(t.Context(), "insert into t values (1)")
				require.Equal(t, "57P01", SQLState(err))
				require.Equal(t, 1, ran(s, "insert"))
				require.Len(t, s.Attempts(), 1)
			})
		})
	}
}

// TestAPinnedConnectionIsNotExchangedForWhatAnEarlierStatementMet: its holder knows of the error, and went on.
func TestAPinnedConnectionIsNotExchangedForWhatAnEarlierStatementMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := onStandby(1, serverError("25006", "cannot execute INSERT in a read-only transaction"))
		conn, err := scripted(t, s, WithMaxAttempts(1)).Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.ExecContext(t.Context(), "insert into t values (1)")
		require.Equal(t, "25006", SQLState(err))
		_, err = conn.ExecContext(t.Context(), "select 1")
		require.NoError(t, err)
		require.Len(t, s.Attempts(), 1)
	})
}

func TestAPreparedStatementFollowsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := onStandby(1, serverError("25006", "cannot execute INSERT in a read-only transaction"))
		db := scripted(t, s)
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		stmt, err := conn.PrepareContext(t.Context(), "insert into t values (1)")
		require.NoError(t, err)
		defer func() { require.NoError(t, stmt.Close()) }()
		other, err := conn.PrepareContext(t.Context(), "select 1")
		require.NoError(t, err)
		defer func() { require.NoError(t, other.Close()) }()
		for range 2 {
			_, err = stmt.ExecContext(t.Context())
			require.NoError(t, err)
			_, err = other.ExecContext(t.Context())
			require.NoError(t, err)
		}
		require.Equal(t, 3, ran(s, "insert"))
		require.Len(t, s.Attempts(), 2)
	})
}

// TestAPreparedStatementThatDidNotFollowIsClosedWithoutAnError: it went with its connection.
func TestAPreparedStatementThatDidNotFollowIsClosedWithoutAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := onStandby(1, serverError("25006", "cannot execute INSERT in a read-only transaction"))
		conn, err := scripted(t, s).Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		stmt, err := conn.PrepareContext(t.Context(), "select 1")
		require.NoError(t, err)
		defer func() { require.NoError(t, stmt.Close()) }()
		_, err = conn.ExecContext(t.Context(), "insert into t values (1)")
		require.NoError(t, err)
		require.Len(t, s.Attempts(), 2)
	})
}

// TestAnExchangeOfTheConnectionAsksNoBreaker: the statement that needs it may be the one probe of a half-open breaker.
func TestAnExchangeOfTheConnectionAsksNoBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inserts atomic.Int32
		db, s := scriptedFor(t, func(_ *script.Session, sql string) script.Result {
			if !strings.HasPrefix(sql, "insert") {
				return script.Result{}
			}
			switch inserts.Add(1) {
			case 1:
				return script.Result{Close: true}
			case 2:
				return script.Result{Err: terminating("ProcessInterrupts")}
			}
			return script.Result{}
		}, WithBreaker(breaker.Options{Failures: 1, OpenFor: time.Second}))
		held, err := db.Conn(t.Context())
		require.NoError(t, err)
		_, err = db.ExecContext(t.Context(), "insert into t values (1)")
		require.Equal(t, OutcomeUnknown, Classify(err).Outcome)
		require.NoError(t, held.Close())
		_, err = db.ExecContext(t.Context(), "insert into t values (2)")
		require.ErrorIs(t, err, breaker.ErrOpen)
		time.Sleep(time.Second)
		_, err = db.ExecContext(t.Context(), "insert into t values (3)")
		require.NoError(t, err)
		require.Equal(t, 3, ran(s, "insert"))
	})
}

func TestAnErrorOfAStatementThatWasSentAgainDoesNotMakeDatabaseSQLSendItYetAgain(t *testing.T) {
	err := newSentAgainError(&discardedError{err: io.ErrUnexpectedEOF}, net.ErrClosed)
	require.NotErrorIs(t, err, driver.ErrBadConn)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorIs(t, err, net.ErrClosed)
}

// TestAStatementThatWasSentAgainTellsOfTheAttemptThatMayHaveTakenEffect: the last attempt alone would say that nothing has.
func TestAStatementThatWasSentAgainTellsOfTheAttemptThatMayHaveTakenEffect(t *testing.T) {
	for name, second := range map[string]script.Result{
		"and fails":         {Err: serverError("23505", "duplicate key value violates unique constraint")},
		"and is terminated": {Err: terminating("ProcessInterrupts")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var inserts atomic.Int32
				db, _ := scriptedFor(t, func(_ *script.Session, sql string) script.Result {
					switch {
					case !strings.HasPrefix(sql, "insert"):
						return script.Result{}
					case inserts.Add(1) == 1:
						return script.Result{Close: true}
					}
					return second
				})
				_, err := db.ExecContext(Idempotent(t.Context()), "insert into t values (1)")
				require.Equal(t, second.Err.Code, SQLState(err))
				require.Equal(t, OutcomeUnknown, Classify(err).Outcome, "%v", err)
				require.NotErrorIs(t, err, driver.ErrBadConn)
			})
		})
	}
}

func TestAStatementThatWasDoneWhenItsServerProcessWasTerminatedIsNotSentAgain(t *testing.T) {
	done := func(_ *script.Session, sql string) (r script.Result) {
		if strings.HasPrefix(sql, "insert") {
			r.After = terminating("ProcessInterrupts")
		}
		return r
	}
	eachWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		db, s := scriptedFor(t, done)
		require.Equal(t, "57P01", SQLState(run(t.Context(), db, "insert into t values (1)")))
		require.Equal(t, 1, ran(s, "insert"))
	})
	eachPoolWay(t, func(t *testing.T, run func(ctx context.Context, pool *Pool, query string) error) {
		s := script.New(script.Accept(done))
		require.Equal(t, "57P01", SQLState(run(t.Context(), scriptedPool(t, s), "insert into t values (1)")))
		require.Equal(t, 1, ran(s, "insert"))
	})
}

// TestATerminatedStatementOfTheExtendedProtocolIsTheCallers: the server may have said that it was done, which pgx does not tell.
func TestATerminatedStatementOfTheExtendedProtocolIsTheCallers(t *testing.T) {
	eachWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		if strings.HasSuffix(t.Name(), "/Exec") || strings.HasSuffix(t.Name(), "pinned_connection") {
			return // by the simple protocol
		}
		db, s := scriptedFor(t, failing("insert", 1, terminating("ProcessInterrupts")))
		require.Equal(t, "57P01", SQLState(run(t.Context(), db, "insert into t values (1)")))
		require.Equal(t, 1, ran(s, "insert"))
	})
}

func TestAStatementThatMayHaveRunIsNotSentAgain(t *testing.T) {
	for name, c := range map[string]struct {
		answer *pgproto3.ErrorResponse
		query  string
		ctx    func(context.Context) context.Context
	}{
		"a pooler speaks":              {answer: terminating(""), query: "insert into t values (1)"},
		"it may commit by itself":      {answer: terminating("ProcessInterrupts"), query: "call insert_and_commit()"},
		"several statements":           {answer: terminating("ProcessInterrupts"), query: "insert into t values (1); insert into t values (2)"},
		"the caller wants one attempt": {answer: terminating("ProcessInterrupts"), query: "insert into t values (1)", ctx: NoRetry},
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
				first := strings.Fields(c.query)[0]
				db, s := scriptedFor(t, failing(first, 1, c.answer))
				ctx := t.Context()
				if c.ctx != nil {
					ctx = c.ctx(ctx)
				}
				err := run(ctx, db, c.query)
				if strings.Contains(c.query, ";") && err != nil && !strings.Contains(err.Error(), "57P01") {
					return // not every way can send several statements
				}
				require.Equal(t, "57P01", SQLState(err))
				require.Equal(t, 1, ran(s, first))
			})
		})
	}
}

func TestAStatementThatMetAStandbyIsSentOverAnotherConnection(t *testing.T) {
	eachWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		s := onStandby(1, serverError("25006", "cannot execute INSERT in a read-only transaction"))
		db := scripted(t, s)
		require.NoError(t, run(t.Context(), db, "insert into t values (1)"))
		require.Equal(t, 2, ran(s, "insert"))
		require.Len(t, s.Attempts(), 2, "the connection to the standby was used again")
	})
}

func TestAReadOnlyErrorOfAPrimaryIsTheCallers(t *testing.T) {
	eachWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		readOnly := serverError("25006", "cannot execute INSERT in a read-only transaction")
		s := script.New(script.Serve(script.Script{
			Run:        failing("insert", 1, readOnly),
			Parameters: map[string]string{"in_hot_standby": "off"},
		}))
		db := scripted(t, s)
		require.Equal(t, "25006", SQLState(run(t.Context(), db, "insert into t values (1)")))
		require.Equal(t, 1, ran(s, "insert"))
		require.NoError(t, run(t.Context(), db, "insert into t values (1)"))
		require.Len(t, s.Attempts(), 1)
	})
}

// losingInserts answers the first n inserts with the end of the connection.
func losingInserts(n int32) func(*script.Session, string) script.Result {
	var lost atomic.Int32
	return func(_ *script.Session, sql string) script.Result {
		return script.Result{Close: strings.HasPrefix(sql, "insert") && lost.Add(1) <= n}
	}
}

func TestAnIdempotentStatementIsSentAgainWhenItsAnswerWasLost(t *testing.T) {
	eachWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		db, s := scriptedFor(t, losingInserts(1))
		require.NoError(t, run(Idempotent(t.Context()), db, "insert into t values (1) on conflict do nothing"))
		require.Equal(t, 2, ran(s, "insert"))
	})
}

func TestAnIdempotentStatementThatIsLostAgainAndAgainIsUnknown(t *testing.T) {
	eachWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		db, s := scriptedFor(t, losingInserts(1000))
		err := run(Idempotent(t.Context()), db, "insert into t values (1) on conflict do nothing")
		require.Error(t, err)
		require.Equal(t, OutcomeUnknown, Classify(err).Outcome, "%v", err)
		require.Equal(t, maxLost, ran(s, "insert"))
	})
}

func TestIdempotentRetriesAreChargedToTheBudget(t *testing.T) {
	eachWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		c, s := scriptedCore(t, losingInserts(1000))
		for c.core.budget.Withdraw() {
		}
		db := sql.OpenDB(c)
		defer db.Close()
		require.Error(t, run(Idempotent(t.Context()), db, "insert into t values (1)"))
		require.Equal(t, 1, ran(s, "insert"))
	})
}

func TestIdempotentHasNoEffectInATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, losingInserts(1000))
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(Idempotent(t.Context()), "insert into t values (1)")
		require.Error(t, err)
		_ = tx.Rollback()
		require.Equal(t, 1, ran(s, "insert"))
	})
}

func TestWithTxIsRunOnceWithNoRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("insert", 1, conflictError()))
		insert := func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "insert into t values (1)")
			return err
		}
		require.Equal(t, "40001", SQLState(WithTx(NoRetry(t.Context()), db, TxOptions{}, insert)))
		require.Equal(t, 1, ran(s, "insert"))
		require.NoError(t, WithTx(NoRetry(t.Context()), db, TxOptions{}, insert))
	})
}

func scriptedCore(t *testing.T, run func(*script.Session, string) script.Result) (*Connector, *script.Server) {
	s := script.New(script.Accept(run))
	return scriptedConnector(t, s), s
}
