//go:build !race

// With the race detector a sync.Pool forgets at random. "make test-allocs" runs without.

package cost_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// poolOfPgx is what a Pool has in common with one of pgxpool.
type poolOfPgx interface {
	Acquire(ctx context.Context) (*pgxpool.Conn, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	Close()
}

func TestAPoolAllocatesNothingBesideWhatPgxpoolAllocates(t *testing.T) {
	c := pgt.New(t, pgtest.Options{})
	ctx := context.Background()
	dsn := c.DSN("pool_max_conns=1")
	theirs, err := pgxpool.New(ctx, dsn)
	require.NoError(t, err)
	ours, err := retrypg.NewPool(ctx, dsn)
	require.NoError(t, err)
	reader := sdkmetric.NewManualReader()
	metered, err := retrypg.NewPool(ctx, dsn, retrypg.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
	require.NoError(t, err)
	for _, pool := range []poolOfPgx{theirs, ours, metered} {
		t.Cleanup(pool.Close)
	}
	for name, work := range map[string]func(poolOfPgx) error{
		"acquire": func(p poolOfPgx) error {
			conn, err := p.Acquire(ctx)
			if err == nil {
				conn.Release()
			}
			return err
		},
		"exec": func(p poolOfPgx) error {
			_, err := p.Exec(ctx, "select $1::int", 1)
			return err
		},
		"query": func(p poolOfPgx) error {
			rows, err := p.Query(ctx, "select $1::int", 1)
			if err != nil {
				return err
			}
			for rows.Next() {
			}
			return rows.Err()
		},
		"query row": func(p poolOfPgx) error {
			var n int
			return p.QueryRow(ctx, "select $1::int", 1).Scan(&n)
		},
		"batch": func(p poolOfPgx) error {
			b := &pgx.Batch{}
			b.Queue("select $1::int", 1)
			return p.SendBatch(ctx, b).Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			measure := func(p poolOfPgx) float64 {
				for range 50 { // statement caches, buffers
					require.NoError(t, work(p))
				}
				return testing.AllocsPerRun(500, func() {
					if err := work(p); err != nil {
						t.Error(err)
					}
				})
			}
			bound := measure(theirs)
			require.LessOrEqual(t, measure(ours), bound, "pgxpool allocates %v times", bound)
			require.LessOrEqual(t, measure(metered), bound, "with metrics: pgxpool allocates %v times", bound)
		})
	}
}
