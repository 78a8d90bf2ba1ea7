package connect_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// TestModeOfTLSIsNeverWeakenedByAnOutage: every attempt asks for TLS again, and no startup message goes out in the clear
// while the server, or something in its place, says no.
func TestModeOfTLSIsNeverWeakenedByAnOutage(t *testing.T) {
	c := newCluster(t, pgtest.Options{TLS: true})
	ctx := within(t)
	p := pgt.Proxy(t, c.Addr())
	p.SetTLS(true)
	require.NoError(t, p.SetAccept(pgtest.AcceptReset))
	w := newWatch()
	db := open(t, p.DSN("sslmode=verify-full", "sslrootcert="+c.CertFile()), w.option())
	var encrypted bool
	query := later(func() error {
		return db.QueryRowContext(ctx, "select ssl from pg_stat_ssl where pid = pg_backend_pid()").Scan(&encrypted)
	})
	require.NoError(t, w.waits(ctx, 3))
	require.NoError(t, p.SetAccept(pgtest.AcceptForward))
	require.NoError(t, done(t, query))
	require.True(t, encrypted)
	require.Zero(t, p.Stats().Messages(pgtest.FromServer, 'R'), "a connection could be read")

	// The connection is lost, and in the server's place now sits one that does not speak TLS.
	p.SetTLS(false)
	p.CutAll(pgtest.Both, pgtest.FIN)
	err := db.PingContext(ctx)
	harmless(t, err)
	require.ErrorContains(t, err, "server refused TLS connection")
	require.Zero(t, p.Stats().Messages(pgtest.FromServer, 'R'))
	require.Zero(t, p.Stats().Messages(pgtest.FromClient, 'p'), "a password was sent")
}

// TestConnectionOverTLSRidesOutARestart: evidence and liveness look through the encryption.
func TestConnectionOverTLSRidesOutARestart(t *testing.T) {
	c := newCluster(t, pgtest.Options{TLS: true})
	ctx := within(t)
	dsn := c.DSN("sslmode=verify-full", "sslrootcert="+c.CertFile())
	db, pool := open(t, dsn), newPool(t, dsn)
	require.NoError(t, db.PingContext(ctx))
	require.NoError(t, pool.Ping(ctx))
	require.NoError(t, c.Restart(ctx))
	_, err := db.ExecContext(ctx, "create table a (id int)")
	require.NoError(t, err)
	_, err = pool.Exec(ctx, "create table b (id int)")
	require.NoError(t, err)
}

// TestModePreferStillPrefersTLS: what the mode allows is pgx's business, and stays.
func TestModePreferStillPrefersTLS(t *testing.T) {
	c := newCluster(t, pgtest.Options{TLS: true})
	each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
		p := pgt.Proxy(t, c.Addr())
		require.NoError(t, connect(within(t), p.DSN("sslmode=prefer")))
		require.Equal(t, 1, p.Stats().Messages(pgtest.FromServer, 'R'), "the mode allows a fall-back")
		p.SetTLS(true)
		require.NoError(t, connect(within(t), p.DSN("sslmode=prefer")))
		require.Equal(t, 1, p.Stats().Messages(pgtest.FromServer, 'R'), "TLS was not used")
	})
}
