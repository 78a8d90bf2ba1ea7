package driver_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// A server that no longer reads fills the buffers between, and then TCP_USER_TIMEOUT ends the connection.
func TestPeerThatStoppedReadingIsGivenUpAfterTCPUserTimeout(t *testing.T) {
	s := newScene(t, newServer(t))
	// Made first: a connection that has been idle for a second would be pinged.
	long := "insert into t select length('" + strings.Repeat("x", 64<<20) + "')"
	db := s.open(ours, "tcp_user_timeout=300ms")
	s.warm(db)
	s.proxy.SetFaults(pgtest.Faults{StallUp: true}, pgtest.Existing)
	_, err := db.ExecContext(s.context(), long)
	if !errors.Is(err, syscall.EPIPE) { // pgx reads while it writes: reading may have got the error, and writing that it is over
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
	}
	requireLost(t, err)
	require.Equal(t, retrypg.Class{
		Retry: retrypg.RetryReconnect, Outcome: retrypg.OutcomeUnknown, Reason: retrypg.Classify(err).Reason,
	}, retrypg.Classify(err))
	require.NoError(t, db.PingContext(s.context()))
	s.settle()
	require.Zero(t, s.rows())
}
