package piggyback

import (
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

var rollbackMsgs = encode(statement(sqlRollback)...)

// nextFlights are flights that the user may send next, and what the server runs of them.
func nextFlights() map[string][]pgproto3.FrontendMessage {
	return map[string][]pgproto3.FrontendMessage{
		"a Query":       msgs(query(sqlRows)),
		"an execution":  executed(sqlRows),
		"two":           executed(sqlRows, sqlRows),
		"large":         executed(sqlLarge),
		"a preparation": prepared(),
		"nothing":       msgs(query(sqlEmpty)),
	}
}

// begunAgain returns a user in a transaction, in which it has read something.
func begunAgain(t testing.TB, s *server) *user {
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, false)
	u.send(executed(sqlRows)...)
	u.await(1)
	require.Equal(t, byte('T'), u.status)
	s.ran = nil
	return u
}

func TestATransactionThatBeginsAgainEndsTheOldOneFirstAndItsUserSeesNeither(t *testing.T) {
	for name, flight := range nextFlights() {
		for _, asks := range []bool{false, true} {
			for _, size := range []int{1, 3, 8192} {
				t.Run(fmt.Sprint(name, asks, size), func(t *testing.T) {
					s := newServer()
					u := begunAgain(t, s)
					s.async, u.size = between(2), func() int { return size }
					u.conn.BeginAgain(rollbackMsgs, beginMsgs)
					require.True(t, u.conn.Waits())
					require.Equal(t, byte('T'), u.conn.Status(u.status))
					if asks {
						u.conn.Behind(questionMsgs)
					}
					_, simple := flight[0].(*pgproto3.Query)
					s.asked = asks && simple
					writes := s.writes
					u.send(flight...)
					require.Equal(t, writes+1, s.writes, "all in one flight")
					require.False(t, u.conn.Waits())
					u.await(1)
					require.ErrorIs(t, u.rest(), errNothing)
					u.sawAll(s)
					require.Equal(t, []string{"T rollback", "I begin"}, s.ran[:2])
					for _, ran := range s.ran[2:] {
						require.Equal(t, byte('T'), ran[0], "%s ran outside", ran)
					}
					require.Equal(t, byte('T'), u.conn.Status(u.status))
					u.send(executed(sqlRows)...)
					u.await(1)
					require.Equal(t, byte('T'), u.status)
				})
			}
		}
	}
}

func TestNothingOfAFlightIsRunWhereItsTransactionCannotBeginAgain(t *testing.T) {
	for _, k := range []struct{ stays, refuse string }{{"", "ERROR"}, {"", "FATAL"}, {"ERROR", ""}, {"FATAL", ""}} {
		for name, flight := range nextFlights() {
			for _, size := range []int{1, 8192} {
				t.Run(fmt.Sprint(k, name, size), func(t *testing.T) {
					s := newServer()
					u := begunAgain(t, s)
					s.async, u.size = between(3), func() int { return size }
					s.stays, s.refuse = k.stays, k.refuse
					u.conn.BeginAgain(rollbackMsgs, beginMsgs)
					u.send(flight...)
					err := u.rest()
					require.True(t, u.conn.Refused())
					require.Equal(t, byte('E'), u.conn.Status(u.status))
					require.NotContains(t, fmt.Sprint(s.ran), sqlRows)
					require.NotContains(t, fmt.Sprint(s.ran), sqlLarge)
					switch {
					case k.stays == "FATAL" || k.refuse == "FATAL":
						require.ErrorIs(t, err, io.EOF)
						return
					case k.stays != "":
						require.Equal(t, byte('E'), u.status, "which its user must end")
						require.Equal(t, []string{"T rollback"}, s.ran)
					default:
						require.Equal(t, byte('I'), u.status)
						require.Equal(t, []string{"T rollback", "I begin"}, s.ran)
					}
					require.ErrorIs(t, err, errNothing)
					u.sawAll(s)
				})
			}
		}
	}
}

func TestATransactionThatWasToBeginAgainIsStillTheOldOneWhereThatIsForgotten(t *testing.T) {
	s := newServer()
	u := begunAgain(t, s)
	u.conn.BeginAgain(rollbackMsgs, beginMsgs)
	u.conn.Reset()
	require.Equal(t, byte('T'), u.conn.Status(u.status))
	u.send(query(sqlRollback))
	require.Equal(t, []string{"T rollback"}, s.ran)
	require.Equal(t, byte('I'), s.status)
}

func TestATransactionBeginsAgainAsOftenAsItIsAskedTo(t *testing.T) {
	s := newServer()
	u := begunAgain(t, s)
	for range 3 {
		u.conn.BeginAgain(rollbackMsgs, beginMsgs)
		u.conn.BeginAgain(rollbackMsgs, beginMsgs) // nothing was sent between
		u.send(executed(sqlRows)...)
		u.await(1)
		require.Equal(t, []string{"T rollback", "I begin", "T rows"}, s.ran)
		s.ran = nil
	}
	u.conn.Reset()
	s.status = 'I'
	u.conn.Begin(beginMsgs, false)
	u.send(executed(sqlRows)...)
	u.await(1)
	require.Equal(t, []string{"I begin", "T rows"}, s.ran)
	u.sawAll(s)
}
