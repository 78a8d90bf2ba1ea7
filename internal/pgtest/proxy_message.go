package pgtest

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Direction says who sent a message.
type Direction uint8

const (
	FromClient Direction = iota
	FromServer
)

// Message is one message of the PostgreSQL protocol on its way through a [Proxy]. The type bytes are those of the
// PostgreSQL documentation, chapter "Message Formats".
type Message struct {
	Conn int64     // number of the connection, from 1, see ProxyConn.Number
	Dir  Direction // who sent it
	Type byte      // its type: 'Q' Query, 'C' CommandComplete or Close, 'Z' ReadyForQuery ...
	// SQL is the text it is about. From the client: of Query, Parse, Bind, Execute and Describe the statement, of
	// Sync the statement executed last since the previous Sync, "" if there was none. From the server: the statement
	// it answers.
	SQL string
	// Flight holds the texts of all statements that a Query or a Sync lets the server run, and a ReadyForQuery answers: those that
	// were executed since the last one, a Query's own included.
	Flight   []string
	Tag      string // of a CommandComplete
	Code     string // of an ErrorResponse or NoticeResponse, the SQLSTATE
	TxStatus byte   // of a ReadyForQuery: 'I' idle, 'T' in a transaction, 'E' in a failed one
	Row      int    // of a DataRow: its number, from 1, within the answer to its statement
	Body     []byte // what follows type and length; valid only during the call of a Match
}

// tracker follows one connection to tell which statement a message is about.
type tracker struct {
	statements map[string]string // name -> SQL, from Parse
	portals    map[string]string // name -> SQL, from Bind
	executed   []string          // the statements executed since the last Sync or Query
	pending    []request         // sent and not yet answered, oldest first
	pid        uint32            // from BackendKeyData
}

// request is something that the server answers: a Query or Sync with ReadyForQuery in the end, an Execute with
// CommandComplete or its like.
type request struct {
	kind   byte // 'Q', 'E' or 'S'
	sql    string
	flight []string // of a Query or Sync
	rows   int
}

func newTracker() tracker {
	return tracker{statements: make(map[string]string), portals: make(map[string]string)}
}

func (t *tracker) fromClient(m *Message) {
	switch m.Type {
	case 'Q':
		m.SQL, _ = cString(m.Body)
		m.Flight, t.executed = append(t.executed, m.SQL), nil
		t.push(request{kind: 'Q', sql: m.SQL, flight: m.Flight})
	case 'P':
		name, rest := cString(m.Body)
		m.SQL, _ = cString(rest)
		t.statements[name] = m.SQL
	case 'B':
		portal, rest := cString(m.Body)
		name, _ := cString(rest)
		m.SQL = t.statements[name]
		t.portals[portal] = m.SQL
	case 'D', 'C':
		if len(m.Body) == 0 {
			return
		}
		names := t.portals
		if m.Body[0] == 'S' {
			names = t.statements
		}
		name, _ := cString(m.Body[1:])
		m.SQL = names[name]
		if m.Type == 'C' {
			delete(names, name)
		}
	case 'E':
		portal, _ := cString(m.Body)
		m.SQL = t.portals[portal]
		t.executed = append(t.executed, m.SQL)
		t.push(request{kind: 'E', sql: m.SQL})
	case 'F':
		t.push(request{kind: 'Q'}) // the function call of old: answered like a Query
	case 'S':
		m.Flight, t.executed = t.executed, nil
		if n := len(m.Flight); n > 0 {
			m.SQL = m.Flight[n-1]
		}
		t.push(request{kind: 'S', sql: m.SQL, flight: m.Flight})
	}
}

func (t *tracker) push(r request) { t.pending = append(t.pending, r) }

// unsend forgets the request that the last message made, because the server does not get it.
func (t *tracker) unsend(m Message) {
	if n := len(t.pending); n > 0 && (m.Type == 'Q' || m.Type == 'E' || m.Type == 'S' || m.Type == 'F') {
		t.pending = t.pending[:n-1]
	}
}

func (t *tracker) fromServer(m *Message) {
	var head *request
	if len(t.pending) > 0 {
		head = &t.pending[0]
		m.SQL = head.sql
	}
	switch m.Type {
	case 'K':
		if len(m.Body) >= 4 {
			t.pid = binary.BigEndian.Uint32(m.Body)
		}
	case 'D':
		if head != nil {
			head.rows++
			m.Row = head.rows
		}
	case 'C':
		m.Tag, _ = cString(m.Body)
		t.answered(head)
	case 'I', 's': // an empty query, a portal with more rows to fetch
		t.answered(head)
	case 'E':
		m.Code = errorField(m.Body, 'C')
		// The server skips everything up to the next Sync, a Query too.
		if head != nil && head.kind == 'E' {
			end := slices.IndexFunc(t.pending, func(r request) bool { return r.kind == 'S' })
			if end < 0 {
				end = len(t.pending)
			}
			t.pending = t.pending[end:]
		}
	case 'N':
		m.Code = errorField(m.Body, 'C')
	case 'Z':
		if len(m.Body) > 0 {
			m.TxStatus = m.Body[0]
		}
		if end := slices.IndexFunc(t.pending, func(r request) bool { return r.kind != 'E' }); end >= 0 {
			m.SQL, m.Flight = t.pending[end].sql, t.pending[end].flight
			t.pending = t.pending[end+1:]
		}
	}
}

// answered ends an Execute, and one statement of a Query.
func (t *tracker) answered(head *request) {
	switch {
	case head == nil:
	case head.kind == 'E':
		t.pending = t.pending[1:]
	default:
		head.rows = 0
	}
}

func cString(b []byte) (text string, rest []byte) {
	end := bytes.IndexByte(b, 0)
	if end < 0 {
		return string(b), nil
	}
	return string(b[:end]), b[end+1:]
}

// errorField returns a field of an ErrorResponse or NoticeResponse.
func errorField(body []byte, field byte) string {
	for len(body) > 1 && body[0] != 0 {
		text, rest := cString(body[1:])
		if body[0] == field {
			return text
		}
		body = rest
	}
	return ""
}

// splitMessage returns the first whole message of buf, length and type included, and nil when there is none yet. ok is
// false when buf cannot be the PostgreSQL protocol.
func splitMessage(buf []byte) (message []byte, ok bool) {
	const headLen = 5
	if len(buf) < headLen {
		return nil, true
	}
	n := int64(binary.BigEndian.Uint32(buf[1:]))
	const largest = 1 << 30 // PostgreSQL's own limit, PQ_LARGE_MESSAGE_LIMIT, is just below
	if n < 4 || n > largest {
		return nil, false
	}
	if int64(len(buf)) < n+1 {
		return nil, true
	}
	return buf[:n+1], true
}
