//go:build unix

package pgtest_test

import (
	"context"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestNewConnectionMeetsTheAcceptMode(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	open := s.connect(t)
	try := func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, s.dsn())
		if err == nil {
			err = conn.Close(ctx)
		}
		return err
	}
	set := func(mode pgtest.AcceptMode) {
		t.Helper()
		require.NoError(t, s.proxy.SetAccept(mode))
	}
	for range 3 {
		set(pgtest.AcceptRefuse)
		require.ErrorIs(t, try(t.Context()), syscall.ECONNREFUSED)
		set(pgtest.AcceptClose)
		require.ErrorIs(t, try(t.Context()), io.ErrUnexpectedEOF)
		set(pgtest.AcceptReset)
		require.ErrorIs(t, try(t.Context()), syscall.ECONNRESET)
		set(pgtest.AcceptSilent)
		require.ErrorIs(t, try(patience(t)), context.DeadlineExceeded)
		set(pgtest.AcceptForward)
		require.NoError(t, try(t.Context()))
	}
	_, err := open.Exec(t.Context(), "select 1")
	require.NoError(t, err, "an open connection is not touched")
}

func TestServerThatIsNotThereLooksLikeALoadBalancerWithoutOne(t *testing.T) {
	t.Parallel()
	p := pgt.Proxy(t, "127.0.0.1:1")
	_, err := pgx.Connect(t.Context(), p.DSN())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestBlackHoleSwallowsInEachDirection(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		hole pgtest.Faults
		rows int
	}{
		{"up", pgtest.Faults{BlackHoleUp: true}, 0},
		{"down", pgtest.Faults{BlackHoleDown: true}, 1},
		{"both", pgtest.Faults{BlackHoleUp: true, BlackHoleDown: true}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t)
			s.proxy.DropCancels(true)
			conn := s.connect(t)
			s.proxy.SetFaults(tc.hole, pgtest.Existing)
			require.NoError(t, s.connect(t).Ping(t.Context()), "a new connection is not touched")
			_, err := conn.Exec(patience(t), "insert into t values (1)")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			s.proxy.CutAll(pgtest.Both, pgtest.RST)
			s.waitBackendGone(t, conn.PgConn().PID())
			require.Equal(t, tc.rows, s.rows(t))
		})
	}
}

func TestConnectionThatLostBytesIsResetWhenTheBlackHoleEnds(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.proxy.DropCancels(true)
	loser, idle := s.connect(t), s.connect(t)
	s.proxy.SetFaults(pgtest.Faults{BlackHoleDown: true}, pgtest.All)
	done := inBackground(func() error {
		_, err := loser.Exec(context.Background(), "insert into t values (1)")
		return err
	})
	s.waitBackend(t, loser.PgConn().PID(), "state = 'idle' and query like 'insert%'")
	require.NoError(t, s.proxy.Wait(t.Context(), func(s pgtest.Stats) bool { return s.Swallowed > 0 }))
	requireNoAnswer(t, done)
	s.proxy.SetFaults(pgtest.Faults{}, pgtest.All)
	require.Error(t, <-done)
	require.Equal(t, 1, s.rows(t))
	require.NoError(t, idle.Ping(t.Context()), "it has lost nothing")
}

func TestStallKeepsBytesAndLosesNone(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn := s.connect(t)
	s.proxy.SetFaults(pgtest.Faults{StallDown: true}, pgtest.All)
	done := inBackground(func() error {
		_, err := conn.Exec(context.Background(), "insert into t values (1)")
		return err
	})
	s.waitBackend(t, conn.PgConn().PID(), "state = 'idle' and query like 'insert%'")
	requireNoAnswer(t, done)
	s.proxy.SetFaults(pgtest.Faults{}, pgtest.All)
	require.NoError(t, <-done)
	require.Equal(t, 1, s.rows(t))
}

func TestDelayPostponesEveryAnswerOnce(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn := s.connect(t)
	const delay = 60 * time.Millisecond
	s.proxy.SetFaults(pgtest.Faults{DelayUp: delay, DelayDown: delay}, pgtest.All)
	began := time.Now()
	// Half a megabyte in many pieces: each is late by the delay, not by all delays before it.
	_, err := conn.Exec(t.Context(), "select repeat('x', 1000) from generate_series(1, 500)")
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), 2*delay)
	s.proxy.SetFaults(pgtest.Faults{}, pgtest.All)
	require.NoError(t, conn.Ping(t.Context()))
}

