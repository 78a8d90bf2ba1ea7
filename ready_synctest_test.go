package retrypg

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
	"github.com/retrypg/retrypg/policy"
)

func TestWaitReadyTellsEachChangeOfStateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(then(append(script.Times(3, script.Refused()), script.Times(4, startingUp)...))...)
		t.Cleanup(s.Close)
		var events []ReadyEvent
		require.NoError(t, WaitReady(t.Context(), scriptedDSN, onScript(s), WithReadyProgress(func(e ReadyEvent) { events = append(events, e) })))
		require.Len(t, events, 3)
		require.Equal(t, 1, events[0].Attempts)
		require.Equal(t, RetryWait, events[0].Class.Retry)
		require.Equal(t, "the database system is starting up", events[1].State)
		require.Equal(t, 4, events[1].Attempts)
		require.Equal(t, "57P03", events[1].Class.SQLState)
		require.Error(t, events[1].Err)
		require.True(t, events[2].Ready)
		require.Equal(t, 8, events[2].Attempts)
		require.NoError(t, events[2].Err)
		require.Zero(t, events[2].Class)
	})
}

func TestWaitReadyReturnsWhatWaitingCannotHealAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Fatal("28P01", "password authentication failed"))
		t.Cleanup(s.Close)
		start := time.Now()
		err := WaitReady(t.Context(), scriptedDSN, onScript(s))
		require.Equal(t, "28P01", SQLState(err))
		require.Zero(t, time.Since(start))
		require.Len(t, s.Attempts(), 1)
	})
}

// deaf is a connection on which queries are not heard: a pooler that has no server to give.
type deaf struct{ net.Conn }

func (c deaf) Write(p []byte) (int, error) {
	if p[0] == 'Q' {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func TestWaitReadyWithoutADeadlineIsBoundedWhateverTheServerDoes(t *testing.T) {
	for name, talk := range map[string]script.Conversation{
		"starting up": startingUp, "silent": script.Silent(), "packets dropped": script.DialHangs(), "no answer to a ping": script.Accept(nil),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := script.New(talk)
				t.Cleanup(s.Close)
				start := time.Now()
				err := WaitReady(t.Context(), scriptedDSN, WithConnectMaxElapsed(8*time.Second), WithConnConfig(func(cfg *pgx.ConnConfig) error {
					cfg.LookupFunc = script.Lookup
					cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
						conn, err := s.Dial(ctx, network, addr)
						if err != nil {
							return nil, err
						}
						return deaf{conn}, nil
					}
					return nil
				}))
				require.ErrorContains(t, err, "server not ready")
				require.Equal(t, policy.StopMaxElapsed, requireExhausted(t, err).Reason)
				// Closing the connection of a ping that was not answered takes a second at most.
				require.LessOrEqual(t, time.Since(start), 9*time.Second)
				require.Greater(t, time.Since(start), 8*time.Second-probeMaxDelay)
			})
		})
	}
}

func TestWaitReadyEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(startingUp)
		t.Cleanup(s.Close)
		cause := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(2*time.Second, func() { cancel(cause) })
		start := time.Now()
		err := WaitReady(ctx, scriptedDSN, onScript(s))
		require.Equal(t, 2*time.Second, time.Since(start))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, cause)
		require.Equal(t, "57P03", SQLState(err))
	})
}

func TestWaitReadyDBWaitsForAnOpenDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(then(script.Times(5, startingUp))...)
		db := scripted(t, s)
		var last ReadyEvent
		require.NoError(t, WaitReadyDB(t.Context(), db, WithReadyProgress(func(e ReadyEvent) { last = e })))
		require.True(t, last.Ready)
		require.Len(t, s.Attempts(), 6)
	})
}
