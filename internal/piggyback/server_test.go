package piggyback

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The statements of the package's user that server knows.
const (
	sqlRows    = "rows"     // three rows
	sqlFail    = "fail"     // an ERROR
	sqlFatal   = "fatal"    // a FATAL behind the first row
	sqlEmpty   = ""         // EmptyQueryResponse
	sqlCommit  = "commit"   // ends the transaction
	sqlCopyIn  = "copy in"  // until CopyDone
	sqlCopyOut = "copy out" // three rows
	sqlLarge   = "large"    // rows larger than any buffer
)

// What travels. Their answers are not for the user.
const (
	sqlBegin    = "begin"
	sqlRollback = "rollback" // ends the transaction
	sqlQuestion = "question"
	sqlEnd      = "question that ends the transaction"
	sqlLock     = "lock"        // of the session
	sqlWithin   = "lock within" // takes it over, or fails
)

// errNothing is what a Read fails with that would wait for ever: the server has answered all that it got.
var errNothing = errors.New("nothing more comes: a user that waits would hang")

// server is a model of PostgreSQL's message loop (PostgresMain in src/backend/tcop/postgres.c): what is written to it is answered at
// once, in memory, and read from it in pieces. It notes which of its answers the user of a Conn is to see.
type server struct {
	refuse   string // the severity with which BEGIN fails; empty: it does not
	stays    string // the severity with which ROLLBACK fails
	noLock   string // the severity with which the lock fails
	noWithin bool   // what is within fails
	late     bool   // the lock had to be waited for
	noAnswer string // the severity with which the question fails
	async    func() pgproto3.BackendMessage
	piece    func(n int) int // how much of n bytes a Read returns; nil: all
	timeout  func() bool     // whether a Read fails with a deadline first; nil: never

	in       []byte // of a message that is not complete
	writes   int    // calls of Write
	prepared map[string]string
	portals  map[string]string
	status   byte
	extended bool // doing_extended_query_message
	skipping bool // ignore_till_sync
	copying  bool // COPY from the client
	ended    bool // the connection
	asked    bool // the answer that is next is to the question behind a Query
	locked   bool // the session has the lock
	apart    bool // the next Sync is that behind the lock
	ahead    bool // BEGIN travels by itself: its ReadyForQuery is not for the user

	queued []byte // answers that are not sent yet
	sent   []byte // answers that are, and were not read
	seen   []byte // of all answers, those that are for the user
	ran    []string
}

func newServer() *server {
	return &server{status: 'I', prepared: map[string]string{}, portals: map[string]string{}}
}

// Write takes messages and answers them.
func (s *server) Write(p []byte) (int, error) {
	s.writes++
	s.in = append(s.in, p...)
	for len(s.in) >= headerLen && !s.ended {
		size := 1 + int(s.in[1])<<24 + int(s.in[2])<<16 + int(s.in[3])<<8 + int(s.in[4])
		if len(s.in) < size {
			break
		}
		msg := s.in[:size]
		s.in = s.in[size:]
		s.take(msg)
	}
	return len(p), nil
}

// Read returns what was answered.
func (s *server) Read(p []byte) (int, error) {
	if s.timeout != nil && s.timeout() {
		return 0, os.ErrDeadlineExceeded
	}
	n := min(len(p), len(s.sent))
	switch {
	case n > 0:
	case s.ended:
		return 0, io.EOF
	case len(p) > 0:
		return 0, errNothing
	}
	if s.piece != nil {
		n = s.piece(n)
	}
	copy(p, s.sent[:n])
	s.sent = s.sent[n:]
	return n, nil
}

// say answers; hidden says that it is for the Conn and not for its user.
func (s *server) say(msg pgproto3.BackendMessage, hidden bool) {
	if s.async != nil {
		for m := s.async(); m != nil; m = s.async() {
			s.say1(m, false)
		}
	}
	s.say1(msg, hidden)
}

