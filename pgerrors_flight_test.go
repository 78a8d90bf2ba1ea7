package retrypg

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// serveTLS answers a handshake with a certificate that nobody knows.
func serveTLS(t *testing.T) func(net.Conn) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "h0"}, DNSNames: []string{"h0"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	require.NoError(t, err)
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return func(conn net.Conn) { _ = tls.Server(conn, cfg).Handshake() }
}

func TestErrorsOfAConnectionThatWasThere(t *testing.T) {
	read := func(err error) error { return &net.OpError{Op: "read", Net: "tcp", Err: err} }
	for _, c := range []struct {
		name    string
		err     error
		retry   Retry
		outcome Outcome
	}{
		{"lost", io.ErrUnexpectedEOF, RetryReconnect, OutcomeUnknown},
		{"lost between messages", io.EOF, RetryReconnect, OutcomeUnknown},
		{"reset", read(os.NewSyscallError("read", syscall.ECONNRESET)), RetryReconnect, OutcomeUnknown},
		{"reset, bare", syscall.ECONNRESET, RetryReconnect, OutcomeUnknown},
		{"pipe", &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, RetryReconnect, OutcomeUnknown},
		{"TCP_USER_TIMEOUT", read(os.NewSyscallError("read", syscall.ETIMEDOUT)), RetryReconnect, OutcomeUnknown},
		{"unreachable", read(os.NewSyscallError("read", syscall.EHOSTUNREACH)), RetryReconnect, OutcomeUnknown},
		{"net unreachable", read(os.NewSyscallError("read", syscall.ENETUNREACH)), RetryReconnect, OutcomeUnknown},
		{"other number", read(os.NewSyscallError("read", syscall.EIO)), RetryReconnect, OutcomeUnknown},
		{"deadline of the socket", read(os.ErrDeadlineExceeded), RetryReconnect, OutcomeUnknown},
		{"deadline, bare", os.ErrDeadlineExceeded, RetryReconnect, OutcomeUnknown},
		{"closed by ourselves", read(net.ErrClosed), RetryReconnect, OutcomeUnknown},
		{"TLS alert", &net.OpError{Op: "remote error", Err: tls.AlertError(20)}, RetryReconnect, OutcomeUnknown},
		{"TLS record", tls.RecordHeaderError{Msg: "bad"}, RetryReconnect, OutcomeUnknown},
		{"canceled", context.Canceled, RetryNever, OutcomeUnknown},
		{"deadline", context.DeadlineExceeded, RetryNever, OutcomeUnknown},
		{"pgx closed", pgconn.ErrConnClosed, RetryReconnect, OutcomeUnknown},
		{"bad conn", driver.ErrBadConn, RetryReconnect, OutcomeUnknown},
		{"conn given back", sql.ErrConnDone, RetryReconnect, OutcomeNotStarted},
		{"tx over", sql.ErrTxDone, RetryNever, OutcomeUnknown},
		{"pgx tx over", pgx.ErrTxClosed, RetryNever, OutcomeUnknown},
		{"aborted tx committed", pgx.ErrTxCommitRollback, RetryNever, OutcomeRolledBack},
		{"pipe of the process", io.ErrClosedPipe, RetryReconnect, OutcomeUnknown},
		{"TLS alert, bare", tls.AlertError(20), RetryReconnect, OutcomeUnknown},
		{"a timeout of an unknown type", slowError{}, RetryReconnect, OutcomeUnknown},
		{"pool closed", errors.New("closed pool"), RetryNever, OutcomeNotStarted},
		{"no rows", sql.ErrNoRows, RetryNever, OutcomeUnknown},
		{"pgx no rows", pgx.ErrNoRows, RetryNever, OutcomeUnknown},
		{"too many rows", pgx.ErrTooManyRows, RetryNever, OutcomeUnknown},
		{"dial outside of connect", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, RetryWait, OutcomeNotStarted},
		{"name", &net.DNSError{IsNotFound: true}, RetryWait, OutcomeNotStarted},
		{"certificate", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, RetryNever, OutcomeNotStarted},
		{"standby", pgconn.ErrStandbyConnection, RetryFailover, OutcomeNotStarted},
		{"a file of the caller", &os.PathError{Op: "open", Path: "f", Err: syscall.ENOENT}, RetryNever, OutcomeUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, err := range []error{c.err, fmt.Errorf("insert: %w", c.err), errors.Join(c.err)} {
				have := Classify(err)
				require.Equal(t, c.retry.String()+" "+c.outcome.String(), have.Retry.String()+" "+have.Outcome.String())
				require.Empty(t, have.SQLState)
				require.NotEmpty(t, have.Reason)
			}
		})
	}
}

func TestAClosedDatabaseHandleIsNeverRetried(t *testing.T) {
	db := sql.OpenDB(failingConnector{})
	require.NoError(t, db.Close())
	require.Equal(t, Class{RetryNever, OutcomeNotStarted, "", "database handle is closed"}, Classify(db.Ping()))
}

type failingConnector struct{}

func (failingConnector) Connect(context.Context) (driver.Conn, error) { return nil, errors.New("no") }
func (failingConnector) Driver() driver.Driver                        { return nil }

