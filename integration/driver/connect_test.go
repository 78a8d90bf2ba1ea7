package driver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql/driver"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// refusal is what pgx says of a failed attempt to connect, and what Classify makes of it.
type refusal struct {
	text   string
	code   string
	safe   bool // pgconn.SafeToRetry
	either bool // SafeToRetry depends on whether the startup message was written already
	retry  retrypg.Retry
}

// requirePlain requires that plain pgx fails to connect in that way.
func (r refusal) requirePlain(t *testing.T, ctx context.Context, dsn string) {
	t.Helper()
	_ = r.plainError(t, ctx, dsn)
}

// plainError is requirePlain for those who want to know more of the error.
func (r refusal) plainError(t *testing.T, ctx context.Context, dsn string) error {
	t.Helper()
	conn, err := pgx.Connect(ctx, dsn)
	if err == nil {
		closeAtOnce(conn)
	}
	require.ErrorContains(t, err, r.text)
	require.IsType(t, &pgconn.ConnectError{}, err)
	if !r.either {
		require.Equal(t, r.safe, pgconn.SafeToRetry(err))
	}
	r.requireClass(t, err)
	return err
}

func (r refusal) requireClass(t *testing.T, err error) {
	t.Helper()
	class := retrypg.Classify(err)
	require.Equal(t, r.code, class.SQLState, "of %q", err)
	require.Equal(t, r.retry.String(), class.Retry.String(), "of %q", err)
	require.Equal(t, retrypg.OutcomeNotStarted.String(), class.Outcome.String(), "of %q", err)
}

// requireOurs requires that through our driver the error comes at once if waiting cannot heal it, and else after a time
// of waiting, and says the same.
func (r refusal) requireOurs(t *testing.T, ctx context.Context, dsn string) {
	t.Helper()
	db, err := retrypg.OpenDB(dsn, retrypg.WithConnectMaxElapsed(500*time.Millisecond))
	require.NoError(t, err)
	defer db.Close()
	err = db.PingContext(ctx)
	require.ErrorContains(t, err, r.text)
	require.NotErrorIs(t, err, driver.ErrBadConn)
	r.requireClass(t, err)
	if r.retry == retrypg.RetryNever {
		require.IsType(t, &pgconn.ConnectError{}, err)
		return
	}
	var exhausted *retrypg.ExhaustedError
	require.ErrorAs(t, err, &exhausted)
	require.Greater(t, exhausted.Attempts, 1)
	require.IsType(t, &pgconn.ConnectError{}, exhausted.Last)
}

func TestRefusedConnectionIsRetriedOnlyWhereWaitingHeals(t *testing.T) {
	leak.Check(t)
	c := pgt.New(t, pgtest.Options{
		TLS:      true,
		Settings: map[string]string{"max_connections": "8", "superuser_reserved_connections": "3", "max_wal_senders": "0"},
		HBA: []string{
			"hostnossl all tlsonly 127.0.0.1/32 reject",
			"host all locked 127.0.0.1/32 scram-sha-256",
			"host all refused 127.0.0.1/32 reject",
		},
	})
	ctx := t.Context() // without a deadline: the bound is retry_connect_max_elapsed
	require.NoError(t, c.Exec(ctx, `set password_encryption = 'scram-sha-256';
		create role tlsonly login; create role locked login password 'right'; create role refused login;
		create role single login connection limit 0; create role app login`))
	for name, tc := range map[string]struct {
		dsn  string
		want refusal
	}{
		"wrong password":  {c.DSN("user=locked", "password=wrong"), refusal{text: "password authentication failed", code: "28P01"}},
		"no such role":    {c.DSN("user=nobody"), refusal{text: `role "nobody" does not exist`, code: "28000"}},
		"rejected by HBA": {c.DSN("user=refused"), refusal{text: "pg_hba.conf rejects connection", code: "28000"}},
		"no such database": {
			c.DSN("dbname=nothing"), refusal{text: `database "nothing" does not exist`, code: "3D000"},
		},
		"TLS required": {
			c.DSN("user=tlsonly", "sslmode=disable"), refusal{text: "no encryption", code: "28000"},
		},
		"certificate not valid": {
			c.DSN("sslmode=verify-full", "sslrootcert="+otherCertificate(t)), refusal{text: "failed to verify certificate", safe: true},
		},
		"too many connections of the role": {
			c.DSN("user=single"), refusal{text: "too many connections for role", code: "53300", retry: retrypg.RetryWait},
		},
		"target_session_attrs not met": {
			c.DSN("target_session_attrs=standby"), refusal{text: "server is not in hot standby mode", retry: retrypg.RetryFailover},
		},
		"a wrong setting": {c.DSN("statement_timeout=abc"), refusal{text: "invalid value for parameter", code: "22023"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.want.plainError(t, ctx, tc.dsn)
			if name == "certificate not valid" {
				var verification *tls.CertificateVerificationError
				require.ErrorAs(t, err, &verification)
				var authority x509.UnknownAuthorityError
				require.ErrorAs(t, err, &authority)
			}
			tc.want.requireOurs(t, ctx, tc.dsn)
		})
	}
	t.Run("no slots left", func(t *testing.T) {
		// The slots of those that have just left are to be free again. The one that asks is there itself.
		require.NoError(t, c.WaitUntil(ctx, "(select count(*) = 1 from pg_stat_activity where backend_type = 'client backend')"))
		for range 5 {
			conn, err := pgx.Connect(ctx, c.DSN("user=app"))
			for retrypg.SQLState(err) == "53300" { // the slot of the one that asked is not free at once
				conn, err = pgx.Connect(ctx, c.DSN("user=app"))
			}
			require.NoError(t, err)
			defer conn.Close(context.Background())
		}
		want := refusal{text: "remaining connection slots are reserved", code: "53300", retry: retrypg.RetryWait}
		want.requirePlain(t, ctx, c.DSN("user=app"))
		want.requireOurs(t, ctx, c.DSN("user=app"))
	})
}

