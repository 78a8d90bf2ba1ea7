package connect_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// waitsBeforeStart is how many waits of the prober make an outage of about a second: it begins with 10 ms, doubles, and takes
// half to all of 100 ms from then on.
const waitsBeforeStart = 12

// authentication matches the server's first message to a new connection.
func authentication(m pgtest.Message) bool { return m.Dir == pgtest.FromServer && m.Type == 'R' }

// refusing is what a server says in place of letting a connection in.
func refusing(code, message string) pgtest.Action {
	return pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(&pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message, Routine: "ProcessStartupPacket",
	})
}

func TestStatementBeforeTheServerStartsIsServedWhenItHasStarted(t *testing.T) {
	c := newCluster(t, pgtest.Options{})
	ctx := within(t)
	require.NoError(t, c.StopFast(ctx))
	w := newWatch()
	db := open(t, c.DSN("password="+password), w.option())
	statement := later(func() error {
		_, err := db.ExecContext(ctx, "create table first (id int)")
		return err
	})
	require.NoError(t, w.waits(ctx, waitsBeforeStart))
	require.NoError(t, c.StartAsync())
	require.NoError(t, done(t, statement))
	require.Contains(t, w.reasons(), "connection refused")
	require.Len(t, w.downs, 1)
	require.Len(t, w.ups, 1)
	require.Greater(t, w.ups[0], waitsBeforeStart)
}

// TestStatementWithoutADeadlineIsServedToo: where the context has no deadline, retry_connect_max_elapsed is the bound.
func TestStatementWithoutADeadlineIsServedToo(t *testing.T) {
	c := newCluster(t, pgtest.Options{})
	require.NoError(t, c.StopFast(within(t)))
	w := newWatch()
	db := open(t, c.DSN(), w.option())
	statement := later(func() error { _, err := db.Exec("create table first (id int)"); return err })
	require.NoError(t, w.waits(within(t), 5))
	require.NoError(t, c.StartAsync())
	require.NoError(t, done(t, statement))
}

// TestServerThatRecoversIsWaitedFor: a standby that takes no queries answers 57P03 until it is promoted.
func TestServerThatRecoversIsWaitedFor(t *testing.T) {
	c := pgt.Standby(t, newCluster(t, pgtest.Options{}), pgtest.Options{})
	ctx := within(t)
	require.NoError(t, c.Set(ctx, "hot_standby", "off"))
	require.NoError(t, c.StopFast(ctx))
	w := newWatch()
	db := open(t, c.DSN(), w.option())
	statement := later(func() error {
		_, err := db.ExecContext(ctx, "create table first (id int)")
		return err
	})
	require.NoError(t, w.waits(ctx, 3))
	require.NoError(t, c.StartAsync())
	require.NoError(t, w.until(ctx, func() bool {
		for _, b := range w.backoffs {
			if b.Class.SQLState == "57P03" {
				return true
			}
		}
		return false
	}))
	// pg_promote cannot be called on a server that lets nobody in; this is what it does.
	require.NoError(t, os.WriteFile(filepath.Join(c.DataDir(), "promote"), nil, 0o644))
	require.NoError(t, syscall.Kill(c.PID(), syscall.SIGUSR1))
	require.NoError(t, done(t, statement))
}

func TestServerThatRecoversFromACrashIsWaitedFor(t *testing.T) {
	c := newCluster(t, pgtest.Options{})
	ctx := within(t)
	victim, err := pgx.Connect(ctx, c.DSN())
	require.NoError(t, err)
	require.NoError(t, c.CrashBackend(int(victim.PgConn().PID())))
	_, err = victim.Exec(ctx, "select pg_sleep(60)")
	require.Error(t, err, "the backend lives")
	db := open(t, c.DSN())
	_, err = db.ExecContext(ctx, "create table first (id int)")
	require.NoError(t, err)
}

// TestWhatWaitingHealsIsWaitedFor meets one obstacle after the other, each until the caller has waited for its end.
func TestWhatWaitingHealsIsWaitedFor(t *testing.T) {
	d := newDatabase(t)
	tests := map[string]struct {
		obstacle func(*pgtest.Proxy) (remove func())
		reason   string
	}{
		"accepted and closed":    {obstacle: accepting(pgtest.AcceptClose), reason: "connection lost"},
		"accepted and reset":     {obstacle: accepting(pgtest.AcceptReset), reason: "connection reset"},
		"refused":                {obstacle: accepting(pgtest.AcceptRefuse), reason: "connection refused"},
		"accepted and no answer": {obstacle: accepting(pgtest.AcceptSilent), reason: "connection timed out"},
		"black hole":             {obstacle: blackHole, reason: "connection timed out"},
		"57P03 starting up":      {obstacle: answering("57P03", "the database system is starting up"), reason: "cannot_connect_now"},
		"57P01 shutting down":    {obstacle: answering("57P01", "terminating connection due to administrator command"), reason: "admin_shutdown"},
		"53300 full":             {obstacle: answering("53300", "sorry, too many clients already"), reason: "too_many_connections"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			ctx := within(t)
			w := newWatch()
			remove := test.obstacle(p)
			db := open(t, through(p, d), w.option(), connectTimeout(300*time.Millisecond))
			statement := later(func() error { return db.PingContext(ctx) })
			require.NoError(t, w.waits(ctx, 2))
			remove()
			require.NoError(t, done(t, statement))
			require.Equal(t, map[string]bool{test.reason: true}, w.reasons())
		})
	}
}

