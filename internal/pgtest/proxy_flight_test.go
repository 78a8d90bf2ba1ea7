package pgtest_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
)

func TestFlightsAreTheRoundTripsThatClientsWaitFor(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	flights := func(work func()) int {
		before := s.proxy.Stats().Flights
		work()
		return s.proxy.Stats().Flights - before
	}
	var conn *pgx.Conn
	require.Equal(t, 1, flights(func() { conn = s.connect(t) }), "the startup message")
	require.Equal(t, 2, flights(func() {
		for range 2 {
			_, err := conn.Exec(t.Context(), "select 1; select 2", pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
		}
	}))
	require.Equal(t, 2, flights(func() {
		_, err := conn.Exec(t.Context(), "select $1::int", 1)
		require.NoError(t, err)
	}), "Prepare and Execute")
	require.Equal(t, 1, flights(func() {
		var b pgx.Batch
		for range 5 {
			b.Queue("select $1::int", 1)
		}
		require.NoError(t, conn.SendBatch(t.Context(), &b).Close())
	}), "one batch")
	other := s.connect(t)
	require.Equal(t, 2, flights(func() {
		require.NoError(t, conn.Ping(t.Context()))
		require.NoError(t, other.Ping(t.Context()))
	}), "each connection has its own")
}

func TestWhatAClientSendsWithoutHavingReadAnAnswerIsOneFlight(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	conn := s.connect(t)
	before := s.proxy.Stats().Flights
	s.proxy.SetFaults(pgtest.Faults{StallDown: true}, pgtest.All)
	pipeline := sendEach(t, conn, 5)
	s.proxy.SetFaults(pgtest.Faults{}, pgtest.All)
	require.NoError(t, pipeline.Close())
	require.Equal(t, 1, s.proxy.Stats().Flights-before)
}

func TestADelayIsLatencyAndNoLimitToWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	const delay, requests = 50 * time.Millisecond, 100
	s := newSetup(t)
	conn := s.connect(t)
	s.proxy.SetFaults(pgtest.Faults{DelayUp: delay, DelayDown: delay}, pgtest.All)
	began := time.Now()
	require.NoError(t, sendEach(t, conn, requests).Close())
	took := time.Since(began)
	require.GreaterOrEqual(t, took, 2*delay)
	require.Less(t, took, requests*delay, "each request alone takes twice the delay")
}

// sendEach sends n requests one by one, without reading an answer.
func sendEach(t *testing.T, conn *pgx.Conn, n int) *pgconn.Pipeline {
	t.Helper()
	pipeline := conn.PgConn().StartPipeline(t.Context())
	for range n {
		pipeline.SendQueryParams("select 1", nil, nil, nil, nil)
		require.NoError(t, pipeline.Sync())
	}
	return pipeline
}
