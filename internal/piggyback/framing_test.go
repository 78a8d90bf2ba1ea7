package piggyback

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// A connection that listens gets notifications at any time, and its user may have read the first part of one.
func TestAFlightMayBeginInTheMiddleOfANotification(t *testing.T) {
	notification := &pgproto3.NotificationResponse{PID: 1, Channel: "c", Payload: "something happened"}
	size := len(encodeAll(t, notification))
	for read := range size + 1 {
		for _, tracked := range []bool{false, true} {
			for _, single := range []bool{false, true} {
				s := newServer()
				u := newUser(t, s)
				if tracked { // what was read beyond the end of a flight
					s.status = 'T'
					u.conn.Behind(questionMsgs)
					s.asked = true
					u.send(query(sqlRows))
					s.asked, s.status = false, 'I'
					u.await(1)
				}
				s.notify(notification)
				u.size = func() int { return read - (len(u.got) - u.at) }
				if read > 0 {
					require.NoError(t, u.read())
				}
				u.size = nil

				s.ahead, s.asked = single, true
				u.conn.Begin(beginMsgs, single)
				u.conn.Behind(questionMsgs)
				u.send(query(sqlRows))
				u.await(1)
				require.ErrorIs(t, u.rest(), errNothing)
				u.sawAll(s)
				answer, values := u.conn.Answer()
				require.Equal(t, Answered, answer)
				require.Equal(t, answered, values)
			}
		}
	}
}

func TestWhereAMessageEndsIsKnownHoweverItIsRead(t *testing.T) {
	var b []byte
	ends := map[int]bool{0: true}
	for _, size := range []int{0, 1, 2, 4, 5, 6, 300, 0, 0, 5} {
		b = append(b, 'D', 0, 0, byte((size+4)>>8), byte(size+4))
		b = append(b, make([]byte, size)...)
		ends[len(b)] = true
	}
	for _, piece := range []int{1, 2, 3, 4, 5, 6, 7, 11, len(b)} {
		var f framing
		for at := 0; at < len(b); {
			n := min(piece, len(b)-at)
			f.follow(b[at : at+n])
			at += n
			require.Equal(t, !ends[at], f.inside(), "after %d bytes in pieces of %d", at, piece)
		}
	}
}

func TestWhatIsNotTheProtocolIsHandedOn(t *testing.T) {
	for _, garbage := range []string{"HTTP/1.1 400 Bad Request\r\n\r\n", "Z\x00\x00\x00\x03rest", "E\xff\xff\xff\xffrest", "E\x80\x00\x00\x00rest"} {
		for before := range 8 {
			s, u := inTransaction(t)
			s.sent = []byte(garbage[:before])
			require.Equal(t, garbage[:before], readAll(t, u.conn, before))
			u.conn.Behind(questionMsgs)
			_, err := u.conn.Write(encode(query(sqlRows)))
			require.NoError(t, err)
			s.sent = []byte(garbage[before:])
			require.Equal(t, garbage[before:], readAll(t, u.conn, len(garbage)-before))
		}
	}
}

// readAll reads n bytes.
func readAll(t *testing.T, c *Conn, n int) string {
	p := make([]byte, n)
	for at := 0; at < n; {
		m, err := c.Read(p[at:])
		require.NoError(t, err)
		at += m
	}
	return string(p)
}
