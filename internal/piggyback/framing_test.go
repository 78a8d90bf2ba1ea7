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
				}
				first := len(s.seen) + read
				s.notify(notification)
				u.size = func() int { return first - len(u.got) }
				for len(u.got) < first {
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

// pieces is a server that sends one piece, and notes whether more is waited for.
type pieces struct {
	first, second []byte
	waited        bool
}

func (p *pieces) Write(b []byte) (int, error) { return len(b), nil }

func (p *pieces) Read(b []byte) (n int, err error) {
	if len(p.first) == 0 {
		p.waited = true
		p.first, p.second = p.second, nil
	}
	n = copy(b, p.first)
	p.first = p.first[n:]
	return n, nil
}

func TestAReadDoesNotWaitForMoreOnceItHasSomething(t *testing.T) {
	parse, bind := &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}
	all := encodeAll(t, row, complete("SELECT 1"), ready, parse, bind, row, complete("SELECT 1"), ready)
	first := encodeAll(t, row, complete("SELECT 1"))
	for cut := 1; cut < len(all); cut++ {
		s := &pieces{first: all[:cut], second: all[cut:]}
		c := New(s, s)
		c.Behind(questionMsgs)
		_, err := c.Write(encode(query(sqlRows)))
		require.NoError(t, err)
		p := make([]byte, 8192)
		n, err := c.Read(p)
		require.NoError(t, err)
		require.LessOrEqual(t, n, len(all)-cut+len(first))
		require.Equal(t, cut < headerLen, s.waited, "%d bytes came", cut)
	}
}
