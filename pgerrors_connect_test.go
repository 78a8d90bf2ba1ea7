package retrypg

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// answer is what one address does when it is dialled: an error, or a connection to a scripted peer.
type answer func() (net.Conn, error)

func dialFails(err error) answer { return func() (net.Conn, error) { return nil, err } }

func dialErrno(errno syscall.Errno) answer {
	return dialFails(&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)})
}

// peer runs script on the other end of a pipe and closes it.
func peer(script func(conn net.Conn)) answer {
	return func() (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			script(server)
		}()
		return client, nil
	}
}

// refuses reads the start-up message and answers with an error.
func refuses(e pgproto3.ErrorResponse) answer {
	return peer(func(conn net.Conn) {
		b := pgproto3.NewBackend(conn, conn)
		if _, err := b.ReceiveStartupMessage(); err == nil {
			b.Send(&e)
			_ = b.Flush()
		}
	})
}

func fatal(code string) answer {
	return refuses(pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: "m", Routine: "r"})
}

func pooler(message string) answer {
	return refuses(pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "08P01", Message: message})
}

// accepts logs the client in and hands over to script.
func accepts(script func(b *pgproto3.Backend)) answer {
	return peer(func(conn net.Conn) {
		b := pgproto3.NewBackend(conn, conn)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
		b.Send(&pgproto3.AuthenticationOk{})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() == nil {
			script(b)
		}
	})
}

// answersTLS reads the SSLRequest, of 8 bytes, and answers with reply.
func answersTLS(reply string, script func(conn net.Conn)) answer {
	return peer(func(conn net.Conn) {
		var request [8]byte
		if _, err := io.ReadFull(conn, request[:]); err == nil {
			_, _ = conn.Write([]byte(reply))
			script(conn)
		}
	})
}

// connectTo makes pgx connect to one host for each answer.
func connectTo(ctx context.Context, t *testing.T, change func(*pgconn.Config), answers ...answer) (*pgconn.PgConn, error) {
	t.Helper()
	dsn := "host=h0"
	for i := range answers[1:] {
		dsn += fmt.Sprintf(",h%d", i+1)
	}
	cfg, err := pgconn.ParseConfig(dsn + " user=u password=p dbname=d sslmode=disable")
	require.NoError(t, err)
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	cfg.DialFunc = func(_ context.Context, _, addr string) (net.Conn, error) {
		var i int
		if _, err := fmt.Sscanf(addr, "h%d:", &i); err != nil {
			return nil, err // pgx dials the peer of a pipe, whose address is "pipe", to cancel a statement
		}
		return answers[i]()
	}
	if change != nil {
		change(cfg)
	}
	return pgconn.ConnectConfig(ctx, cfg)
}

func withTLS(cfg *pgconn.Config) {
	cfg.TLSConfig = &tls.Config{ServerName: "h0", MinVersion: tls.VersionTLS12}
}

func withValidate(err error) func(*pgconn.Config) {
	return func(cfg *pgconn.Config) {
		cfg.ValidateConnect = func(context.Context, *pgconn.PgConn) error { return err }
	}
}

var (
	closesAtOnce = peer(func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) })
	loggedIn     = accepts(func(*pgproto3.Backend) {})
	lookupFails  = &net.DNSError{Err: "no such host", Name: "h0", IsNotFound: true}
)

