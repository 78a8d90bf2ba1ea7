//go:build pgbouncer

package pgbouncer_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// TestAPoolerThatRefusesServerSideOptionsIsConnectedToWithout: PgBouncer takes no parameters that it does not know.
func TestAPoolerThatRefusesServerSideOptionsIsConnectedToWithout(t *testing.T) {
	b := newBouncer(t, "session", 4)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	dsn := b.front.DSN("tcp_server_side=on")

	db, err := retrypg.OpenDB(dsn)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.PingContext(retrypg.NoRetry(ctx)), "it is no outage")

	pool, err := retrypg.NewPool(ctx, dsn)
	require.NoError(t, err)
	defer pool.Close()
	require.NoError(t, pool.Ping(retrypg.NoRetry(ctx)))

	cfg, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	require.NoError(t, retrypg.ConfigurePool(cfg))
	plain, err := pgxpool.NewWithConfig(ctx, cfg)
	require.NoError(t, err)
	defer plain.Close()
	require.NoError(t, plain.Ping(ctx))
}
