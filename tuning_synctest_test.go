package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

func TestReconfigureChangesHowOftenIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := scriptedCore(t, failing("insert", 1000, conflictError()))
		db := sql.OpenDB(c)
		defer db.Close()
		insert := func() int {
			before := ran(s, "insert")
			_, err := db.ExecContext(t.Context(), "insert into t values (1)")
			require.Equal(t, "40001", SQLState(err))
			return ran(s, "insert") - before
		}
		require.Equal(t, DefaultMaxAttempts, insert())
		require.NoError(t, c.Reconfigure(WithMaxAttempts(3)))
		require.Equal(t, 3, insert())
		require.NoError(t, c.Reconfigure(WithStatementTimeout(time.Hour), nil))
		require.Equal(t, 3, insert(), "what was not given stays")
	})
}

func TestReconfigureThatIsWrongChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := scriptedCore(t, nil)
		before := c.core.tuned.Load()
		require.ErrorContains(t, c.Reconfigure(WithMaxAttempts(0)), "WithMaxAttempts(0)")
		require.ErrorContains(t, c.Reconfigure(WithMaxAttempts(2), WithConnectMaxElapsed(-5)), "connect max elapsed")
		require.Same(t, before, c.core.tuned.Load())
		require.NoError(t, c.Reconfigure(WithMaxAttempts(2)), "and the error is not remembered")
	})
}

func TestReconfigureMayBeCalledWhileStatementsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := scriptedCore(t, nil)
		db := sql.OpenDB(c)
		defer db.Close()
		var calls sync.WaitGroup
		for i := range 8 {
			calls.Go(func() {
				for range 20 {
					require.NoError(t, c.Reconfigure(WithMaxAttempts(1+i)))
					_, err := db.ExecContext(t.Context(), "insert into t values (1)")
					require.NoError(t, err)
				}
			})
		}
		calls.Wait()
	})
}

func TestAStatementWithoutADeadlineIsBoundedByItsTimeout(t *testing.T) {
	for name, way := range statementWays {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, hanging, WithStatementTimeout(5*time.Second))
				start := time.Now()
				err := way(t.Context(), db, "insert into t values (1)")
				require.Equal(t, 5*time.Second, time.Since(start))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "retry_statement_timeout (5s)")
				require.Equal(t, OutcomeUnknown, Classify(err).Outcome)
				require.Equal(t, 1, ran(s, "insert"))

				start = time.Now()
				err = way(within(t, time.Minute), db, "insert into t values (1)")
				require.Equal(t, time.Minute, time.Since(start), "the caller's deadline goes before, also a later one")
				require.NotContains(t, err.Error(), "retry_statement_timeout")
			})
		})
	}
}

// TestATransactionWhoseStatementTookTooLongIsRunAgain: it was not committed.
func TestATransactionWhoseStatementTookTooLongIsRunAgain(t *testing.T) {
	for name, run := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"Exec": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into t values (1)")
			return err
		},
		"Query": func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, "insert into t values (1)")
			rows.Close()
			return errors.Join(err, rows.Err())
		},
		"QueryRow": func(ctx context.Context, tx pgx.Tx) error {
			var n int
			return tx.QueryRow(ctx, "insert into t values (1)").Scan(&n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := script.New(script.Accept(hanging))
				pool := scriptedPool(t, s, WithStatementTimeout(5*time.Second), WithMaxAttempts(2))
				err := WithPgxTx(t.Context(), pool, TxOptions{}, run)
				require.ErrorContains(t, err, "retry_statement_timeout (5s)")
				require.Equal(t, 2, ran(s, "insert"))
			})
		})
	}
}

// uncomparable is a context that == panics for.
type uncomparable struct {
	context.Context
	_ []int
}

func TestAContextOfTheCallersMayBeOfAnyType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Serve(script.Script{Run: returningOne(func(*script.Session, string) script.Result { return script.Result{} }), Columns: oneColumn}))
		err := WithPgxTx(t.Context(), scriptedPool(t, s), TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			var v string
			return tx.QueryRow(uncomparable{Context: ctx}, "select 1 returning 1").Scan(&v)
		})
		require.NoError(t, err)
	})
}

func TestRowsMayBeReadUntilTheStatementTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := script.Int8("1", "2", "3")
		db := scripted(t, script.New(script.Serve(script.Script{
			Run: func(_ *script.Session, sql string) (r script.Result) {
				if strings.HasPrefix(sql, "select") {
					r = answer
				}
				return r
			},
			Columns: func(string) []script.Column { return answer.Columns },
		})), WithStatementTimeout(5*time.Second))
		for range 3 {
			require.Equal(t, 3, slowly(t, db))
		}
	})
}

// slowly counts the rows of a query, of which it reads the first after 4 s.
func slowly(t *testing.T, db *sql.DB) (n int) {
	rows, err := db.QueryContext(t.Context(), "select n from t")
	require.NoError(t, err)
	defer rows.Close()
	time.Sleep(4 * time.Second)
	for rows.Next() {
		n++
	}
	require.NoError(t, rows.Err())
	return n
}

func TestAConnectionIsPingedAfterTheTimeThatIsSet(t *testing.T) {
	for name, tt := range map[string]struct {
		idle    time.Duration
		pinged  bool
		options []Option
	}{
		"default, short": {idle: DefaultPingAfter},
		"default, long":  {idle: DefaultPingAfter + 1, pinged: true},
		"set, short":     {idle: time.Minute, options: []Option{WithPingAfter(time.Minute)}},
		"set, long":      {idle: time.Minute + 1, options: []Option{WithPingAfter(time.Minute)}, pinged: true},
		"off":            {idle: 24 * time.Hour, options: []Option{WithPingAfter(Off)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, nil, tt.options...)
				require.NoError(t, db.PingContext(t.Context()))
				before := len(s.Queries())
				time.Sleep(tt.idle)
				_, err := db.ExecContext(t.Context(), "insert into t values (1)")
				require.NoError(t, err)
				want := 1
				if tt.pinged {
					want = 2
				}
				require.Equal(t, want, len(s.Queries())-before, "%q", s.Queries()[before:])
			})
		})
	}
}

// hanging never answers an insert.
func hanging(_ *script.Session, sql string) script.Result {
	return script.Result{Hang: strings.HasPrefix(sql, "insert")}
}
