package cost_test

import (
	"context"
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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

// BenchmarkTransactionWithOneStatement is a whole read-write transaction: BEGIN, one INSERT, COMMIT.
func BenchmarkTransactionWithOneStatement(b *testing.B) {
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
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			if _, err = tx.ExecContext(ctx, "insert into item (note) values ($1)", "note"); err != nil {
				return err
			}
			return tx.Commit()
		}
	}
	compare(b, variants)
}

// BenchmarkTransactionThatOnlyReads is BEGIN, one SELECT, COMMIT in a transaction that was not declared READ ONLY, the one
// that pays most: with xid its COMMIT has an end to record, with ledger it writes although it need not.
func BenchmarkTransactionThatOnlyReads(b *testing.B) {
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
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			var n int
			if err = tx.QueryRowContext(ctx, "select $1::int", 1).Scan(&n); err != nil {
				return err
			}
			return tx.Commit()
		}
	}
	compare(b, variants)
}

// BenchmarkBegin is BEGIN alone, rolled back outside of the time.
func BenchmarkBegin(b *testing.B) {
	c := server(b)
	pool, err := retrypg.NewPool(b.Context(), c.DSN("pool_max_conns=1"))
	require.NoError(b, err)
	defer pool.Close()
	plain, err := pgx.Connect(b.Context(), c.DSN())
	require.NoError(b, err)
	defer func() { _ = plain.Close(context.Background()) }()
	var open pgx.Tx
	begin := func(db interface {
		Begin(context.Context) (pgx.Tx, error)
	},
	) func(context.Context) error {
		return func(ctx context.Context) (err error) {
			open, err = db.Begin(ctx)
			return err
		}
	}
	var times [2][]time.Duration
	for n := range max(b.N, 2) {
		i := n % 2
		run := [2]func(context.Context) error{begin(plain), begin(pool)}[i]
		began := time.Now()
		require.NoError(b, run(b.Context()))
		times[i] = append(times[i], time.Since(began))
		require.NoError(b, open.Rollback(b.Context()))
	}
	for i := range times {
		slices.Sort(times[i])
	}
	floor, ours := times[0][len(times[0])/2], times[1][len(times[1])/2]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(floor)/1000, "pgx-µs")
	b.ReportMetric(float64(ours-floor)/1000, "more-µs")
}
