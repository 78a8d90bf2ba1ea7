package cost_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// TestNothingIsAllocatedBesideWhatPgxAllocatesOnARealServer compares with pgx's own driver, without a provider and with metrics
// that are read from time to time. The question for the id of a transaction has an answer, of which pgx allocates the tag. The
// context cannot end: for others pgx and database/sql start goroutines.
func TestNothingIsAllocatedBesideWhatPgxAllocatesOnARealServer(t *testing.T) {
	c := pgt.New(t, pgtest.Options{})
	require.NoError(t, c.Exec(t.Context(), "create unlogged table item (note text)"))
	ctx := context.Background()
	one := func(db *sql.DB) *sql.DB {
		db.SetMaxOpenConns(1)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return db
	}
	plain, err := sql.Open("pgx", c.DSN())
	require.NoError(t, err)
	open := func(dsn string, opts ...retrypg.Option) *sql.DB {
		db, err := retrypg.OpenDB(dsn, opts...)
		require.NoError(t, err)
		return one(db)
	}
	reader := sdkmetric.NewManualReader()
	read := func() (durations uint64) {
		var data metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(ctx, &data))
		for _, scope := range data.ScopeMetrics {
			for _, m := range scope.Metrics {
				if h, ok := m.Data.(metricdata.Histogram[float64]); ok && m.Name == "retry.operation_duration" {
					for _, p := range h.DataPoints {
						durations += p.Count
					}
				}
			}
		}
		return durations
	}
	meter := retrypg.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	one(plain)
	ours := []struct {
		name string
		db   *sql.DB
		asks float64 // what the question in a transaction may allocate
	}{
		{"no provider", open(c.DSN()), 1},
		{"no provider, no commit check", open(c.DSN("retry_commit_check=off")), 0},
		{"metrics", open(c.DSN(), meter), 1},
		{"metrics, no commit check", open(c.DSN("retry_commit_check=off"), meter), 0},
	}
	read()

	const runs = 500
	for name, work := range map[string]func(db *sql.DB) error{
		"exec": func(db *sql.DB) error {
			_, err := db.ExecContext(ctx, "insert into item (note) values ($1)", "note")
			return err
		},
		"query": func(db *sql.DB) error {
			var n int
			return db.QueryRowContext(ctx, "select $1::int", 1).Scan(&n)
		},
		"transaction": func(db *sql.DB) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			if err := insert(ctx, tx); err != nil {
				return err
			}
			return tx.Commit()
		},
	} {
		t.Run(name, func(t *testing.T) {
			measure := func(db *sql.DB) float64 {
				for range 50 { // statement caches, buffers
					require.NoError(t, work(db))
				}
				return testing.AllocsPerRun(runs, func() {
					if err := work(db); err != nil {
						t.Error(err)
					}
				})
			}
			bound := measure(plain)
			for _, way := range ours {
				extra := 0.0
				if name == "transaction" {
					extra = way.asks
				}
				require.LessOrEqual(t, measure(way.db), bound+extra, "%s: pgx allocates %v times", way.name, bound)
			}
		})
	}
	require.GreaterOrEqual(t, read(), uint64(2*runs), "the durations of statements were recorded")
}