func (s *server) say1(msg pgproto3.BackendMessage, hidden bool) {
	b, err := msg.Encode(nil)
	if err != nil {
		panic(err)
	}
	s.queued = append(s.queued, b...)
	if !hidden {
		s.seen = append(s.seen, b...)
	}
}

// notify sends a message between two flights.
func (s *server) notify(msg pgproto3.BackendMessage) {
	s.say1(msg, false)
	s.flush()
}

func (s *server) flush() {
	s.sent = append(s.sent, s.queued...)
	s.queued = nil
}

func (s *server) ready(hidden bool) {
	s.say(&pgproto3.ReadyForQuery{TxStatus: s.status}, hidden)
	s.flush()
}

func (s *server) fail(severity, message string, hidden bool) {
	s.say(&pgproto3.ErrorResponse{Severity: severity, SeverityUnlocalized: severity, Code: "XX000", Message: message}, hidden)
	s.flush()
	if severity == "FATAL" {
		s.ended = true
		return
	}
	if s.status == 'T' {
		s.status = 'E'
	}
	s.skipping = s.extended
}

// take is one turn of the loop.
func (s *server) take(msg []byte) {
	typ, body := msg[0], msg[headerLen:]
	switch typ {
	case 'P', 'B', 'E', 'D', 'C', 'H':
		s.extended = true
	case 'Q', 'F':
		s.extended = false
	case 'S':
		s.extended, s.skipping = false, false
	}
	switch {
	case typ == 'X':
		s.ended = true
	case s.skipping:
	case s.copying && typ != 'd' && typ != 'c' && typ != 'f':
		if typ != 'S' && typ != 'H' {
			s.copying = false
			s.fail("ERROR", fmt.Sprintf("unexpected message type 0x%02X during COPY from stdin", typ), false)
			s.ready(false)
		}
	case typ == 'c' && s.copying:
		s.copying = false
		s.say(&pgproto3.CommandComplete{CommandTag: []byte("COPY 3")}, false)
		s.ready(false)
	case typ == 'f' && s.copying:
		s.copying = false
		s.fail("ERROR", "COPY from stdin failed", false)
		s.ready(false)
	case typ == 'd', typ == 'c', typ == 'f': // of a COPY that has failed
	case typ == 'Q':
		for _, sql := range strings.Split(string(body[:len(body)-1]), ";") {
			s.run(sql, false)
			if s.ended || s.copying {
				return
			}
			if s.status == 'E' {
				break
			}
		}
		s.ready(s.asked)
	case typ == 'F':
		s.ran = append(s.ran, string(s.status)+" function")
		s.say(&pgproto3.FunctionCallResponse{}, false)
		s.ready(false)
	case typ == 'S':
		hidden := s.apart || s.ahead && s.refuse == ""
		s.ahead, s.apart = s.ahead && s.apart, false
		s.ready(hidden)
	case typ == 'H':
		s.flush()
	default:
		s.extendedMessage(typ, body)
	}
}

func (s *server) extendedMessage(typ byte, body []byte) {
	first, rest := cstring(body)
	switch typ {
	case 'P':
		sql, _ := cstring(rest)
		if s.status == 'E' && !ends(sql) {
			s.fail("ERROR", "current transaction is aborted", sql == sqlQuestion && s.asked)
			return
		}
		s.prepared[first] = sql
		s.say(&pgproto3.ParseComplete{}, ours(sql))
	case 'B':
		name, _ := cstring(rest)
		s.portals[first] = s.prepared[name]
		s.say(&pgproto3.BindComplete{}, ours(s.portals[first]))
	case 'D':
		s.say(&pgproto3.ParameterDescription{}, false)
		s.say(&pgproto3.RowDescription{}, false)
	case 'C':
		s.say(&pgproto3.CloseComplete{}, false)
	case 'E':
		s.run(s.portals[first], true)
	}
}

