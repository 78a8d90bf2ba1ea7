package commit_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

var errConflict = &pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "40001", Routine: "test"}

// TestAClosureThatEndsItsTransactionByTextAndBeginsAnotherIsToldSo: its work may be there or not, and is not done again.
func TestAClosureThatEndsItsTransactionByTextAndBeginsAnotherIsToldSo(t *testing.T) {
	for _, check := range checks {
		t.Run(check.String(), func(t *testing.T) {
			s := newScene(t)
			db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check))
			pool := openPool(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check))
			for _, texts := range [][]string{
				{"rollback and chain"},
				{"ROLLBACK WORK AND CHAIN;"},
				{"rollback; begin"},
				{"rollback", "begin"},
				{"commit; begin"},
				{"commit and chain"},
				{"commit", "begin"},
			} {
				for _, fails := range []bool{false, true} {
					id := strings.Join(texts, ", ")
					want := 0
					if strings.HasPrefix(texts[0], "commit") {
						want = 1
					}
					runs := 0
					closure := func(exec func(sql string, args ...any) error) error {
						runs++
						if err := exec(insertItem, id); err != nil {
							return err
						}
						for _, text := range texts {
							if err := exec(text); err != nil {
								return err
							}
						}
						if fails {
							return errConflict
						}
						return nil
					}
					err := retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
						return closure(func(sql string, args ...any) error { _, err := tx.ExecContext(ctx, sql, args...); return err })
					})
					require.ErrorIs(t, err, retrypg.ErrTxEnded, "%s, fails %v", id, fails)
					require.Equal(t, []int{1, want}, []int{runs, s.items(id)}, id)

					err = retrypg.WithPgxTx(t.Context(), pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
						return closure(func(sql string, args ...any) error { _, err := tx.Exec(ctx, sql, args...); return err })
					})
					require.ErrorIs(t, err, retrypg.ErrTxEnded, "%s, fails %v, pgx", id, fails)
					require.Equal(t, []int{2, 2 * want}, []int{runs, s.items(id)}, id)
					_, err = s.admin.Exec(t.Context(), "truncate item")
					require.NoError(t, err)
				}
			}
		})
	}
}

// TestTextsThatOnlyLookAsIfTheyEndedATransactionDoNot: where there is doubt, the server knows whether the transaction is the
// same.
func TestTextsThatOnlyLookAsIfTheyEndedATransactionDoNot(t *testing.T) {
	for _, check := range checks {
		t.Run(check.String(), func(t *testing.T) {
			s := newScene(t)
			db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check))
			for _, text := range []string{
				"savepoint a; rollback to savepoint a", "savepoint a; select 1; rollback work to a; release a",
				"prepare p as select 1; execute p; deallocate p", "select 'x'; select 'commit; begin'", `select 'C:\'; select 'end'`,
			} {
				s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
				runs := 0
				err := retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
					runs++
					if _, err := tx.ExecContext(ctx, insertItem, text); err != nil {
						return err
					}
					_, err := tx.ExecContext(ctx, text)
					return err
				})
				if check == retrypg.NoCheck {
					require.ErrorIs(t, err, retrypg.ErrCommitUnknown, text)
				} else {
					require.NoError(t, err, text)
				}
				require.Equal(t, []int{1, 1}, []int{runs, s.items(text)}, text)
			}
		})
	}
}

// TestACommitThatAClosureSendsAndWhoseAnswerIsLostIsNotRunAgain, however it is sent.
func TestACommitThatAClosureSendsAndWhoseAnswerIsLostIsNotRunAgain(t *testing.T) {
	s := newScene(t)
	pool := openPool(t, s.dsn, retrypg.Hooks{})
	for name, commit := range map[string]func(context.Context, pgx.Tx) error{
		"Exec":  func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, "commit"); return err },
		"Query": func(ctx context.Context, tx pgx.Tx) error { return query(ctx, tx, "commit") },
		"QueryRow": func(ctx context.Context, tx pgx.Tx) error {
			var n int
			return tx.QueryRow(ctx, "commit", pgx.QueryExecModeSimpleProtocol).Scan(&n)
		},
		"SendBatch": func(ctx context.Context, tx pgx.Tx) error {
			b := &pgx.Batch{}
			b.Queue("commit")
			return tx.SendBatch(ctx, b).Close()
		},
		"by a name": func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Prepare(ctx, "done", "commit"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "done")
			return err
		},
	} {
		rule := s.proxy.OnMessage(func(m pgtest.Message) bool {
			return pgtest.Reply("commit")(m) || pgtest.Reply("done")(m)
		}, pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		runs := 0
		err := retrypg.WithPgxTx(t.Context(), pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			runs++
			if _, err := tx.Exec(ctx, insertItem, name); err != nil {
				return err
			}
			return commit(ctx, tx)
		})
		rule.Remove()
		require.ErrorIs(t, err, retrypg.ErrTxEnded, name)
		require.Equal(t, []int{1, 1}, []int{runs, s.items(name)}, name)
	}
}

