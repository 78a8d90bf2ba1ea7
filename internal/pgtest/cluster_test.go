//go:build unix

package pgtest_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func value(t *testing.T, c *pgtest.Cluster, sql string) string {
	t.Helper()
	v, err := c.Value(t.Context(), sql)
	require.NoError(t, err)
	return v
}

func requireCode(t *testing.T, err error, code string) {
	t.Helper()
	var pgErr *pgconn.PgError
	require.ErrorAs(t, err, &pgErr)
	require.Equal(t, code, pgErr.Code, "%v", err)
}

func TestClusterAnswersAndCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{Settings: map[string]string{"work_mem": "7MB"}})
	require.Equal(t, "7MB", value(t, c, "show work_mem"))
	require.Equal(t, "off", value(t, c, "show fsync"))
	pid := c.PID()
	require.NoError(t, c.Close())
	require.NoError(t, c.Close(), "closing twice is allowed")
	require.NoDirExists(t, c.Dir())
	require.False(t, alive(pid))
	require.ErrorIs(t, c.Start(t.Context()), pgtest.ErrClosed)
}

func TestClustersFromOneTemplateAreDifferentSystems(t *testing.T) {
	t.Parallel()
	const ask = "select system_identifier from pg_control_system()"
	a, b := pgt.New(t, pgtest.Options{}), pgt.New(t, pgtest.Options{})
	require.NotEqual(t, value(t, a, ask), value(t, b, ask))
	before := value(t, a, ask)
	require.NoError(t, a.Exec(t.Context(), "create table t (x int); insert into t values (1)"))
	require.NoError(t, a.Kill(t.Context()))
	require.NoError(t, a.Start(t.Context()), "recovery reads the WAL that got the new identifier")
	require.Equal(t, before, value(t, a, ask))
	require.Equal(t, "1", value(t, a, "select x from t"))
}

func TestEveryWayToStopKeepsPortAndCommittedRows(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{})
	port := c.Port()
	require.NoError(t, c.Exec(t.Context(), "create table t (x int)"))
	for i, stop := range []func(context.Context) error{
		c.StopFast, c.StopImmediate, c.Kill, c.Kill, c.Kill, c.Restart, c.Kill,
	} {
		conn := connect(t, c.DSN())
		require.NoError(t, c.Exec(t.Context(), "insert into t values ("+strconv.Itoa(i)+")"))
		require.NoError(t, stop(t.Context()))
		_, err := conn.Exec(t.Context(), "select 1")
		require.Error(t, err)
		require.NoError(t, c.Start(t.Context()))
		require.Equal(t, strconv.Itoa(i+1), value(t, c, "select count(*) from t"))
		require.Equal(t, port, c.Port())
	}
	require.NoError(t, c.StopFast(t.Context()))
	require.NoError(t, c.StopFast(t.Context()), "a stopped server stays stopped")
	require.False(t, c.Running())
	require.Zero(t, c.PID())
}

func TestCrashOfOneBackendEndsAllAndServerRecovers(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{})
	victim, other := connect(t, c.DSN()), connect(t, c.DSN())
	pid := c.PID()
	require.NoError(t, c.CrashBackend(int(victim.PgConn().PID())))
	_, err := other.Exec(t.Context(), "select pg_sleep(60)")
	require.Error(t, err)
	require.NoError(t, c.WaitReady(t.Context()))
	require.Equal(t, pid, c.PID(), "the postmaster stays")
	require.Error(t, c.CrashBackend(os.Getpid()), "only processes of this server")
}

func TestFrozenServerHoldsConnectionsUntilThawed(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{})
	conn := connect(t, c.DSN())
	require.NoError(t, c.Freeze())
	require.NoError(t, c.Freeze())
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select 1")
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := pgx.Connect(ctx, c.DSN())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, done)
	require.NoError(t, c.Thaw())
	require.NoError(t, <-done)
	require.NoError(t, c.Freeze())
	require.NoError(t, c.Close(), "a frozen server can be closed")
}

func TestStandbyIsPromotedAndOldPrimaryRejoins(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := pgt.New(t, pgtest.Options{Name: "a"})
	b := pgt.Standby(t, a, pgtest.Options{Name: "b"})
	require.NoError(t, a.WaitStreaming(ctx, "b"))
	require.NoError(t, a.Set(ctx, "synchronous_standby_names", "b"))
	require.NoError(t, a.Exec(ctx, "create table t (x int)"))
	require.NoError(t, a.Exec(ctx, "insert into t values (1)"))
	require.NoError(t, b.WaitReplayed(ctx, a))
	require.Equal(t, "1", value(t, b, "select x from t"))
	requireCode(t, b.Exec(ctx, "insert into t values (2)"), "25006")

	require.NoError(t, a.Kill(ctx))
	require.NoError(t, b.Promote(ctx))
	require.NoError(t, b.Reset(ctx, "synchronous_standby_names"))
	require.NoError(t, b.Exec(ctx, "insert into t values (2)"))
	require.Equal(t, "2", value(t, b, "select timeline_id from pg_control_recovery(), "+
		"lateral (select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int as timeline_id) w"))

	require.NoError(t, a.RejoinAsStandby(ctx, b))
	require.NoError(t, b.WaitStreaming(ctx, "a"))
	require.NoError(t, a.WaitReplayed(ctx, b))
	require.Equal(t, "2", value(t, a, "select count(*) from t"))
	require.NoError(t, a.Promote(ctx))
	require.NoError(t, a.Exec(ctx, "insert into t values (3)"))
}

