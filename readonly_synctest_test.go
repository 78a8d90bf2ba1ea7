package retrypg

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// readOnlyRefusal is the 25006 of a standby, of a READ ONLY transaction, and of a role with default_transaction_read_only.
var readOnlyRefusal = serverError("25006", "cannot execute INSERT in a read-only transaction")

// refusing serves a server that does not report in_hot_standby, as PostgreSQL before 14, or reports something that may be a pooler's.
// Its first insert fails with 25006; asked, it says whether it is in recovery.
func refusing(reported, recovery string) *script.Server {
	run := failing("insert", 1, readOnlyRefusal)
	return script.New(script.Serve(script.Script{
		Parameters: map[string]string{"in_hot_standby": reported},
		Run: func(s *script.Session, sql string) script.Result {
			if strings.Contains(sql, "pg_is_in_recovery") && recovery != "" {
				return script.Text(recovery)
			}
			return returningOne(run)(s, sql)
		},
		Columns: oneColumn,
	}))
}

const recoveryQuestion = "select pg_catalog.pg_is_in_recovery()"

func TestAServerThatRefusesAWriteIsAskedWhetherItIsAStandby(t *testing.T) {
	for name, c := range map[string]struct {
		reported, recovery string
		sent, asked        int
		moved              bool
	}{
		"PostgreSQL 13, a standby":                     {recovery: "t", sent: 2, asked: 1, moved: true},
		"PostgreSQL 13, a role that may only read":     {recovery: "f", sent: 1, asked: 1},
		"a pooler says that it is none, but it is one": {reported: "off", recovery: "t", sent: 2, asked: 1, moved: true},
		"a primary with a role that may only read":     {reported: "off", recovery: "f", sent: 1, asked: 1},
		"it says that it is a standby":                 {reported: "on", recovery: "t", sent: 2, moved: true},
		"it cannot be asked, and does not say":         {sent: 2, asked: 1, moved: true},
		"it cannot be asked, and says that it is none": {reported: "off", sent: 1, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			check := func(t *testing.T, s *script.Server, run func() error) {
				err := run()
				if c.moved {
					require.NoError(t, err)
				} else {
					require.Equal(t, "25006", SQLState(err))
				}
				require.Equal(t, c.sent, ran(s, "insert"))
				require.Equal(t, c.asked, ran(s, recoveryQuestion))
				require.NoError(t, run(), "the server has no more refusals")
				require.Equal(t, c.asked, ran(s, recoveryQuestion), "asked again")
				if c.moved {
					require.Len(t, s.Attempts(), 2)
				} else {
					require.Len(t, s.Attempts(), 1)
				}
			}
			eachWay(t, func(t *testing.T, run func(ctx context.Context, db *sql.DB, query string) error) {
				s := refusing(c.reported, c.recovery)
				db := scripted(t, s)
				check(t, s, func() error { return run(t.Context(), db, "insert into t values (1)") })
			})
			eachPoolWay(t, func(t *testing.T, run func(ctx context.Context, pool *Pool, query string) error) {
				s := refusing(c.reported, c.recovery)
				pool := scriptedPool(t, s)
				check(t, s, func() error { return run(t.Context(), pool, "insert into t values (1)") })
			})
		})
	}
}

// TestATransactionThatIsRefusedAWriteIsRunAgainOnlyOnAnotherServer: no other server gives a role more rights.
func TestATransactionThatIsRefusedAWriteIsRunAgainOnlyOnAnotherServer(t *testing.T) {
	for name, c := range map[string]struct {
		reported, recovery string
		runs, connections  int
	}{
		"PostgreSQL 13, a standby":                     {recovery: "t", runs: 2, connections: 2},
		"PostgreSQL 13, a role that may only read":     {recovery: "f", runs: 1, connections: 1},
		"a pooler says that it is none, but it is one": {reported: "off", recovery: "t", runs: 2, connections: 2},
		"a primary with a role that may only read":     {reported: "off", recovery: "f", runs: 1, connections: 1},
	} {
		t.Run(name, func(t *testing.T) {
			check := func(t *testing.T, s *script.Server, err error) {
				if c.runs == 1 {
					require.Equal(t, "25006", SQLState(err))
					requireNotExhausted(t, err)
				} else {
					require.NoError(t, err)
				}
				require.Equal(t, c.runs, ran(s, "insert"))
				require.Equal(t, 1, ran(s, recoveryQuestion))
				require.Len(t, s.Attempts(), c.connections)
			}
			t.Run("WithTx", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := refusing(c.reported, c.recovery)
					err := WithTx(t.Context(), scripted(t, s), TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
						_, err := tx.ExecContext(ctx, "insert into t values (1)")
						return err
					})
					check(t, s, err)
				})
			})
			t.Run("WithPgxTx", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := refusing(c.reported, c.recovery)
					err := WithPgxTx(t.Context(), scriptedPool(t, s), TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
						_, err := tx.Exec(ctx, "insert into t values (1)")
						return err
					})
					check(t, s, err)
				})
			})
		})
	}
}

