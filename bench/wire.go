package main

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// wire is a connection to a PostgreSQL server that takes no time: it answers while it is written to, from memory, without a
// goroutine. What is left of a statement is the client's own work.
//
// It knows two statements: one that begins with "select" has one row, the number 1; any other has none.
type wire struct {
	mu      sync.Mutex
	more    *sync.Cond // answers, closed or expired has changed
	asked   []byte     // of messages that are not complete
	answers []byte
	begun   bool            // the startup message was read
	selects map[string]bool // by name of the prepared statement
	bound   bool            // whether the portal is a select
	closed  bool
	expired bool // the deadline has passed
}

// dialWire is a pgconn.DialFunc.
func dialWire(context.Context, string, string) (net.Conn, error) {
	w := &wire{selects: make(map[string]bool)}
	w.more = sync.NewCond(&w.mu)
	return w, nil
}

// The answers, encoded once.
var (
	wireHello = encode(
		&pgproto3.AuthenticationOk{},
		&pgproto3.ParameterStatus{Name: "server_version", Value: "17.0"},
		&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"},
		&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"},
		&pgproto3.ParameterStatus{Name: "in_hot_standby", Value: "off"},
		&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	)
	wireParsed = encode(&pgproto3.ParseComplete{})
	wireBound  = encode(&pgproto3.BindComplete{})
	wireClosed = encode(&pgproto3.CloseComplete{})
	wireNoData = encode(&pgproto3.NoData{})
	wireArg    = encode(&pgproto3.ParameterDescription{ParameterOIDs: []uint32{20}})
	wireColumn = encode(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{
		Name: []byte("value"), DataTypeOID: 20, DataTypeSize: 8, TypeModifier: -1, Format: 1,
	}}})
	wireEmpty    = encode(&pgproto3.EmptyQueryResponse{})
	wireReady    = encode(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	wireRow      = encode(&pgproto3.DataRow{Values: [][]byte{{0, 0, 0, 0, 0, 0, 0, 1}}}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
	wireInserted = encode(&pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")})
)

func encode(messages ...pgproto3.BackendMessage) (b []byte) {
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			panic(err) // a constant of this file is wrong
		}
	}
	return b
}

// Write takes messages of the client and answers those that are complete.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, net.ErrClosed
	}
	w.asked = append(w.asked, b...)
	rest := w.asked
	for {
		header := 1 // the type; the startup message has none
		if !w.begun {
			header = 0
		}
		if len(rest) < header+4 {
			break
		}
		size := header + int(binary.BigEndian.Uint32(rest[header:]))
		if len(rest) < size {
			break
		}
		w.answer(rest[:size])
		rest = rest[size:]
	}
	w.asked = w.asked[:copy(w.asked, rest)]
	w.more.Broadcast()
	return len(b), nil
}

// answer answers one message.
func (w *wire) answer(message []byte) {
	if !w.begun {
		w.begun = true
		w.answers = append(w.answers, wireHello...)
		return
	}
	body := message[5:]
	switch message[0] {
	case 'P':
		name, text, _ := strings.Cut(string(body), "\x00")
		w.selects[name] = strings.HasPrefix(text, "select")
		w.answers = append(w.answers, wireParsed...)
	case 'D':
		selects := w.bound
		if body[0] == 'S' {
			w.answers = append(w.answers, wireArg...)
			selects = w.selects[string(until0(body[1:]))]
		}
		if selects {
			w.answers = append(w.answers, wireColumn...)
		} else {
			w.answers = append(w.answers, wireNoData...)
		}
	case 'B':
		portal := until0(body)
		w.bound = w.selects[string(until0(body[len(portal)+1:]))]
		w.answers = append(w.answers, wireBound...)
	case 'E':
		if w.bound {
			w.answers = append(w.answers, wireRow...)
		} else {
			w.answers = append(w.answers, wireInserted...)
		}
	case 'C':
		w.answers = append(w.answers, wireClosed...)
	case 'Q': // a ping
		w.answers = append(append(w.answers, wireEmpty...), wireReady...)
	case 'S':
		w.answers = append(w.answers, wireReady...)
	}
}

func until0(b []byte) []byte {
	for i, c := range b {
		if c == 0 {
			return b[:i]
		}
	}
	return b
}

// Read waits for an answer.
func (w *wire) Read(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.answers) == 0 {
		switch {
		case w.closed:
			return 0, net.ErrClosed
		case w.expired:
			return 0, os.ErrDeadlineExceeded
		}
		w.more.Wait()
	}
	n := copy(b, w.answers)
	w.answers = w.answers[:copy(w.answers, w.answers[n:])]
	return n, nil
}

// Close ends a waiting Read.
func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.more.Broadcast()
	return nil
}

// SetDeadline knows only deadlines that have passed already, with which pgx ends what waits.
func (w *wire) SetDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expired = !t.IsZero() && !t.After(time.Now())
	w.more.Broadcast()
	return nil
}

// SetReadDeadline is SetDeadline.
func (w *wire) SetReadDeadline(t time.Time) error { return w.SetDeadline(t) }

// SetWriteDeadline does nothing: a Write does not wait.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr returns the name of the connection.
func (w *wire) LocalAddr() net.Addr { return wireAddr{} }

// RemoteAddr returns the name of the connection.
func (w *wire) RemoteAddr() net.Addr { return wireAddr{} }

type wireAddr struct{}

func (wireAddr) Network() string { return "wire" }
func (wireAddr) String() string  { return "wire" }