func query(ctx context.Context, tx pgx.Tx, sql string) error {
	rows, err := tx.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	rows.Close()
	return rows.Err()
}

// TestAStatementPreparedUnderANameIsSeen: what it does to the transaction is known from its text.
func TestAStatementPreparedUnderANameIsSeen(t *testing.T) {
	s := newScene(t)
	pool := openPool(t, s.dsn, retrypg.Hooks{})
	ctx := t.Context()
	for _, text := range []string{"rollback and chain", "commit and chain"} {
		tx, err := pool.Begin(ctx)
		require.NoError(t, err)
		_, err = tx.Prepare(ctx, "chain", text)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, "chain")
		require.NoError(t, err)
		_, err = tx.Exec(ctx, insertItem, text)
		require.NoError(t, err)
		s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		require.ErrorIs(t, tx.Commit(ctx), retrypg.ErrCommitUnknown, text)
		require.Equal(t, 1, s.items(text))
	}
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	require.NoError(t, err)
	_, err = tx.Prepare(ctx, "rw", "set transaction read write")
	require.NoError(t, err)
	_, err = tx.Exec(ctx, "rw")
	require.NoError(t, err)
	_, err = tx.Exec(ctx, insertItem, "rw")
	require.NoError(t, err)
	s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.ErrorIs(t, tx.Commit(ctx), retrypg.ErrCommitUnknown)
}

// TestAStatementThatWasPreparedBeforehandIsSeenByItsTag, if it is answered.
func TestAStatementThatWasPreparedBeforehandIsSeenByItsTag(t *testing.T) {
	for _, check := range checks {
		s := newScene(t)
		pool := openPool(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check), retrypg.WithAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Prepare(ctx, "chain", "commit and chain")
			return err
		}))
		runs := 0
		err := retrypg.WithPgxTx(t.Context(), pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			runs++
			if _, err := tx.Exec(ctx, insertItem, "a"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "chain"); err != nil {
				return err
			}
			return errConflict
		})
		require.ErrorIs(t, err, retrypg.ErrTxEnded, check)
		require.Equal(t, []int{1, 1}, []int{runs, s.items("a")}, check)
	}
}

// TestACommitQueryOfTheCallersOwnDoesNotHideARollback: its last tag is another statement's.
func TestACommitQueryOfTheCallersOwnDoesNotHideARollback(t *testing.T) {
	s := newScene(t)
	pool := openPool(t, s.dsn, retrypg.Hooks{})
	ctx := t.Context()
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{CommitQuery: "commit; select 1"})
	require.NoError(t, err)
	_, err = tx.Exec(ctx, insertItem, "a")
	require.NoError(t, err)
	_, err = tx.Exec(ctx, "select 1/0")
	require.Error(t, err)
	require.ErrorIs(t, tx.Commit(ctx), pgx.ErrTxCommitRollback)
	require.Zero(t, s.items("a"))
}

// TestAConnectionThatIsClosedBeforeCommitHasNotApplied, whatever else is known of it.
func TestAConnectionThatIsClosedBeforeCommitHasNotApplied(t *testing.T) {
	s := newScene(t)
	conn, err := pgx.Connect(t.Context(), s.dsn)
	require.NoError(t, err)
	err = retrypg.WithPgxTx(t.Context(), conn, retrypg.TxOptions{Commit: retrypg.NoCheck}, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertItem, "a"); err != nil {
			return err
		}
		return tx.Conn().Close(ctx)
	})
	require.Error(t, err)
	require.False(t, errors.Is(err, retrypg.ErrCommitUnknown), "%v", err)
	require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
	require.Zero(t, s.items("a"))
}

// TestACommitThatWasNotSentIsClassifiedAsRolledBack, through pgx and database/sql.
func TestACommitThatWasNotSentIsClassifiedAsRolledBack(t *testing.T) {
	s := newScene(t)
	db, pool := openDB(t, s.dsn, retrypg.Hooks{}), openPool(t, s.dsn, retrypg.Hooks{})
	ctx := t.Context()
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	other, err := pool.Begin(ctx)
	require.NoError(t, err)
	const begins = "set local work_mem = '1MB'" // BEGIN may wait for the first statement
	_, err = tx.ExecContext(ctx, begins)
	require.NoError(t, err)
	_, err = other.Exec(ctx, begins)
	require.NoError(t, err)
	gone := s.proxy.CutAll(pgtest.Both, pgtest.FIN)
	require.Equal(t, 2, gone)
	for name, err := range map[string]error{"database/sql": tx.Commit(), "pgx": other.Commit(ctx)} {
		require.Error(t, err, name)
		require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome, "%s: %v", name, err)
	}
	other, err = pool.Begin(ctx)
	require.NoError(t, err)
	over, cancel := context.WithCancel(ctx)
	cancel()
	err = other.Commit(over)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome, "%v", err)
}
