package commit_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

var checks = []retrypg.CommitCheck{retrypg.NoCheck, retrypg.XID, retrypg.Ledger}

// TestTheSnapshotOfATransactionIsTakenByTheCallersFirstQuery: who locks a table before that sees all that others have
// committed (PostgreSQL's documentation, 13.4.2). A question that came with BEGIN would take it.
func TestTheSnapshotOfATransactionIsTakenByTheCallersFirstQuery(t *testing.T) {
	const byDefault = "set default_transaction_isolation = 'repeatable read'"
	for _, check := range checks {
		for name, opts := range map[string]struct {
			level   sql.IsolationLevel
			session string
		}{
			"repeatable read":            {sql.LevelRepeatableRead, ""},
			"serializable":               {sql.LevelSerializable, ""},
			"repeatable read by default": {sql.LevelDefault, byDefault},
		} {
			t.Run(check.String()+", "+name, func(t *testing.T) {
				s := newScene(t)
				ctx := t.Context()
				db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check), retrypg.WithAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
					_, err := conn.Exec(ctx, opts.session)
					return err
				}))
				for range 2 { // the second time it is known what the default is
					tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: opts.level})
					require.NoError(t, err)
					_, err = tx.ExecContext(ctx, "lock table pg_catalog.pg_class in access share mode")
					require.NoError(t, err)
					before := s.items("other's")
					_, err = s.admin.Exec(ctx, insertItem, "other's")
					require.NoError(t, err)
					var n int
					require.NoError(t, tx.QueryRowContext(ctx, "select count(*) from item where id = 'other''s'").Scan(&n))
					require.Equal(t, before+1, n, "committed before the first query")
					_, err = s.admin.Exec(ctx, insertItem, "other's")
					require.NoError(t, err)
					require.NoError(t, tx.QueryRowContext(ctx, "select count(*) from item where id = 'other''s'").Scan(&n))
					require.Equal(t, before+1, n, "and not what came after it")
					require.NoError(t, tx.Commit())
				}
			})
		}
	}
}

// TestALostCommitOfATransactionThatKeepsItsSnapshotIsSettled: it was asked before its COMMIT.
func TestALostCommitOfATransactionThatKeepsItsSnapshotIsSettled(t *testing.T) {
	for _, check := range checks[1:] {
		t.Run(check.String(), func(t *testing.T) {
			s := newScene(t)
			ctx := t.Context()
			db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check))
			pool := openPool(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check))
			for _, opts := range []retrypg.TxOptions{{Isolation: sql.LevelSerializable}, {Isolation: sql.LevelRepeatableRead}} {
				for name, rule := range map[string]func(){
					"answer": func() { s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN)) },
					"commit": func() { s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.RST)) },
					"question": func() {
						s.proxy.OnMessage(pgtest.Sending("select pg_catalog.pg_current"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
						s.proxy.OnMessage(pgtest.Sending("savepoint retrypg_ledger"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
					},
				} {
					id := name + opts.Isolation.String()
					rule()
					require.NoError(t, retrypg.WithTx(ctx, db, opts, insertOne(id)), id)
					require.Equal(t, 1, s.items(id), id)
					rule()
					require.NoError(t, retrypg.WithPgxTx(ctx, pool, opts, func(ctx context.Context, tx pgx.Tx) error {
						_, err := tx.Exec(ctx, insertItem, id+"pgx")
						return err
					}), id)
					require.Equal(t, 1, s.items(id+"pgx"), id)
				}
			}
		})
	}
}