func TestFaultsForNewConnectionsLeaveOpenOnesAlone(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn := s.connect(t)
	s.proxy.SetFaults(pgtest.Faults{BlackHoleUp: true}, pgtest.New)
	require.NoError(t, conn.Ping(t.Context()))
	_, err := pgx.Connect(patience(t), s.dsn())
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestOneConnectionCanBeCutAlone(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	one, two := s.connect(t), s.connect(t)
	conns := s.proxy.Conns()
	require.Len(t, conns, 2)
	require.Equal(t, []int64{1, 2}, []int64{conns[0].Number(), conns[1].Number()})
	require.Equal(t, int(one.PgConn().PID()), conns[0].PID())
	conns[0].Cut(pgtest.Both, pgtest.FIN)
	require.Error(t, one.Ping(t.Context()))
	require.NoError(t, two.Ping(t.Context()))
	require.Equal(t, 1, s.proxy.Stats().Active)
}

func TestUpstreamIsSwappedForNewConnections(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	other := pgt.New(t, pgtest.Options{Name: "other"})
	name := func(conn *pgx.Conn) (name string) {
		require.NoError(t, conn.QueryRow(t.Context(), "show cluster_name").Scan(&name))
		return name
	}
	before := s.connect(t)
	s.proxy.SetUpstream(other.Addr())
	require.Equal(t, "other", name(connect(t, s.proxy.DSN())))
	require.Equal(t, "shared", name(before))
}

func TestServersEndReachesTheClient(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{})
	p := pgt.Proxy(t, c.Addr())
	conn := connect(t, p.DSN())
	require.NoError(t, c.StopFast(t.Context()))
	require.NoError(t, p.Wait(t.Context(), func(s pgtest.Stats) bool { return s.Active == 0 }))
	_, err := conn.Exec(t.Context(), "select 1")
	requireCode(t, err, "57P01")
}

func TestCancelRequestIsPassedOnAndCounted(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn := s.connect(t)
	_, err := conn.Exec(patience(t), "select pg_sleep(600)")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, s.proxy.Wait(t.Context(), func(s pgtest.Stats) bool { return s.Cancels == 1 }))
	s.waitBackendGone(t, conn.PgConn().PID())
}

func TestTLSPassesWhenAllowed(t *testing.T) {
	t.Parallel()
	c := pgt.New(t, pgtest.Options{TLS: true})
	p := pgt.Proxy(t, c.Addr())
	params := []string{"sslmode=verify-full", "sslrootcert=" + c.CertFile()}
	_, err := pgx.Connect(t.Context(), p.DSN(params...))
	require.ErrorContains(t, err, "server refused TLS connection")
	p.SetTLS(true)
	conn := connect(t, p.DSN(params...))
	require.NoError(t, conn.Ping(t.Context()))
	require.Zero(t, p.Stats().Messages(pgtest.FromServer, 'Z'), "what is encrypted is not seen")
	p.CutAll(pgtest.Both, pgtest.RST)
	require.Error(t, conn.Ping(t.Context()))

	plain := pgt.New(t, pgtest.Options{})
	p.SetUpstream(plain.Addr())
	conn = connect(t, p.DSN("sslmode=prefer"))
	require.NoError(t, conn.Ping(t.Context()), "the server says no, and the connection goes on in the clear")
	require.NotZero(t, p.Stats().Messages(pgtest.FromServer, 'Z'))
}

func TestStatsCountWhatPassed(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn := s.connect(t)
	_, err := conn.Exec(t.Context(), "insert into t select generate_series(1, 3)")
	require.NoError(t, err)
	rows, err := conn.Query(t.Context(), "select x from t where x > $1", 0)
	require.NoError(t, err)
	rows.Close()
	stats := s.proxy.Stats()
	require.Equal(t, []string{"insert into t select generate_series(1, 3)", "select x from t where x > $1"}, stats.Queries)
	require.Equal(t, 3, stats.Messages(pgtest.FromServer, 'D'))
	require.Equal(t, 1, stats.Messages(pgtest.FromClient, 'Q'))
	require.Equal(t, []int{1, 1, 1, 0}, []int{stats.Accepted, stats.Opened, stats.Active, stats.Cancels})
	require.NoError(t, conn.Close(t.Context()))
	require.NoError(t, s.proxy.Wait(t.Context(), func(s pgtest.Stats) bool { return s.Active == 0 }))
}

func TestCloseEndsPausedStrandedAndSilentConnections(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	paused := s.connect(t)
	rule := s.proxy.OnMessage(pgtest.Sending("select"), pgtest.Pause())
	done := inBackground(func() error {
		_, err := paused.Exec(context.Background(), "select 1")
		return err
	})
	require.NoError(t, rule.Wait(t.Context()))
	stranded := s.connect(t)
	s.proxy.OnMessage(pgtest.Sending("insert"), pgtest.CutBefore(pgtest.Client, pgtest.RST))
	_, err := stranded.Exec(t.Context(), "insert into t values (1)")
	require.Error(t, err)
	require.NoError(t, s.proxy.SetAccept(pgtest.AcceptSilent))
	silent := inBackground(func() error {
		_, err := pgx.Connect(context.Background(), s.dsn())
		return err
	})
	require.NoError(t, s.proxy.Wait(t.Context(), func(s pgtest.Stats) bool { return s.Accepted == 4 }),
		"two, the cancel request that pgx sends for a broken connection, and the silent one")

	require.NoError(t, s.proxy.Close())
	require.NoError(t, s.proxy.Close())
	require.Error(t, <-done)
	require.Error(t, <-silent)
	require.ErrorIs(t, s.proxy.SetAccept(pgtest.AcceptForward), pgtest.ErrClosed)
	require.ErrorIs(t, s.proxy.Wait(t.Context(), func(pgtest.Stats) bool { return false }), pgtest.ErrClosed)
	s.waitBackendGone(t, stranded.PgConn().PID())
}