type slowError struct{}

func (slowError) Error() string   { return "slow" }
func (slowError) Timeout() bool   { return true }
func (slowError) Temporary() bool { return true }

// brokenConn is a connection whose reads and writes can be made to fail.
type brokenConn struct {
	net.Conn
	onWrite func(p []byte) (int, error)
	onRead  func(p []byte) (int, error)
}

func (c *brokenConn) Write(p []byte) (int, error) {
	if c.onWrite != nil {
		return c.onWrite(p)
	}
	return c.Conn.Write(p)
}

func (c *brokenConn) Read(p []byte) (int, error) {
	if c.onRead != nil {
		return c.onRead(p)
	}
	return c.Conn.Read(p)
}

// These errors are made by pgx itself, as their types are not exported: a release of pgx that renames one shows here.
func TestErrorsThatPgxMakesInFlight(t *testing.T) {
	reset := func(op string, errno syscall.Errno) error {
		return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, errno)}
	}
	simple := func(ctx context.Context, pc *pgconn.PgConn) error {
		_, err := pc.Exec(ctx, "commit").ReadAll()
		return err
	}
	extended := func(ctx context.Context, pc *pgconn.PgConn) error {
		return pc.ExecParams(ctx, "select $1", [][]byte{nil}, nil, nil, nil).Read().Err
	}
	swallow := accepts(func(b *pgproto3.Backend) { _, _ = b.Receive() })
	endless := accepts(func(b *pgproto3.Backend) {
		for {
			if _, err := b.Receive(); err != nil {
				return
			}
		}
	})
	for _, c := range []struct {
		name      string
		server    answer
		prepare   func(*brokenConn, *pgconn.PgConn)
		context   func() (context.Context, context.CancelFunc)
		statement func(context.Context, *pgconn.PgConn) error
		want      Class
	}{
		{
			"the answer to an extended statement is lost", swallow, nil, nil, extended,
			Class{RetryReconnect, OutcomeUnknown, "", "connection lost"},
		},
		{
			// pgx 5.9 to 5.12: "conn closed", SafeToRetry true, though the server read the statement.
			"the answer to a simple statement is lost", swallow, nil, nil, simple,
			Class{RetryReconnect, OutcomeUnknown, "", "connection closed"},
		},
		{
			"nothing could be written", endless,
			func(c *brokenConn, _ *pgconn.PgConn) {
				c.onWrite = func([]byte) (int, error) { return 0, reset("write", syscall.ECONNRESET) }
			},
			nil, simple,
			Class{RetryReconnect, OutcomeNotStarted, "", "write failed"},
		},
		{
			"a part was written", endless,
			func(c *brokenConn, _ *pgconn.PgConn) {
				c.onWrite = func([]byte) (int, error) { return 3, reset("write", syscall.EPIPE) }
			},
			nil, simple,
			Class{RetryReconnect, OutcomeUnknown, "", "write failed"},
		},
		{
			"the peer died", endless,
			func(c *brokenConn, _ *pgconn.PgConn) {
				c.onRead = func([]byte) (int, error) { return 0, reset("read", syscall.ETIMEDOUT) }
			},
			nil, extended,
			Class{RetryReconnect, OutcomeUnknown, "", "connection timed out"},
		},
		{
			"the deadline passed while waiting", endless, nil,
			func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), time.Second)
			},
			simple,
			Class{RetryNever, OutcomeUnknown, "", "context deadline exceeded"},
		},
		{
			"cancelled while waiting", endless, nil,
			func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(context.Background())
				time.AfterFunc(time.Second, cancel)
				return ctx, cancel
			},
			simple,
			Class{RetryNever, OutcomeUnknown, "", "context canceled"},
		},
		{
			"the deadline passed before", endless, nil,
			func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), -time.Second)
			},
			simple,
			Class{RetryNever, OutcomeNotStarted, "", "context was done before sending"},
		},
		{
			"cancelled before", endless, nil,
			func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				return ctx, cancel
			},
			extended,
			Class{RetryNever, OutcomeNotStarted, "", "context was done before sending"},
		},
		{
			"another statement is under way", endless,
			func(_ *brokenConn, pc *pgconn.PgConn) { pc.Exec(context.Background(), "select 1") },
			nil, simple,
			Class{RetryNever, OutcomeNotStarted, "", "connection in use"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var conn *brokenConn
				pc, err := connectTo(context.Background(), t, nil, func() (net.Conn, error) {
					client, err := c.server()
					conn = &brokenConn{Conn: client}
					return conn, err
				})
				require.NoError(t, err)
				if c.prepare != nil {
					c.prepare(conn, pc)
				}
				ctx, cancel := context.WithCancel(context.Background())
				if c.context != nil {
					ctx, cancel = c.context()
				}
				defer cancel()
				err = c.statement(ctx, pc)
				require.Error(t, err)
				require.Equal(t, c.want, Classify(err), "%v", err)
				require.NoError(t, conn.Conn.Close())
				_ = pc.Close(context.Background())
				<-pc.CleanupDone()
			})
		})
	}
}