// TestTheFirstStatementMaySetCharacteristicsOfTheTransaction, as without a question in BEGIN; SETs before it hold.
func TestTheFirstStatementMaySetCharacteristicsOfTheTransaction(t *testing.T) {
	for _, check := range checks {
		t.Run(check.String(), func(t *testing.T) {
			s := newScene(t)
			ctx := t.Context()
			_, err := s.admin.Exec(ctx, "begin isolation level repeatable read")
			require.NoError(t, err)
			var snapshot string
			require.NoError(t, s.admin.QueryRow(ctx, "select pg_export_snapshot()").Scan(&snapshot))
			db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check))
			for name, first := range map[string][]string{
				"isolation":      {"set transaction isolation level serializable"},
				"after settings": {"set local lock_timeout = '7s'", "SET LOCAL statement_timeout = 9000;", "set transaction isolation level serializable"},
				"by name":        {"set local transaction_isolation = 'serializable'"},
				"by begin":       {"begin isolation level serializable"},
				"twice":          {"set transaction isolation level repeatable read", "set transaction isolation level serializable"},
			} {
				s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
				runs := 0
				err := retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
					runs++
					for _, text := range first {
						if _, err := tx.ExecContext(ctx, text); err != nil {
							return err
						}
					}
					var level, wait, limit string
					if err := tx.QueryRowContext(ctx, "select current_setting('transaction_isolation'), current_setting('lock_timeout'), current_setting('statement_timeout')").
						Scan(&level, &wait, &limit); err != nil {
						return err
					}
					require.Equal(t, "serializable", level, name)
					if len(first) == 3 {
						require.Equal(t, []string{"7s", "9s"}, []string{wait, limit})
					}
					_, err := tx.ExecContext(ctx, insertItem, name)
					return err
				})
				if check == retrypg.NoCheck {
					require.ErrorIs(t, err, retrypg.ErrCommitUnknown, name)
				} else {
					require.NoError(t, err, name)
				}
				require.Equal(t, []int{1, 1}, []int{runs, countAs(ctx, t, s.dsn, name)}, name)
			}

			tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
			require.NoError(t, err)
			_, err = tx.ExecContext(ctx, "set transaction snapshot '"+snapshot+"'")
			require.NoError(t, err)
			var n int
			require.NoError(t, tx.QueryRowContext(ctx, "select count(*) from item").Scan(&n))
			require.Zero(t, n, "it sees what the other transaction saw")
			require.NoError(t, tx.Commit())
		})
	}
}

// TestWhatWasDoneBeforeACharacteristicIsSetIsNotUndone: where that would be needed, PostgreSQL's refusal is the caller's.
func TestWhatWasDoneBeforeACharacteristicIsSetIsNotUndone(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	pool := openPool(t, s.dsn, retrypg.Hooks{})
	for name, do := range map[string]func(tx pgx.Tx) error{
		"Exec": func(tx pgx.Tx) error { _, err := tx.Exec(ctx, insertItem, "a"); return err },
		"Conn": func(tx pgx.Tx) error { _, err := tx.Conn().Exec(ctx, insertItem, "a"); return err },
		"Copy": func(tx pgx.Tx) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"item"}, []string{"id"}, pgx.CopyFromRows([][]any{{"a"}}))
			return err
		},
		"Batch": func(tx pgx.Tx) error {
			b := &pgx.Batch{}
			b.Queue(insertItem, "a")
			return tx.SendBatch(ctx, b).Close()
		},
	} {
		tx, err := pool.Begin(ctx)
		require.NoError(t, err)
		require.NoError(t, do(tx), name)
		_, err = tx.Exec(ctx, "set transaction isolation level serializable")
		require.Equal(t, "25001", retrypg.SQLState(err), "%s: %v", name, err)
		require.NoError(t, tx.Rollback(ctx))
	}
}

// TestWhatIsSentAroundATransactionIsNotUndoneEither, over the connection that it runs on.
func TestWhatIsSentAroundATransactionIsNotUndoneEither(t *testing.T) {
	s := newScene(t)
	pool := openPool(t, s.dsn, retrypg.Hooks{})
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	err = retrypg.WithPgxTx(t.Context(), conn, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := conn.Exec(ctx, insertItem, "a"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "set transaction isolation level serializable")
		return err
	})
	require.Equal(t, "25001", retrypg.SQLState(err), "%v", err)
}

// countAs counts an item over a connection of its own.
func countAs(ctx context.Context, t *testing.T, dsn, id string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	require.NoError(t, conn.QueryRow(ctx, "select count(*) from item where id = $1", id).Scan(&n))
	return n
}
