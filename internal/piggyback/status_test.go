package piggyback

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

func TestTheStatusIsThatOfTheTransactionInEveryPhase(t *testing.T) {
	for _, k := range []struct {
		name   string
		flight []pgproto3.FrontendMessage
		end    byte
	}{
		{"a Query", msgs(query(sqlRows)), 'T'},
		{"a Query that fails", msgs(query(sqlFail)), 'E'},
		{"a Query that ends it", msgs(query(sqlCommit)), 'I'},
		{"an execution", executed(sqlRows), 'T'},
	} {
		t.Run(k.name, func(t *testing.T) {
			s := newServer()
			u := newUser(t, s)
			require.Equal(t, byte('I'), u.conn.Status(u.status))
			u.conn.Begin(beginMsgs, false)
			require.Equal(t, byte('T'), u.conn.Status(u.status), "BEGIN waits")
			u.send(k.flight...)
			require.Equal(t, byte('T'), u.conn.Status(u.status), "BEGIN was sent")
			u.size = func() int { return 1 }
			for u.ready == 0 {
				require.Contains(t, []byte{'T', k.end}, u.conn.Status(u.status))
				require.NoError(t, u.read())
			}
			require.Equal(t, k.end, u.status)
			require.Equal(t, k.end, u.conn.Status(u.status), "the user has read to the end")
			u.status = 'I'
			require.Equal(t, k.end, u.conn.Status(u.status), "it has not looked at all that it has read")

			s.status = 'I'
			u.size = nil
			u.send(query(sqlRows))
			u.await(1)
			require.Equal(t, byte('I'), u.conn.Status(u.status), "what the user knows is true again")
		})
	}
}

func TestTheStatusIsTheUsersOwnOnceItHasReadWhatItHasNotWrittenHere(t *testing.T) {
	s := newServer()
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, false)
	u.send(query(sqlEmpty))
	u.await(1)
	require.Equal(t, byte('T'), u.conn.Status(u.status))
	_, err := s.Write(encode(executed(sqlFail)...)) // as pgconn's ExecBatch does, past the Frontend
	require.NoError(t, err)
	u.await(1)
	require.Equal(t, byte('E'), u.conn.Status(u.status))
	_, err = s.Write(encode(executed(sqlCommit)...))
	require.NoError(t, err)
	u.await(1)
	require.Equal(t, byte('I'), u.conn.Status(u.status))
}

func TestTheStatusOutlivesTheConnection(t *testing.T) {
	for _, prepares := range []bool{false, true} {
		s := newServer()
		u := newUser(t, s)
		u.conn.Begin(beginMsgs, false)
		u.conn.Behind(questionMsgs)
		if prepares {
			u.send(prepared()...)
		} else {
			u.send(query(sqlRows))
		}
		s.ended = true
		u.send(&pgproto3.Terminate{}) // pgx sends it on a goroutine of its own, at any time
		require.Equal(t, byte('T'), u.conn.Status('I'))
	}
}

func TestTheStatusIsThatOfTheFlightWhileTheUserWritesOn(t *testing.T) {
	s := newServer()
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, false)
	u.send(executed(sqlRows)...)
	p := make([]byte, 8192)
	_, err := u.conn.Read(p) // all of it, which the user has not looked at
	require.NoError(t, err)
	require.Equal(t, byte('T'), u.conn.Status('I'))
	u.send(executed(sqlRows)...)
	require.Equal(t, byte('T'), u.conn.Status('I'))
}
