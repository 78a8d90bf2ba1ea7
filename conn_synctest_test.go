package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

func TestRawGivesTheConnectionOfPgxByItsMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, nil)
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, conn.Raw(func(dc any) error {
			pgxConn := dc.(interface{ Conn() *pgx.Conn }).Conn()
			_, err := pgxConn.Exec(t.Context(), "listen channel")
			return err
		}))
		require.NoError(t, conn.Close())
		require.Equal(t, 1, ran(s, "listen"))
		// What stdlib's own connection offers, ours offers too.
		require.Implements(t, (*interface {
			driver.Conn
			driver.Pinger
			driver.ExecerContext
			driver.QueryerContext
			driver.ConnPrepareContext
			driver.ConnBeginTx
			driver.SessionResetter
			driver.NamedValueChecker
		})(nil), (*stdlib.Conn)(nil))
	})
}

// statementWays run a statement in all the ways of database/sql. The text has no arguments, the protocol is the simple
// one for exec alone.
var statementWays = map[string]func(ctx context.Context, db *sql.DB, query string) error{
	"Exec": func(ctx context.Context, db *sql.DB, query string) error {
		_, err := db.ExecContext(ctx, query)
		return err
	},
	"Exec with an argument": func(ctx context.Context, db *sql.DB, query string) error {
		_, err := db.ExecContext(ctx, query+" $1", "x")
		return err
	},
	"Query": func(ctx context.Context, db *sql.DB, query string) error {
		rows, err := db.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		return errors.Join(rows.Err(), rows.Close())
	},
	"prepared Exec": func(ctx context.Context, db *sql.DB, query string) error {
		stmt, err := db.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		_, err = stmt.ExecContext(ctx)
		return errors.Join(err, stmt.Close())
	},
	"prepared Query": func(ctx context.Context, db *sql.DB, query string) error {
		stmt, err := db.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		rows, err := stmt.QueryContext(ctx)
		if err == nil {
			err = errors.Join(rows.Err(), rows.Close())
		}
		return errors.Join(err, stmt.Close())
	},
	"on a pinned connection": func(ctx context.Context, db *sql.DB, query string) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		_, err = conn.ExecContext(ctx, query)
		return errors.Join(err, conn.Close())
	},
}

func TestAStatementThatAConflictRolledBackIsRunAgainUntilItSucceeds(t *testing.T) {
	for name, way := range statementWays {
		for _, code := range []string{"40001", "40P01"} {
			t.Run(name+" "+code, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var hook waits
					db, s := scriptedFor(t, failing("update", 4, serverError(code, "conflict")), WithHooks(Hooks{Backoff: hook.hook}))
					start := time.Now()
					require.NoError(t, way(t.Context(), db, "update t set v = v"))
					require.Equal(t, 5, ran(s, "update"))
					require.Zero(t, ran(s, "begin"))
					var total time.Duration
					ceiling := DefaultInitialDelay
					require.Len(t, hook.all(), 4)
					for i, w := range hook.all() {
						require.Equal(t, "statement", w.Operation)
						require.Equal(t, i+1, w.Attempt)
						require.LessOrEqual(t, w.Wait, ceiling)
						ceiling *= 2
						total += w.Wait
					}
					require.Equal(t, total, time.Since(start))
					require.Len(t, s.Attempts(), 1, "on the same connection")
				})
			})
		}
	}
}

func TestAStatementThatKeepsConflictingEndsWithTheServersOwnError(t *testing.T) {
	for name, way := range statementWays {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, failing("update", 1000, conflictError()), WithMaxAttempts(4))
				err := way(t.Context(), db, "update t set v = v")
				requireNotExhausted(t, err)
				var pgErr *pgconn.PgError
				require.ErrorAs(t, err, &pgErr)
				require.Equal(t, "40001", pgErr.Code)
				require.Equal(t, 4, ran(s, "update"))
			})
		})
	}
}

func TestTheErrorOfAStatementIsTheValueThatPgxMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := scriptedFor(t, failing("insert", 1000, serverError("23505", "duplicate key")))
		_, err := db.ExecContext(t.Context(), "insert into t values (1)")
		_, ok := err.(*pgconn.PgError) //nolint:errorlint // callers such as GORM assert without unwrapping
		require.True(t, ok, "%T", err)
	})
}

func TestAStalePlanIsRunAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := serverError("0A000", "cached plan must not change result type")
		e.Routine = "RevalidateCachedQuery"
		db, s := scriptedFor(t, failing("select", 1, e))
		start := time.Now()
		require.NoError(t, statementWays["Query"](t.Context(), db, "select v from t"))
		require.Zero(t, time.Since(start))
		require.Equal(t, 2, ran(s, "select"))
	})
}

func TestWhatMayHaveCommittedAPartIsSentOnce(t *testing.T) {
	for _, query := range []string{
		"call p()", "do $$ begin end $$", "create index concurrently i on t (v)", "vacuum t", "select 1; select 2",
		"insert into t values (1); commit", "copy t from stdin", "prepare transaction 'x'",
	} {
		t.Run(query, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				verb := strings.Fields(query)[0]
				db, s := scriptedFor(t, failing(verb, 1000, conflictError()))
				_, err := db.ExecContext(t.Context(), query)
				require.Equal(t, "40001", SQLState(err))
				require.Equal(t, 1, ran(s, verb))
			})
		})
	}
}

func TestAConflictInsideATransactionIsLeftToItsOwner(t *testing.T) {
	for _, begin := range []string{"BeginTx", "begin as text"} {
		t.Run(begin, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, failing("update", 1, conflictError()))
				conn, err := db.Conn(t.Context())
				require.NoError(t, err)
				defer conn.Close()
				exec := conn.ExecContext
				if begin == "BeginTx" {
					tx, err := conn.BeginTx(t.Context(), nil)
					require.NoError(t, err)
					defer func() { require.NoError(t, tx.Rollback()) }()
					exec = tx.ExecContext
				} else {
					_, err = conn.ExecContext(t.Context(), "begin")
					require.NoError(t, err)
				}
				start := time.Now()
				_, err = exec(t.Context(), "update t set v = v")
				require.Equal(t, "40001", SQLState(err))
				require.Equal(t, 1, ran(s, "update"))
				require.Zero(t, time.Since(start))
			})
		})
	}
}

func TestAStatementBehindATransactionOnTheSameConnectionIsRunAgain(t *testing.T) {
	for name, end := range map[string]func(*sql.Tx) error{"commit": (*sql.Tx).Commit, "rollback": (*sql.Tx).Rollback} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, failing("update", 2, conflictError()))
				conn, err := db.Conn(t.Context())
				require.NoError(t, err)
				defer conn.Close()
				tx, err := conn.BeginTx(t.Context(), nil)
				require.NoError(t, err)
				require.NoError(t, end(tx))
				_, err = conn.ExecContext(t.Context(), "update t set v = v")
				require.NoError(t, err)
				require.Equal(t, 3, ran(s, "update"))
			})
		})
	}
}

func TestAStatementWhoseBackoffWouldOutlastItsDeadlineEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, failing("update", 1000, conflictError()),
			WithBackoff(policy.Must(policy.Fixed(time.Second, policy.NoJitter))))
		start := time.Now()
		_, err := db.ExecContext(within(t, 2500*time.Millisecond), "update t set v = v")
		require.Equal(t, "40001", SQLState(err))
		require.Equal(t, 2*time.Second, time.Since(start))
		require.Equal(t, 3, ran(s, "update"))
	})
}
