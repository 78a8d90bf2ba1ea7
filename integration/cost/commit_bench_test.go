package cost_test

import (
	"context"
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver to compare with
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// variant is one way to run a transaction.
type variant struct {
	name  string
	run   func(context.Context) error
	times []time.Duration
}

// compare runs the variants in turns, each first as often as last, and reports the ratio of their medians to that of the
// first one.
func compare(b *testing.B, variants []variant) {
	b.Helper()
	ctx := b.Context()
	for range 200 { // connections, caches of statements, pages
		for _, v := range variants {
			require.NoError(b, v.run(ctx))
		}
	}
	b.ResetTimer()
	for n := range b.N {
		for i := range variants {
			v := &variants[(i+n)%len(variants)]
			began := time.Now()
			err := v.run(ctx)
			v.times = append(v.times, time.Since(began))
			if err != nil {
				b.Fatalf("%s: %v", v.name, err)
			}
		}
	}
	b.StopTimer()
	median := func(v variant) float64 {
		slices.Sort(v.times)
		return float64(v.times[len(v.times)/2])
	}
	floor := median(variants[0])
	b.ReportMetric(0, "ns/op") // the sum over all variants says nothing
	b.ReportMetric(floor/1000, variants[0].name+"-µs")
	for _, v := range variants[1:] {
		b.ReportMetric(median(v)/floor, v.name+"/"+variants[0].name)
	}
}

func openDB(b *testing.B, driver, dsn string) *sql.DB {
	b.Helper()
	db, err := sql.Open(driver, dsn)
	require.NoError(b, err)
	db.SetMaxOpenConns(1)
	b.Cleanup(func() { _ = db.Close() })
	return db
}

func server(b *testing.B) *pgtest.Cluster {
	b.Helper()
	c := pgt.New(b, pgtest.Options{Fsync: true})
	require.NoError(b, c.Exec(b.Context(), "create table item (id bigint generated always as identity primary key, note text)"))
	return c
}

// insert is a statement that writes.
func insert(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, "insert into item (note) values ($1)", "note")
	return err
}

// compareTransactions compares BEGIN, what statement does, and COMMIT with pgx's own driver.
func compareTransactions(b *testing.B, level sql.IsolationLevel, statement func(ctx context.Context, tx *sql.Tx) error) {
	b.Helper()
	c := server(b)
	variants := []variant{{name: "pgx"}, {name: "off"}, {name: "xid"}, {name: "ledger"}}
	for i := range variants {
		v := &variants[i]
		driver, dsn := "retrypg", c.DSN("retry_commit_check="+v.name)
		if v.name == "pgx" {
			driver, dsn = "pgx", c.DSN()
		}
		db := openDB(b, driver, dsn)
		v.run = func(ctx context.Context) error {
			tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
			if err != nil {
				return err
			}
			if err := statement(ctx, tx); err != nil {
				return err
			}
			return tx.Commit()
		}
	}
	compare(b, variants)
}

// BenchmarkTransactionWithOneStatement is a whole read-write transaction: BEGIN, one INSERT, COMMIT.
func BenchmarkTransactionWithOneStatement(b *testing.B) {
	compareTransactions(b, sql.LevelDefault, insert)
}

// BenchmarkTransactionThatKeepsItsSnapshot is the same at REPEATABLE READ, which is asked before its COMMIT.
func BenchmarkTransactionThatKeepsItsSnapshot(b *testing.B) {
	compareTransactions(b, sql.LevelRepeatableRead, insert)
}

// BenchmarkTransactionThatOnlyReads is BEGIN, one SELECT, COMMIT in a transaction that was not declared READ ONLY, the one
// that pays most: with xid its COMMIT has an end to record, with ledger it writes although it need not.
func BenchmarkTransactionThatOnlyReads(b *testing.B) {
	compareTransactions(b, sql.LevelDefault, func(ctx context.Context, tx *sql.Tx) error {
		var n int
		return tx.QueryRowContext(ctx, "select $1::int", 1).Scan(&n)
	})
}

// BenchmarkBegin is BEGIN alone, on a connection of a pool, rolled back outside of the time.
func BenchmarkBegin(b *testing.B) {
	c := server(b)
	ours, err := retrypg.NewPool(b.Context(), c.DSN("pool_max_conns=1"))
	require.NoError(b, err)
	defer ours.Close()
	plain, err := pgxpool.New(b.Context(), c.DSN("pool_max_conns=1"))
	require.NoError(b, err)
	defer plain.Close()
	var times [2][]time.Duration
	for n := range max(b.N, 2) {
		for i := range 2 {
			i = (i + n) % 2
			db := [2]interface {
				Begin(context.Context) (pgx.Tx, error)
			}{plain, ours}[i]
			began := time.Now()
			tx, err := db.Begin(b.Context())
			times[i] = append(times[i], time.Since(began))
			require.NoError(b, err)
			require.NoError(b, tx.Rollback(b.Context()))
		}
	}
	for i := range times {
		slices.Sort(times[i])
	}
	floor, own := times[0][len(times[0])/2], times[1][len(times[1])/2]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(floor)/1000, "pgxpool-µs")
	b.ReportMetric(float64(own-floor)/1000, "more-µs")
}