func ours(sql string) bool {
	return sql == sqlBegin || sql == sqlRollback || strings.HasPrefix(sql, sqlLock) || strings.HasPrefix(sql, sqlQuestion)
}

// ends reports whether a statement is one that may be sent in a transaction that is aborted.
func ends(sql string) bool { return sql == sqlCommit || sql == sqlEnd || sql == sqlRollback }

func cstring(b []byte) (string, []byte) {
	i := bytes.IndexByte(b, 0)
	return string(b[:i]), b[i+1:]
}

func (s *server) run(sql string, extended bool) {
	if s.status == 'E' && !ends(sql) {
		s.fail("ERROR", "current transaction is aborted", false)
		return
	}
	s.ran = append(s.ran, string(s.status)+" "+sql)
	switch sql {
	case sqlBegin:
		if s.refuse != "" {
			s.fail(s.refuse, "no transaction for you", false)
			return
		}
		s.status = 'T'
		s.say(&pgproto3.CommandComplete{CommandTag: []byte("BEGIN")}, true)
	case sqlRollback:
		if s.stays != "" {
			s.fail(s.stays, "canceling statement due to user request", false)
			return
		}
		s.status = 'I'
		s.say(&pgproto3.CommandComplete{CommandTag: []byte("ROLLBACK")}, true)
	case sqlLock:
		if s.apart = true; s.noLock != "" {
			s.fail(s.noLock, "no lock for you", true)
			return
		}
		s.locked = true
		s.lockRow(s.late)
	case sqlWithin:
		if s.noWithin || !s.locked {
			s.fail("ERROR", "the lock is not there", true)
			return
		}
		s.lockRow(false)
	case sqlQuestion:
		if s.noAnswer != "" {
			s.fail(s.noAnswer, "no answer for you", s.asked && s.status != 'T' && s.noAnswer == "ERROR")
			return
		}
		s.say(&pgproto3.DataRow{Values: [][]byte{[]byte("4711"), nil, []byte("read committed")}}, true)
		s.say(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, true)
	case sqlEnd:
		tag := "COMMIT"
		if s.status == 'E' {
			tag = "ROLLBACK"
		}
		s.status = 'I'
		s.say(&pgproto3.CommandComplete{CommandTag: []byte(tag)}, true)
	case sqlEmpty:
		s.say(&pgproto3.EmptyQueryResponse{}, false)
	case sqlFail:
		s.fail("ERROR", "failed", false)
	case sqlFatal:
		s.say(&pgproto3.DataRow{Values: [][]byte{[]byte("1")}}, false)
		s.fail("FATAL", "terminating connection", false)
	case sqlCommit:
		s.status = 'I'
		s.say(&pgproto3.CommandComplete{CommandTag: []byte("COMMIT")}, false)
	case sqlCopyIn:
		s.copying = true
		s.say(&pgproto3.CopyInResponse{}, false)
		s.flush()
	case sqlCopyOut:
		s.say(&pgproto3.CopyOutResponse{}, false)
		for range 3 {
			s.say(&pgproto3.CopyData{Data: []byte("a row of a copy")}, false)
		}
		s.say(&pgproto3.CopyDone{}, false)
		s.say(&pgproto3.CommandComplete{CommandTag: []byte("COPY 3")}, false)
	default:
		if !extended {
			s.say(&pgproto3.RowDescription{}, false)
		}
		row := []byte("some value of a row")
		if sql == sqlLarge {
			row = bytes.Repeat([]byte("z"), bufferSize+17)
		}
		for range 3 {
			s.say(&pgproto3.DataRow{Values: [][]byte{row}}, false)
		}
		s.say(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 3")}, false)
	}
}

func (s *server) lockRow(late bool) {
	row := [][]byte{[]byte("t"), []byte("t")}
	if late {
		row[1] = []byte("f")
	}
	s.say(&pgproto3.DataRow{Values: row}, true)
	s.say(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, true)
}