func TestStandbyCanBeCutOffByAProxy(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := pgt.New(t, pgtest.Options{Name: "a"})
	proxy := pgt.Proxy(t, a.Addr())
	b := pgt.Standby(t, a, pgtest.Options{Name: "b", ReplicateFrom: proxy.Addr()})
	require.NoError(t, a.WaitStreaming(ctx, "b"))
	require.NoError(t, a.Exec(ctx, "create table t (x int)"))
	require.NoError(t, b.WaitReplayed(ctx, a))
	proxy.SetFaults(pgtest.Faults{BlackHoleUp: true, BlackHoleDown: true}, pgtest.All)
	require.NoError(t, a.Exec(ctx, "insert into t values (1)"))
	require.NoError(t, a.Kill(ctx))
	require.NoError(t, b.Promote(ctx))
	require.Equal(t, "0", value(t, b, "select count(*) from t"), "an acknowledged row is lost, as it is when asynchronous")
}

func TestTerminateAndCancelReachTheBackendsMeant(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{})
	one, two := connect(t, c.DSN("application_name=one")), connect(t, c.DSN("application_name=two"))
	n, err := c.TerminateBackends(t.Context(), "application_name = 'one'")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, err = one.Exec(t.Context(), "select 1")
	requireCode(t, err, "57P01")

	done := make(chan error, 1)
	go func() {
		_, err := two.Exec(context.Background(), "select pg_sleep(600)")
		done <- err
	}()
	require.NoError(t, c.WaitUntil(t.Context(), "exists (select from pg_stat_activity where wait_event = 'PgSleep')"))
	n, err = c.CancelBackends(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	requireCode(t, <-done, "57014")
}

func TestSetIsSeenByTheNextConnection(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{})
	for _, v := range []string{"1min", "2min", "it's"} {
		if v == "it's" {
			require.NoError(t, c.Set(t.Context(), "application_name", v))
			require.Equal(t, v, value(t, c, "select setting from pg_file_settings where name = 'application_name' and applied"))
			continue
		}
		require.NoError(t, c.Set(t.Context(), "statement_timeout", v))
		require.Equal(t, v, value(t, c, "show statement_timeout"))
	}
	require.NoError(t, c.Reset(t.Context(), "statement_timeout"))
	require.Equal(t, "0", value(t, c, "show statement_timeout"))
}

func TestTLSClusterCanBeVerified(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{TLS: true, HBA: []string{"hostnossl all app all reject", "hostssl all app all scram-sha-256"}})
	require.NoError(t, c.Exec(t.Context(), "create role app login password 'right'"))
	ask := func(params ...string) error {
		conn, err := pgx.Connect(t.Context(), c.DSN(params...))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(t.Context()) }()
		var on bool
		err = conn.QueryRow(t.Context(), "select ssl from pg_stat_ssl where pid = pg_backend_pid()").Scan(&on)
		require.True(t, on)
		return err
	}
	require.NoError(t, ask("sslmode=verify-full", "sslrootcert="+c.CertFile(), "user=app", "password=right"))
	requireCode(t, ask("user=app", "password=wrong"), "28P01")
	requireCode(t, ask("user=app", "password=right", "sslmode=disable"), "28000")
}

func TestStartErrorShowsTheServersLog(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{}) // skips under -short
	_, err := pgtest.Start(t.Context(), pgtest.Options{Settings: map[string]string{"no_such_setting": "1"}})
	var startErr *pgtest.StartError
	require.ErrorAs(t, err, &startErr)
	require.Contains(t, err.Error(), `unrecognized configuration parameter "no_such_setting"`)

	_, err = pgtest.Start(t.Context(), pgtest.Options{Port: c.Port()})
	require.ErrorAs(t, err, &startErr)
	require.Contains(t, err.Error(), "Address already in use")
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	primary := pgt.New(t, pgtest.Options{})
	standby := pgt.Standby(t, primary, pgtest.Options{})
	require.NoError(t, standby.Set(t.Context(), "hot_standby", "off")) // then it lets nobody in
	require.NoError(t, standby.StopFast(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err := standby.Start(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	requireCode(t, err, "57P03")
}

func TestBadOptionsAreRefused(t *testing.T) {
	t.Parallel()
	for _, opts := range []pgtest.Options{
		{Name: "a/b"},
		{Name: "a b"},
		{Port: -1},
		{Port: 1 << 16},
		{ReplicateFrom: "nowhere"},
		{Settings: map[string]string{"port": "1"}},
	} {
		_, err := pgtest.Start(t.Context(), opts)
		require.Error(t, err, "%+v", opts)
	}
}

func TestDSNTakesSeveralHostsAndOddValues(t *testing.T) {
	t.Parallel()
	cfg, err := pgx.ParseConfig(pgtest.DSN([]string{"127.0.0.1:1", "127.0.0.1:2"},
		"user=a b", "password=p:/@?&#%", "dbname=x/y z", "application_name=q&r=s", "target_session_attrs=read-write"))
	require.NoError(t, err)
	require.Equal(t, "a b", cfg.User)
	require.Equal(t, "p:/@?&#%", cfg.Password)
	require.Equal(t, "x/y z", cfg.Database)
	require.Equal(t, "q&r=s", cfg.RuntimeParams["application_name"])
	require.Equal(t, uint16(1), cfg.Port)
	require.Len(t, cfg.Fallbacks, 1)
	require.Equal(t, uint16(2), cfg.Fallbacks[0].Port)
	require.Nil(t, cfg.TLSConfig)
}

func TestPortIsOutsideTheRangeForClients(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{})
	conn, err := net.Dial("tcp", c.Addr())
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.Less(t, c.Port(), 32768)
	require.FileExists(t, filepath.Join(c.DataDir(), "postmaster.pid"))
}
