package retrypg

import (
	"context"
	"database/sql"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// terminating is what pg_terminate_backend and a fast shutdown make a server process say.
func terminating(routine string) *pgproto3.ErrorResponse {
	fatal := serverError("57P01", "terminating connection due to administrator command")
	fatal.Severity, fatal.SeverityUnlocalized, fatal.Routine = "FATAL", "FATAL", routine
	return fatal
}

// eachUnpinnedWay runs f for the ways of database/sql that may take another connection.
func eachUnpinnedWay(t *testing.T, f func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error)) {
	for name, way := range statementWays {
		if strings.Contains(name, "pinned") {
			continue
		}
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, way) }) })
	}
}

func TestAStatementWhoseServerProcessWasTerminatedIsSentOverAnotherConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("insert", 2, terminating("ProcessInterrupts")))
		_, err := db.ExecContext(t.Context(), "insert into t values (1)")
		require.NoError(t, err)
		require.Equal(t, 3, ran(s, "insert"))
		require.Len(t, s.Attempts(), 3)
	})
}

// TestATerminatedStatementOfTheExtendedProtocolIsTheCallers: the server may have said that it was done, which pgx does not tell.
func TestATerminatedStatementOfTheExtendedProtocolIsTheCallers(t *testing.T) {
	eachUnpinnedWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		if t.Name() == "TestATerminatedStatementOfTheExtendedProtocolIsTheCallers/Exec" {
			return
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
			eachUnpinnedWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
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
	eachUnpinnedWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		readOnly := serverError("25006", "cannot execute INSERT in a read-only transaction")
		s := script.New(script.Serve(script.Script{
			Run:        failing("insert", 1, readOnly),
			Parameters: map[string]string{"in_hot_standby": "on"},
		}))
		db := scripted(t, s)
		require.NoError(t, run(t.Context(), db, "insert into t values (1)"))
		require.Equal(t, 2, ran(s, "insert"))
		require.Len(t, s.Attempts(), 2, "the connection to the standby was used again")
	})
}

func TestAReadOnlyErrorOfAPrimaryIsTheCallers(t *testing.T) {
	eachUnpinnedWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
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
	eachUnpinnedWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		db, s := scriptedFor(t, losingInserts(1))
		require.NoError(t, run(Idempotent(t.Context()), db, "insert into t values (1) on conflict do nothing"))
		require.Equal(t, 2, ran(s, "insert"))
	})
}

func TestAnIdempotentStatementThatIsLostAgainAndAgainIsUnknown(t *testing.T) {
	eachUnpinnedWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
		db, s := scriptedFor(t, losingInserts(1000))
		err := run(Idempotent(t.Context()), db, "insert into t values (1) on conflict do nothing")
		require.Error(t, err)
		require.Equal(t, OutcomeUnknown, Classify(err).Outcome, "%v", err)
		most := 3 // what database/sql allows
		if strings.Contains(t.Name(), "prepared") {
			most = 2 // preparing is a statement of that connection too
		}
		require.Equal(t, most, ran(s, "insert"))
	})
}

func TestIdempotentRetriesAreChargedToTheBudget(t *testing.T) {
	eachUnpinnedWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
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
