package script

import (
	"context"
	"io"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Conversation is what one connection meets. It is a value; use it as often as you like.
type Conversation struct {
	dial  func(ctx context.Context, closed <-chan struct{}) error // not nil: there is no connection
	serve func(*Session)                                          // after the startup message; nil: close
}

// Times returns a conversation n times, for [New].
func Times(n int, talk Conversation) []Conversation {
	talks := make([]Conversation, n)
	for i := range talks {
		talks[i] = talk
	}
	return talks
}

func refused() error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}

// Refused is a server that is not there: ECONNREFUSED.
func Refused() Conversation { return DialFails(refused()) }

// DialFails makes dialing return err.
func DialFails(err error) Conversation {
	return Conversation{dial: func(context.Context, <-chan struct{}) error { return err }}
}

// DialHangs makes dialing block until its context is done: a host that drops packets.
func DialHangs() Conversation {
	return Conversation{dial: func(ctx context.Context, closed <-chan struct{}) error {
		select {
		case <-ctx.Done():
			return &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
		case <-closed:
			return ErrClosed
		}
	}}
}

// Silent takes the startup message and never answers.
func Silent() Conversation {
	return Conversation{serve: func(s *Session) { _, _ = io.Copy(io.Discard, s.conn) }}
}

// Closes takes the startup message and closes the connection: a load balancer without a server.
func Closes() Conversation { return Conversation{} }

// Fatal refuses the connection with a FATAL error: "57P03" while a server starts, "28P01" for a wrong password.
func Fatal(code, message string) Conversation {
	return Conversation{serve: func(s *Session) { _ = s.send(failure("FATAL", code, message)) }}
}

// Error returns an ERROR for a Result.
func Error(code, message string) *pgproto3.ErrorResponse { return failure("ERROR", code, message) }

func failure(severity, code, message string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: message}
}

// Accept lets the client in and answers its statements with run, as [Serve] does.
func Accept(run func(s *Session, sql string) Result) Conversation { return Serve(Script{Run: run}) }

// Script says how a server that lets its clients in answers.
type Script struct {
	// Run answers one statement; nil, and the zero Result, mean a plain success. A Query that holds several, separated
	// by semicolons, is taken apart first, without regard to quotes. It is not asked for transaction commands in a
	// way that matters for the transaction status: that follows the text and the outcome. It runs on the goroutine of
	// the connection and may wait.
	Run func(s *Session, sql string) Result
	// Columns describes the rows of a statement of the extended protocol before it runs; nil means none.
	Columns func(sql string) []Column
	// Parameters are announced at the start, and replace defaults such as server_version.
	Parameters map[string]string
}

// Column is a column of a result.
type Column struct {
	Name string
	OID  uint32 // type; 0 means text (25). int8 (20), int4 (23) and bool (16) are sent in binary if asked for
}

// Result is the answer to one statement. The zero value is a success with the usual tag.
type Result struct {
	Columns []Column
	Rows    [][]string // text form
	Tag     string     // "" means the usual one: "INSERT 0 1", "SELECT n", "COMMIT"
	Err     *pgproto3.ErrorResponse
	Notice  *pgproto3.NoticeResponse // sent before the rest
	// After is a FATAL that ends the connection when the statement was done, and was said to be.
	After *pgproto3.ErrorResponse
	// Close ends the connection: with Err, after it; else before any answer, so that the client sees EOF.
	Close bool
	// Hang never answers; the client must give up.
	Hang bool
}

// Text is a result of one text column with the values as its rows.
func Text(values ...string) Result { return column(25, values) }

// Int8 is a result of one bigint column with the values, in decimal, as its rows.
func Int8(values ...string) Result { return column(20, values) }

func column(oid uint32, values []string) Result {
	r := Result{Columns: []Column{{Name: "value", OID: oid}}}
	for _, v := range values {
		r.Rows = append(r.Rows, []string{v})
	}
	return r
}