func TestOneAddressThatFailsToConnect(t *testing.T) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name   string
		ctx    context.Context
		change func(*pgconn.Config)
		answer answer
		retry  Retry
		reason string
	}{
		{"refused", nil, nil, dialErrno(syscall.ECONNREFUSED), RetryWait, "connection refused"},
		{"socket missing", nil, nil, dialErrno(syscall.ENOENT), RetryWait, "socket missing"},
		{"socket forbidden", nil, nil, dialErrno(syscall.EACCES), RetryNever, "permission denied"},
		{"address family", nil, nil, dialErrno(syscall.EAFNOSUPPORT), RetryNever, "invalid address"},
		{"no route", nil, nil, dialErrno(syscall.EHOSTUNREACH), RetryWait, "host unreachable"},
		{"no network", nil, nil, dialErrno(syscall.ENETUNREACH), RetryWait, "host unreachable"},
		{"SYN lost", nil, nil, dialErrno(syscall.ETIMEDOUT), RetryWait, "connection timed out"},
		{"reset", nil, nil, dialErrno(syscall.ECONNRESET), RetryWait, "connection reset"},
		{"out of files", nil, nil, dialErrno(syscall.EMFILE), RetryWait, "dial failed"},
		{"bad address", nil, nil, dialFails(&net.OpError{Op: "dial", Err: &net.AddrError{Err: "missing port"}}), RetryNever, "invalid address"},
		{"own dialer", nil, nil, dialFails(errors.New("tunnel is down")), RetryWait, "dial failed"},
		{"dial timed out", nil, nil, dialFails(&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}), RetryWait, "connection timed out"},
		{"attempt timed out", nil, nil, dialFails(context.DeadlineExceeded), RetryWait, "connection timed out"},
		{"caller gave up", canceled, nil, dialFails(context.Canceled), RetryNever, "context canceled"},
		{"name unknown", nil, failLookup(lookupFails), nil, RetryWait, "host not found"},
		{"name server down", nil, failLookup(&net.DNSError{Err: "server misbehaving", IsTemporary: true}), nil, RetryWait, "name lookup failed"},
		{"name lookup slow", nil, failLookup(&net.DNSError{Err: "i/o timeout", IsTimeout: true}), nil, RetryWait, "name lookup failed"},
		{"name lookup canceled", nil, failLookup(&net.DNSError{Err: "operation was canceled", UnwrapErr: context.Canceled}), nil, RetryNever, "context canceled"},
		{"own resolver", nil, failLookup(errors.New("consul is down")), nil, RetryWait, "dial failed"},
		{"accepted, then closed", nil, nil, closesAtOnce, RetryWait, "connection lost"},
		{"starting up", nil, nil, fatal("57P03"), RetryWait, "cannot_connect_now"},
		{"too many", nil, nil, fatal("53300"), RetryWait, "too_many_connections"},
		{"terminated while logging in", nil, nil, fatal("57P01"), RetryWait, "admin_shutdown"},
		{"wrong password", nil, nil, fatal("28P01"), RetryNever, "invalid_password"},
		{"no hba entry", nil, nil, fatal("28000"), RetryNever, "invalid_authorization_specification"},
		{"no database", nil, nil, fatal("3D000"), RetryNever, "invalid_catalog_name"},
		{"may not connect", nil, nil, fatal("42501"), RetryNever, "insufficient_privilege"},
		{"pooler has no server", nil, nil, pooler("query_wait_timeout"), RetryWait, "pooler has no server connection"},
		{"pooler refuses", nil, nil, pooler("password authentication failed"), RetryNever, "pooler refused the login"},
		{"TLS refused", nil, withTLS, answersTLS("N", func(net.Conn) {}), RetryNever, "server refused TLS"},
		{"no TLS behind it", nil, withTLS, answersTLS("S", sayHTTP), RetryNever, "peer does not speak TLS"},
		{"certificate unknown", nil, withTLS, answersTLS("S", serveTLS(t)), RetryNever, "certificate not valid"},
		{"closed in the handshake", nil, withTLS, closesAtOnce, RetryWait, "connection lost"},
		{"standby", nil, withValidate(pgconn.ErrStandbyConnection), loggedIn, RetryFailover, "server is a standby"},
		{"read-only", nil, withValidate(pgconn.ErrReadOnlyConnection), loggedIn, RetryFailover, "server is read-only"},
		{"primary", nil, withValidate(pgconn.ErrPrimaryConnection), loggedIn, RetryFailover, "server is not a standby"},
		{"read-write", nil, withValidate(pgconn.ErrReadWriteConnection), loggedIn, RetryFailover, "server is not read-only"},
		{"deadline in the role check", nil, withValidate(context.DeadlineExceeded), loggedIn, RetryWait, "connection timed out"},
		{"hook of the caller", nil, withValidate(errors.New("wrong tenant")), loggedIn, RetryNever, "connect failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := c.ctx
			if ctx == nil {
				ctx = context.Background()
			}
			_, err := connectTo(ctx, t, c.change, c.answer)
			var connectErr *pgconn.ConnectError
			require.ErrorAs(t, err, &connectErr)
			have := Classify(fmt.Errorf("open: %w", err))
			require.Equal(t, c.retry.String(), have.Retry.String(), "%v", err)
			require.Equal(t, OutcomeNotStarted, have.Outcome)
			require.Equal(t, c.reason, have.Reason, "%v", err)
		})
	}
}

