package connect_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// allocations returns the smallest number of many runs for each function, taken in turns: what else happens in the
// process, the goroutine by which database/sql watches a context, and the race detector only add.
func allocations(t *testing.T, functions ...func() error) []float64 {
	t.Helper()
	least := make([]float64, len(functions))
	for round := range 300 {
		for i, f := range functions {
			got := testing.AllocsPerRun(1, func() {
				if err := f(); err != nil {
					t.Error(err)
				}
			})
			if round == 0 || got < least[i] {
				least[i] = got
			}
		}
	}
	return least
}

// TestNothingIsAllocatedOnTopOfPlainPgxWhileNothingIsRecorded compares with plain pgx in the same process.
func TestNothingIsAllocatedOnTopOfPlainPgxWhileNothingIsRecorded(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	openPlain := func() *sql.DB {
		plain, err := sql.Open("pgx", d.DSN())
		require.NoError(t, err)
		t.Cleanup(func() { _ = plain.Close() })
		return plain
	}
	plainPool, err := pgxpool.New(ctx, d.DSN())
	require.NoError(t, err)
	defer plainPool.Close()
	ourPool := newPool(t, d.DSN())

	exec := func(db *sql.DB) func() error {
		return func() error { _, err := db.ExecContext(ctx, "select $1::int", 1); return err }
	}
	execPlain := func(db *sql.DB) func() error {
		return func() error { _, err := db.ExecContext(ctx, "select 1"); return err }
	}
	queryRow := func(db *sql.DB) func() error {
		return func() error { var n int; return db.QueryRowContext(ctx, "select $1::int", 1).Scan(&n) }
	}
	tx := func(db *sql.DB) func() error {
		return func() error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "select $1::int", 1); err != nil {
				return err
			}
			return tx.Commit()
		}
	}
	for name, run := range map[string]func(*sql.DB) func() error{
		"db.Exec":                   exec,
		"db.Exec without arguments": execPlain,
		"db.QueryRow":               queryRow,
		"db.BeginTx to Commit":      tx,
	} {
		t.Run(name, func(t *testing.T) {
			// The whole process is counted, and on a busy machine all rounds of a pair of handles may be disturbed: what a call
			// really allocates more, it allocates with each pair.
			for pair := 1; ; pair++ {
				got := allocations(t, run(openPlain()), run(open(t, d.DSN())))
				t.Logf("plain pgx %v, retrypg %v", got[0], got[1])
				if got[1] <= got[0] {
					return
				}
				require.Less(t, pair, 5, "retrypg allocates more than plain pgx")
			}
		})
	}
	plain, ours := openPlain(), open(t, d.DSN())

	// What follows is reported: there is nothing in plain pgx that does the same.
	withTx := func(db *sql.DB) func() error {
		return func() error {
			return retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "select $1::int", 1)
				return err
			})
		}
	}
	pgxTx := func(pool retrypg.PgxTxBeginner) func() error {
		return func() error {
			return retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "select $1::int", 1)
				return err
			})
		}
	}
	t.Logf("a transaction with one statement: plain pgx, WithTx on plain pgx, WithTx: %v",
		allocations(t, tx(plain), withTx(plain), withTx(ours)))
	t.Logf("the same: pgx.BeginFunc, WithPgxTx on pgxpool, WithPgxTx: %v", allocations(t, func() error {
		return pgx.BeginFunc(ctx, plainPool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "select $1::int", 1)
			return err
		})
	}, pgxTx(plainPool), pgxTx(ourPool)))
	t.Logf("Exec: pgxpool, Pool: %v", allocations(t,
		func() error { _, err := plainPool.Exec(ctx, "select $1::int", 1); return err },
		func() error { _, err := ourPool.Exec(ctx, "select $1::int", 1); return err }))
	t.Logf("QueryRow: pgxpool, Pool: %v", allocations(t,
		func() error { var n int; return plainPool.QueryRow(ctx, "select $1::int", 1).Scan(&n) },
		func() error { var n int; return ourPool.QueryRow(ctx, "select $1::int", 1).Scan(&n) }))
}