// TestAServerThatRefusedAWriteInACallersTransactionIsAskedWhenTheConnectionIsTakenAgain: within the transaction it cannot be asked.
func TestAServerThatRefusedAWriteInACallersTransactionIsAskedWhenTheConnectionIsTakenAgain(t *testing.T) {
	for recovery, connections := range map[string]int{"t": 2, "f": 1} {
		t.Run(recovery, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := refusing("", recovery)
				db := scripted(t, s)
				conn, err := db.Conn(t.Context())
				require.NoError(t, err)
				for _, q := range []string{"begin", "insert into t values (1)", "rollback"} {
					_, err = conn.ExecContext(t.Context(), q)
					if q == "insert into t values (1)" {
						require.Equal(t, "25006", SQLState(err))
						continue
					}
					require.NoError(t, err)
				}
				require.Zero(t, ran(s, recoveryQuestion))
				require.NoError(t, conn.Close())
				for range 2 {
					_, err = db.ExecContext(t.Context(), "insert into t values (2)")
					require.NoError(t, err)
				}
				require.Equal(t, 1, ran(s, recoveryQuestion))
				require.Len(t, s.Attempts(), connections)
			})
		})
	}
}

// TestAStandbyThatWasAskedForAnswersAWriteOnce: the error is the caller's, and nobody else loses a connection.
func TestAStandbyThatWasAskedForAnswersAWriteOnce(t *testing.T) {
	for role, validate := range map[string]pgconn.ValidateConnectFunc{
		"standby":        pgconn.ValidateConnectTargetSessionAttrsStandby,
		"read-only":      pgconn.ValidateConnectTargetSessionAttrsReadOnly,
		"prefer-standby": pgconn.ValidateConnectTargetSessionAttrsPreferStandby,
	} {
		t.Run(role, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, fenced := standbyServer(), 0
				pool := scriptedPool(t, s, WithHooks(Hooks{ServerFenced: func(error) { fenced++ }}), WithConnConfig(func(cfg *pgx.ConnConfig) error {
					cfg.ValidateConnect = validate
					return nil
				}))
				_, err := pool.Exec(t.Context(), "insert into t values (1)")
				require.Equal(t, "25006", SQLState(err))
				require.Equal(t, 1, ran(s, "insert"))
				err = WithPgxTx(t.Context(), pool, TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
					_, err := tx.Exec(ctx, "insert into t values (2)")
					return err
				})
				require.Equal(t, "25006", SQLState(err))
				requireNotExhausted(t, err)
				require.Equal(t, 2, ran(s, "insert"))
				require.Zero(t, fenced)
				require.Len(t, s.Attempts(), 1)
			})
		})
	}
}

// TestAStandbyThatIsMetAgainIsNotFencedAnewForAWhile: others may be content with it. The writer goes on looking for a primary.
func TestAStandbyThatIsMetAgainIsNotFencedAnewForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, fenced := standbyServer(), 0
		pool := scriptedPool(t, s, WithHooks(Hooks{ServerFenced: func(error) { fenced++ }}))
		write := func() {
			_, err := pool.Exec(t.Context(), "insert into t values (1)")
			require.Equal(t, "25006", SQLState(err))
		}
		write()
		require.Equal(t, DefaultMaxAttempts, ran(s, "insert"))
		require.Equal(t, 1, fenced)
		write()
		require.Equal(t, 1, fenced)
		time.Sleep(refenceAfter)
		write()
		require.Equal(t, 2, fenced)
	})
}

// standbyServer serves a hot standby.
func standbyServer() *script.Server {
	return script.New(script.Serve(script.Script{
		Parameters: map[string]string{"in_hot_standby": "on"},
		Run: func(_ *script.Session, sql string) script.Result {
			switch {
			case strings.HasPrefix(sql, "insert"):
				return script.Result{Err: readOnlyRefusal}
			case strings.Contains(sql, "pg_is_in_recovery"):
				return script.Text("t")
			case strings.HasPrefix(sql, "show transaction_read_only"):
				return script.Text("on")
			}
			return script.Result{}
		},
	}))
}