// connectTimeout is connect_timeout, which counts in seconds.
func connectTimeout(d time.Duration) retrypg.Option {
	return retrypg.WithConnConfig(func(cfg *pgx.ConnConfig) error { cfg.ConnectTimeout = d; return nil })
}

// lookup resolves the names of hosts in place of the system.
func lookup(f func(host string) ([]string, error)) retrypg.Option {
	return retrypg.WithConnConfig(func(cfg *pgx.ConnConfig) error {
		cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return f(host) }
		return nil
	})
}

func accepting(mode pgtest.AcceptMode) func(*pgtest.Proxy) func() {
	return func(p *pgtest.Proxy) func() {
		_ = p.SetAccept(mode) // it only fails to listen again
		return func() { _ = p.SetAccept(pgtest.AcceptForward) }
	}
}

func blackHole(p *pgtest.Proxy) func() {
	p.SetFaults(pgtest.Faults{BlackHoleUp: true, BlackHoleDown: true}, pgtest.All)
	return func() { p.SetFaults(pgtest.Faults{}, pgtest.New) }
}

func answering(code, message string) func(*pgtest.Proxy) func() {
	return func(p *pgtest.Proxy) func() {
		return p.OnMessages(1000, authentication, refusing(code, message)).Remove
	}
}

// TestHostThatDropsPacketsCostsTheConnectTimeout: the dial is silent until its own context ends, as when a firewall
// drops SYN packets.
func TestHostThatDropsPacketsCostsTheConnectTimeout(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	dials := 0
	db := open(t, through(p, d), connectTimeout(300*time.Millisecond), retrypg.WithConnConfig(func(cfg *pgx.ConnConfig) error {
		var dialer net.Dialer
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials++; dials == 1 {
				<-ctx.Done()
				return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
			}
			return dialer.DialContext(ctx, network, addr)
		}
		return nil
	}))
	require.NoError(t, db.PingContext(ctx))
	require.Equal(t, 2, dials)
}

func TestNameThatIsNotKnownYetIsWaitedFor(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	lookups := 0
	w := newWatch()
	dsn := pgtest.DSN([]string{net.JoinHostPort("db.example", strconv.Itoa(p.Port()))}, "dbname="+d.Name)
	db := open(t, dsn, w.option(), lookup(func(host string) ([]string, error) {
		if lookups++; lookups <= 3 {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []string{"127.0.0.1"}, nil
	}))
	require.NoError(t, db.PingContext(ctx))
	require.Equal(t, 4, lookups)
	require.Equal(t, map[string]bool{"host not found": true}, w.reasons())
}

func TestNameThatIsNeverFoundEndsWithTheDeadline(t *testing.T) {
	leak.Check(t)
	db := open(t, pgtest.DSN([]string{"db.invalid:5432"}, "password="+password)) // RFC 6761: never registered
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	e := exhausted(t, db.PingContext(ctx))
	require.ErrorIs(t, e, context.DeadlineExceeded)
	var dns *net.DNSError
	require.ErrorAs(t, e, &dns)
}

func TestServerThatIsFullIsWaitedFor(t *testing.T) {
	const slots = 3 // reserved for superusers, so that the test can look on
	c := newCluster(t, pgtest.Options{Settings: map[string]string{
		"max_connections": "8", "superuser_reserved_connections": strconv.Itoa(slots),
	}})
	ctx := within(t)
	require.NoError(t, c.Exec(ctx, "create role app login"))
	var held []*pgx.Conn
	for range 8 - slots {
		conn, err := pgx.Connect(ctx, c.DSN("user=app"))
		require.NoError(t, err)
		held = append(held, conn)
	}
	defer func() {
		for _, conn := range held {
			_ = conn.Close(context.Background())
		}
	}()
	w := newWatch()
	db := open(t, c.DSN("user=app"), w.option())
	statement := later(func() error { return db.PingContext(ctx) })
	require.NoError(t, w.waits(ctx, 3))
	require.NoError(t, held[0].Close(ctx))
	require.NoError(t, done(t, statement))
	require.Equal(t, map[string]bool{"too_many_connections": true}, w.reasons())
}
