package connect_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// guarded starts a cluster with TLS where user app has a password, and user banned is let in from nowhere.
func guarded(t *testing.T) *pgtest.Cluster {
	t.Helper()
	c := newCluster(t, pgtest.Options{TLS: true, HBA: []string{
		"host all app 127.0.0.1/32 scram-sha-256",
		"host all banned 127.0.0.1/32 reject",
	}})
	ctx := within(t)
	require.NoError(t, c.CreateDatabase(ctx, "closed"))
	require.NoError(t, c.Exec(ctx, `revoke connect on database closed from public;
		create role app login password 'right'; create role banned login`))
	return c
}

// ways are the ways to get a connection, each of which returns the error of doing so.
var ways = map[string]func(t *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error{
	"db": func(t *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
		return open(t, dsn, opts...).PingContext(ctx)
	},
	"connector": func(t *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
		c, err := retrypg.NewConnector(dsn, opts...)
		require.NoError(t, err)
		defer c.Close()
		conn, err := c.Connect(ctx)
		if err == nil {
			err = conn.Close()
		}
		return err
	},
	"pool": func(t *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
		pool := newPool(t, dsn, opts...)
		defer pool.Close()
		conn, err := pool.Acquire(ctx)
		if err == nil {
			conn.Release()
		}
		return err
	},
	"wait": func(_ *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
		return retrypg.WaitReady(ctx, dsn, opts...)
	},
}

// apart makes a handle look for its server by itself: with functions of the user's nobody knows whether two handles lead to the
// same one.
var apart = retrypg.WithBeforeConnect(func(context.Context, *pgx.ConnConfig) error { return nil })

// each runs a test for every way to get a connection.
func each(t *testing.T, test func(t *testing.T, connect func(ctx context.Context, dsn string, opts ...retrypg.Option) error)) {
	t.Helper()
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			test(t, func(ctx context.Context, dsn string, opts ...retrypg.Option) error {
				return way(t, ctx, dsn, append([]retrypg.Option{apart}, opts...)...)
			})
		})
	}
}

func TestWhatWaitingCannotHealComesBackAtOnce(t *testing.T) {
	c := guarded(t)
	tests := map[string]struct {
		params []string
		code   string
	}{
		"wrong password":         {params: []string{"user=app", "password=" + password}, code: "28P01"},
		"no password":            {params: []string{"user=app"}, code: "28P01"},
		"no such user":           {params: []string{"user=nobody", "password=" + password}, code: "28000"},
		"refused by pg_hba.conf": {params: []string{"user=banned", "password=" + password}, code: "28000"},
		"no such database":       {params: []string{"dbname=nowhere", "password=" + password}, code: "3D000"},
		"no right to connect":    {params: []string{"user=app", "password=right", "dbname=closed"}, code: "42501"},
		"unknown parameter":      {params: []string{"no_such_setting=1", "password=" + password}, code: "42704"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
				p := pgt.Proxy(t, c.Addr())
				w := newWatch()
				err := connect(within(t), p.DSN(test.params...), w.option())
				harmless(t, err)
				var server *pgconn.PgError
				require.ErrorAs(t, err, &server)
				require.Equal(t, test.code, server.Code)
				require.Zero(t, w.counts(), "it was waited for")
				require.Equal(t, 1, p.Stats().Accepted)
			})
		})
	}
}

func TestTLSThatTheServerRefusesComesBackAtOnceAndNothingIsSentInTheClear(t *testing.T) {
	c := guarded(t)
	for _, mode := range []string{"require", "verify-ca", "verify-full"} {
		t.Run(mode, func(t *testing.T) {
			each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
				p := pgt.Proxy(t, c.Addr()) // it answers requests for TLS with "no"
				w := newWatch()
				err := connect(within(t), p.DSN("sslmode="+mode, "sslrootcert="+c.CertFile(), "password="+password), w.option())
				harmless(t, err)
				require.ErrorContains(t, err, "server refused TLS connection")
				require.Equal(t, retrypg.RetryNever, retrypg.Classify(err).Retry)
				require.Zero(t, w.counts(), "it was waited for")
				require.Equal(t, 1, p.Stats().Accepted)
				require.Zero(t, p.Stats().Opened, "a startup message was sent without TLS")
			})
		})
	}
}

func TestCertificateThatIsNotValidComesBackAtOnceAndNothingIsSentInTheClear(t *testing.T) {
	c := guarded(t)
	stranger := filepath.Join(t.TempDir(), "ca.crt")
	other := pgt.New(t, pgtest.Options{TLS: true})
	text, err := os.ReadFile(other.CertFile())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(stranger, text, 0o600))
	tests := map[string]struct {
		host   string
		params []string
		check  func(error) bool
	}{
		"unknown authority, verify-ca": {
			host: "127.0.0.1", params: []string{"sslmode=verify-ca", "sslrootcert=" + stranger}, check: is[x509.UnknownAuthorityError],
		},
		"unknown authority, verify-full": {
			host: "127.0.0.1", params: []string{"sslmode=verify-full", "sslrootcert=" + stranger}, check: is[x509.UnknownAuthorityError],
		},
		"name of another host": {
			host: "db.example", params: []string{"sslmode=verify-full", "sslrootcert=" + c.CertFile()}, check: is[x509.HostnameError],
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
				p := pgt.Proxy(t, c.Addr())
				p.SetTLS(true)
				w := newWatch()
				dsn := pgtest.DSN([]string{net.JoinHostPort(test.host, strconv.Itoa(p.Port()))}, append(test.params, "password="+password)...)
				err := connect(within(t), dsn, w.option(), lookup(func(string) ([]string, error) { return []string{"127.0.0.1"}, nil }))
				harmless(t, err)
				require.True(t, test.check(err), "%v", err)
				require.Zero(t, w.counts(), "it was waited for")
				require.Equal(t, 1, p.Stats().Accepted)
			})
		})
	}
}

func is[T error](err error) bool {
	var e T
	return errors.As(err, &e)
}
