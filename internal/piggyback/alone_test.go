package piggyback

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// between returns messages that a server may send at any time.
func between(n int) func() pgproto3.BackendMessage {
	list := []pgproto3.BackendMessage{
		&pgproto3.NoticeResponse{Severity: "NOTICE", Message: "there is something"},
		&pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"},
		&pgproto3.NotificationResponse{PID: 1, Channel: "c", Payload: "something happened"},
	}
	turn := -1
	return func() pgproto3.BackendMessage {
		if turn++; turn%(n+1) == n { // n of them before each answer
			return nil
		}
		return list[turn%len(list)]
	}
}

func TestAQueryIsSentOnceBeginIsAnsweredWhereItMustTravelAlone(t *testing.T) {
	for _, asks := range []bool{false, true} {
		s := newServer()
		s.async, s.ahead, s.asked = between(3), true, asks
		u := newUser(t, s)
		u.conn.Begin(beginMsgs, true)
		if asks {
			u.conn.Behind(questionMsgs)
		}
		u.send(query(sqlRows))
		require.Equal(t, 2, s.writes)
		require.False(t, u.conn.Waits())
		require.Equal(t, byte('T'), u.conn.Status('I'))
		u.await(1)
		require.ErrorIs(t, u.rest(), errNothing)
		u.sawAll(s)
		require.Equal(t, "I begin", s.ran[0])
		require.Equal(t, "T rows", s.ran[1])
		answer, values := u.conn.Answer()
		if asks {
			require.Equal(t, Answered, answer)
			require.Equal(t, answered, values)
		} else {
			require.Equal(t, NoAnswer, answer)
		}
	}
}

func TestAStatementOfTheExtendedProtocolCarriesBeginAlsoWhereAQueryMustNot(t *testing.T) {
	s := newServer()
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, true)
	u.send(executed(sqlRows)...)
	require.Equal(t, 1, s.writes)
	u.await(1)
	u.sawAll(s)
}

func TestAQueryIsNotSentWhereBeginWasRefused(t *testing.T) {
	s := newServer()
	s.async, s.ahead, s.refuse = between(2), true, "ERROR"
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, true)
	u.conn.Behind(questionMsgs)
	u.send(query(sqlRows)) // as if it had been
	require.Equal(t, 1, s.writes)
	require.True(t, u.conn.Refused())
	u.await(1)
	require.ErrorIs(t, u.rest(), errNothing)
	u.sawAll(s)
	require.Equal(t, byte('E'), u.conn.Status(u.status))
	require.Equal(t, []string{"I begin"}, s.ran)
}

func TestAFatalInPlaceOfTheAnswerToBeginIsRead(t *testing.T) {
	s := newServer()
	s.async, s.ahead, s.refuse = between(1), true, "FATAL"
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, true)
	u.send(query(sqlRows))
	require.True(t, u.conn.Refused())
	require.ErrorIs(t, u.rest(), io.EOF)
	u.sawAll(s)
}

func TestAQueryIsNotSentWhereTheConnectionIsLostBeforeBeginIsAnswered(t *testing.T) {
	for answered := range len(encodeAll(t, &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, &pgproto3.CommandComplete{CommandTag: []byte("BEGIN")})) {
		s := newServer()
		w := &recorder{}
		u := newUser(t, s)
		u.conn.w = w
		s.sent = encodeAll(t, &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, &pgproto3.CommandComplete{CommandTag: []byte("BEGIN")})[:answered]
		s.ended = true
		u.conn.Begin(beginMsgs, true)
		n, err := u.conn.Write(encode(query(sqlRows)))
		require.ErrorIs(t, err, io.EOF)
		require.Zero(t, n, "nothing of it was sent")
		require.Equal(t, append(bytes.Clone(beginMsgs), syncMsg...), w.got)
		require.Equal(t, byte('T'), u.conn.Status('I'))
	}
}

func TestADeadlineBeforeBeginIsAnsweredIsThatOfTheWrite(t *testing.T) {
	s := newServer()
	s.timeout = func() bool { return true }
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, true)
	n, err := u.conn.Write(encode(query(sqlRows)))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Zero(t, n)
	require.Equal(t, []string{"I begin"}, s.ran)
}

func TestNoticesBeforeTheAnswerToBeginAreBounded(t *testing.T) {
	s := newServer()
	for range 70 {
		s.notify(&pgproto3.NoticeResponse{Message: string(make([]byte, 1000))})
	}
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, true)
	_, err := u.conn.Write(encode(query(sqlRows)))
	require.ErrorIs(t, err, errNotices)
	require.LessOrEqual(t, cap(u.conn.held), 2*maxHeld)
}

func TestNoticesThatWereHeldTakeNoMemoryOnceTheyAreRead(t *testing.T) {
	s := newServer()
	s.ahead = true
	for range 60 {
		s.notify(&pgproto3.NoticeResponse{Message: string(make([]byte, 1000))})
	}
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, true)
	u.send(query(sqlRows))
	require.NotNil(t, u.conn.held)
	u.await(1)
	u.sawAll(s)
	require.Nil(t, u.conn.held)
}

func encodeAll(t *testing.T, msgs ...pgproto3.BackendMessage) (b []byte) {
	for _, m := range msgs {
		var err error
		b, err = m.Encode(b)
		require.NoError(t, err)
	}
	return b
}
