package cost_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/retrypg/retrypg"
)

// compareStatements compares a statement outside of a transaction with pgx's own driver: without a provider, and with metrics.
func compareStatements(b *testing.B, statement func(ctx context.Context, db *sql.DB) error) {
	b.Helper()
	c := server(b)
	require.NoError(b, c.Exec(b.Context(), "create unlogged table line (note text)"))
	reader := sdkmetric.NewManualReader()
	metered, err := retrypg.OpenDB(c.DSN(), retrypg.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
	require.NoError(b, err)
	metered.SetMaxOpenConns(1)
	b.Cleanup(func() { _ = metered.Close() })
	require.NoError(b, reader.Collect(b.Context(), &metricdata.ResourceMetrics{}))
	variants := []variant{{name: "pgx"}, {name: "bare"}, {name: "metered"}}
	for i, db := range []*sql.DB{openDB(b, "pgx", c.DSN()), openDB(b, "retrypg", c.DSN()), metered} {
		variants[i].run = func(ctx context.Context) error { return statement(ctx, db) }
	}
	compare(b, variants)
}

// BenchmarkExec is one INSERT into a table that is not logged.
func BenchmarkExec(b *testing.B) {
	compareStatements(b, func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, "insert into line (note) values ($1)", "note")
		return err
	})
}

// BenchmarkQuery reads one row.
func BenchmarkQuery(b *testing.B) {
	compareStatements(b, func(ctx context.Context, db *sql.DB) error {
		var n int
		return db.QueryRowContext(ctx, "select $1::int", 1).Scan(&n)
	})
}