// otherCertificate returns a file with a certificate that the server's is not signed by.
func otherCertificate(t *testing.T) string {
	t.Helper()
	other := pgt.New(t, pgtest.Options{TLS: true})
	return other.CertFile()
}

func TestUnreachableServerIsWaitedFor(t *testing.T) {
	server := newServer(t)
	wait := func(text string) refusal { return refusal{text: text, retry: retrypg.RetryWait} }
	for name, tc := range map[string]struct {
		mode pgtest.AcceptMode
		want refusal
	}{
		"refused":              {pgtest.AcceptRefuse, wait("connection refused")},
		"accepted and closed":  {pgtest.AcceptClose, wait("EOF")},
		"accepted and reset":   {pgtest.AcceptReset, refusal{text: "connection reset by peer", either: true, retry: retrypg.RetryWait}},
		"accepted, and silent": {pgtest.AcceptSilent, wait("timeout")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			require.NoError(t, s.proxy.SetAccept(tc.mode))
			dsn := s.dsn()
			if tc.mode == pgtest.AcceptSilent {
				dsn = s.dsn("connect_timeout=1")
			}
			tc.want.requirePlain(t, t.Context(), dsn)
			if tc.mode != pgtest.AcceptSilent { // else each attempt takes longer than requireOurs waits
				tc.want.requireOurs(t, t.Context(), dsn)
			}
			// Whoever waits gets a connection when the server is there.
			db := s.open(ours, "connect_timeout=1")
			done := make(chan error, 1)
			accepted := s.proxy.Stats().Accepted
			go func() {
				_, err := db.ExecContext(s.t.Context(), insertRow)
				done <- err
			}()
			if tc.mode != pgtest.AcceptRefuse { // of which the proxy sees nothing
				require.NoError(t, s.proxy.Wait(s.context(), func(st pgtest.Stats) bool { return st.Accepted > accepted }))
			}
			require.NoError(t, s.proxy.SetAccept(pgtest.AcceptForward))
			require.NoError(t, <-done)
			require.Equal(t, 1, s.rows())
		})
	}
	t.Run("socket missing", func(t *testing.T) {
		t.Parallel()
		dsn := "host=" + t.TempDir() + " user=postgres"
		wait("no such file").requirePlain(t, t.Context(), dsn)
		wait("no such file").requireOurs(t, t.Context(), dsn)
	})
	t.Run("server without TLS", func(t *testing.T) {
		t.Parallel()
		want := refusal{text: "server refused TLS connection"}
		want.requirePlain(t, t.Context(), server.DSN("sslmode=require"))
		want.requireOurs(t, t.Context(), server.DSN("sslmode=require"))
	})
	t.Run("one host refuses, another closes", func(t *testing.T) {
		t.Parallel()
		a, b := pgt.Proxy(t, server.Cluster.Addr()), pgt.Proxy(t, server.Cluster.Addr())
		require.NoError(t, a.SetAccept(pgtest.AcceptRefuse))
		require.NoError(t, b.SetAccept(pgtest.AcceptClose))
		dsn := pgtest.DSN([]string{a.Addr(), b.Addr()})
		err := wait("connection refused").plainError(t, t.Context(), dsn)
		require.ErrorContains(t, err, "EOF")
		wait("EOF").requireOurs(t, t.Context(), dsn)
	})
	t.Run("one host has the wrong role, another refuses", func(t *testing.T) {
		t.Parallel()
		a := pgt.Proxy(t, server.Cluster.Addr())
		require.NoError(t, a.SetAccept(pgtest.AcceptRefuse))
		dsn := pgtest.DSN([]string{server.Cluster.Addr(), a.Addr()}, "target_session_attrs=standby")
		wait("connection refused").requirePlain(t, t.Context(), dsn)
		wait("connection refused").requireOurs(t, t.Context(), dsn)
	})
}

// The names of hosts are looked up by a resolver whose server says that there is no such host.
func TestHostThatIsNotInTheDNSIsWaitedFor(t *testing.T) {
	leak.Check(t)
	resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go answerNoSuchHost(server)
		return client, nil
	}}
	const dsn = "postgres://postgres@db.example.:5432/postgres?sslmode=disable"
	want := refusal{text: "no such host", retry: retrypg.RetryWait}

	cfg, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	cfg.LookupFunc = resolver.LookupHost
	_, err = pgx.ConnectConfig(t.Context(), cfg)
	var dnsErr *net.DNSError
	require.ErrorAs(t, err, &dnsErr)
	require.True(t, dnsErr.IsNotFound)
	want.requireClass(t, err)

	db, err := retrypg.OpenDB(dsn, retrypg.WithConnectMaxElapsed(200*time.Millisecond),
		retrypg.WithConnConfig(func(cfg *pgx.ConnConfig) error {
			cfg.LookupFunc = resolver.LookupHost
			return nil
		}))
	require.NoError(t, err)
	defer db.Close()
	err = db.PingContext(t.Context())
	var exhausted *retrypg.ExhaustedError
	require.ErrorAs(t, err, &exhausted)
	require.Greater(t, exhausted.Attempts, 1)
	require.ErrorContains(t, err, want.text)
	want.requireClass(t, err)
}

// answerNoSuchHost answers DNS queries, as TCP carries them, with NXDOMAIN (RFC 1035, 4.1.1 and 4.2.2).
func answerNoSuchHost(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := conn.Read(buf)
		if err != nil || n < 14 {
			return
		}
		buf[4], buf[5] = buf[4]|0x80, 0x83 // a response; recursion available, name error
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}