func failLookup(err error) func(*pgconn.Config) {
	return func(cfg *pgconn.Config) {
		cfg.LookupFunc = func(context.Context, string) ([]string, error) { return nil, err }
	}
}

// sayHTTP is what a client hello meets at the wrong port.
func sayHTTP(conn net.Conn) {
	var header [5]byte
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint16(header[3:])))
	_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
}

func TestSeveralAddressesGiveWhatWaitingOrAnotherHostCanHeal(t *testing.T) {
	refused, starting, password := dialErrno(syscall.ECONNREFUSED), fatal("57P03"), fatal("28P01")
	noHBA, noTLS := fatal("28000"), dialFails(x509.HostnameError{})
	standby := refuses(pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P03", Routine: "r", Detail: "Hot standby mode is disabled."})
	canceled := dialFails(context.Canceled)
	for _, c := range []struct {
		name    string
		answers []answer
		retry   Retry
		code    string
	}{
		{"all starting", []answer{starting, starting}, RetryWait, "57P03"},
		{"refused and starting", []answer{refused, starting}, RetryWait, ""},
		{"starting and refused", []answer{starting, refused}, RetryWait, "57P03"},
		{"a wrong password ends it, though the first host only starts", []answer{starting, password}, RetryNever, "28P01"},
		{"no such database ends it", []answer{refused, fatal("3D000")}, RetryNever, "3D000"},
		{"pooler with another password", []answer{starting, pooler("password authentication failed")}, RetryNever, "08P01"},
		{"a host with the wrong pg_hba.conf does not hide one that starts", []answer{noHBA, starting}, RetryWait, "57P03"},
		{"nor after it", []answer{starting, noHBA}, RetryWait, "57P03"},
		{"wrong pg_hba.conf everywhere", []answer{noHBA, noHBA}, RetryNever, "28000"},
		{"certificate of one", []answer{noTLS, refused}, RetryWait, ""},
		{"certificate of all", []answer{noTLS, noTLS}, RetryNever, ""},
		{"one never serves, one is down", []answer{standby, refused}, RetryWait, ""},
		{"one never serves, one has the wrong pg_hba.conf", []answer{noHBA, standby}, RetryFailover, "57P03"},
		{"three", []answer{noHBA, standby, starting}, RetryWait, "57P03"},
		{"the caller gave up at the second", []answer{starting, canceled}, RetryNever, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := connectTo(context.Background(), t, nil, c.answers...)
			have := Classify(err)
			require.Equal(t, c.retry.String(), have.Retry.String(), "%v", err)
			require.Equal(t, c.code, have.SQLState)
			require.Equal(t, c.code, SQLState(err))
			require.Equal(t, OutcomeNotStarted, have.Outcome)
		})
	}
}

func TestARoleThatNoHostHasIsAFailover(t *testing.T) {
	_, err := connectTo(context.Background(), t, withValidate(pgconn.ErrReadOnlyConnection), loggedIn, loggedIn)
	require.Equal(t, Class{RetryFailover, OutcomeNotStarted, "", "server is read-only"}, Classify(err))
	_, err = connectTo(context.Background(), t, withValidate(pgconn.ErrReadOnlyConnection), loggedIn, dialErrno(syscall.ECONNREFUSED))
	require.Equal(t, Class{RetryWait, OutcomeNotStarted, "", "connection refused"}, Classify(err))
}

func TestAConnectErrorAmongJoinedErrorsIsStillCombined(t *testing.T) {
	_, err := connectTo(context.Background(), t, nil, fatal("28000"), fatal("57P03"))
	joined := errors.Join(errors.New("pool"), fmt.Errorf("open: %w", err), &pgconn.PgError{Code: "40001"})
	require.Equal(t, Class{RetryWait, OutcomeNotStarted, "57P03", "cannot_connect_now"}, Classify(joined))
}

func TestAConnectionStringThatCannotBeParsedIsNeverRetried(t *testing.T) {
	_, err := pgconn.ParseConfig("host=h sslmode=perhaps")
	require.Error(t, err)
	require.Equal(t, Class{RetryNever, OutcomeNotStarted, "", "invalid connection string"}, Classify(err))
}
