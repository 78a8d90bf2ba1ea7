package piggyback

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// encode returns messages as they are sent.
func encode(msgs ...pgproto3.FrontendMessage) (b []byte) {
	for _, m := range msgs {
		var err error
		if b, err = m.Encode(b); err != nil {
			panic(err)
		}
	}
	return b
}

func query(sql string) pgproto3.FrontendMessage { return &pgproto3.Query{String: sql} }

// statement is a statement of the extended protocol, without Sync.
func statement(sql string) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Execute{}}
}

// executed is a flight with a Sync at its end.
func executed(sqls ...string) (msgs []pgproto3.FrontendMessage) {
	for _, sql := range sqls {
		msgs = append(msgs, statement(sql)...)
	}
	return append(msgs, &pgproto3.Sync{})
}

// prepared is the flight that prepares a statement.
func prepared() []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{&pgproto3.Parse{Name: "s", Query: sqlRows}, &pgproto3.Describe{ObjectType: 'S', Name: "s"}, &pgproto3.Sync{}}
}

var (
	beginMsgs    = encode(statement(sqlBegin)...)
	questionMsgs = encode(statement(sqlQuestion)...)
	endMsgs      = encode(statement(sqlEnd)...)
	answered     = [][]byte{[]byte("4711"), nil, []byte("read committed")}
)

// user uses a Conn as pgx does: it writes a flight, and reads until all that it awaits is there, and perhaps beyond.
type user struct {
	t    testing.TB
	conn *Conn
	size func() int // of what it reads into; nil: that of pgx's buffer

	patient bool // a deadline that has passed does not end its reading

	buf    []byte
	got    []byte
	at     int  // of the first message in got that was not looked at
	ready  int  // how often ReadyForQuery was seen
	status byte // what it knows, as pgx does: of the last ReadyForQuery
}

func newUser(t testing.TB, s *server) *user {
	return &user{t: t, conn: New(s, s), status: 'I'}
}

// send writes messages.
func (u *user) send(msgs ...pgproto3.FrontendMessage) {
	u.t.Helper()
	p := encode(msgs...)
	n, err := u.conn.Write(p)
	require.NoError(u.t, err)
	require.Equal(u.t, len(p), n)
}

// read reads once, and looks at the messages that are complete.
func (u *user) read() error {
	size := 8192
	if u.size != nil {
		size = u.size()
	}
	if u.buf == nil {
		u.buf = make([]byte, 8192)
	}
	p := u.buf[:min(size, len(u.buf))]
	n, err := u.conn.Read(p)
	if u.patient && errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	u.got = append(u.got, p[:n]...)
	for {
		rest := u.got[u.at:]
		if len(rest) < headerLen {
			return err
		}
		size := 1 + int(binary.BigEndian.Uint32(rest[1:]))
		if len(rest) < size {
			return err
		}
		if rest[0] == msgReady {
			u.ready++
			u.status = rest[headerLen]
		}
		u.at += size
	}
}

// await reads until ReadyForQuery was seen n times more.
func (u *user) await(n int) {
	u.t.Helper()
	for n += u.ready; u.ready < n; {
		require.NoError(u.t, u.read())
	}
}

// rest reads until nothing more comes, and returns why.
func (u *user) rest() error {
	for {
		if err := u.read(); err != nil {
			return err
		}
	}
}

// saw returns the types of the messages that were read.
func (u *user) saw() (types string) {
	for b := u.got; len(b) >= headerLen; {
		types += string(b[:1])
		b = b[min(len(b), 1+int(binary.BigEndian.Uint32(b[1:]))):]
	}
	return types
}

// sawAll requires that everything was read that is for the user, and nothing else.
func (u *user) sawAll(s *server) {
	u.t.Helper()
	require.Equal(u.t, types(s.seen), types(u.got))
	require.Equal(u.t, s.seen, u.got)
}

func types(b []byte) string { return (&user{got: b}).saw() }
