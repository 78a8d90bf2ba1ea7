package script

import (
	"io"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Session is one connection that was let in.
type Session struct {
	server   *Server
	conn     net.Conn
	backend  *pgproto3.Backend
	number   int
	txStatus byte
	script   Script
	prepared map[string]string
	portals  map[string]portal
	skipping bool // an error of the extended protocol: up to Sync
}

type portal struct {
	sql     string
	formats []int16
}

// Number returns which connection of the server this is, from 1, refused ones included. It is also its PID.
func (s *Session) Number() int { return s.number }

// TxStatus returns 'I' outside a transaction, 'T' in one, 'E' in a failed one, before the statement that is being run.
func (s *Session) TxStatus() byte { return s.txStatus }

// Announce sends a ParameterStatus, such as in_hot_standby off after a promotion, with the next answer.
func (s *Session) Announce(name, value string) {
	s.backend.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
}

// defaultParameters are what pgx reads, and what a server of that version reports.
var defaultParameters = map[string]string{
	"server_version": "17.0", "client_encoding": "UTF8", "server_encoding": "UTF8", "DateStyle": "ISO, MDY",
	"TimeZone": "UTC", "integer_datetimes": "on", "standard_conforming_strings": "on", "in_hot_standby": "off",
	"default_transaction_read_only": "off",
}

// Serve lets the client in and answers its statements as the script says.
func Serve(script Script) Conversation {
	return Conversation{serve: func(s *Session) {
		s.script = script
		s.prepared, s.portals = make(map[string]string), make(map[string]portal)
		parameters := maps.Clone(defaultParameters)
		maps.Copy(parameters, script.Parameters)
		s.backend.Send(&pgproto3.AuthenticationOk{})
		for _, name := range slices.Sorted(maps.Keys(parameters)) {
			s.backend.Send(&pgproto3.ParameterStatus{Name: name, Value: parameters[name]})
		}
		s.backend.Send(&pgproto3.BackendKeyData{ProcessID: uint32(s.number), SecretKey: []byte{0, 0, 0, 1}})
		if s.ready() != nil {
			return
		}
		for {
			msg, err := s.backend.Receive()
			if err != nil {
				return
			}
			if !s.answer(msg) {
				return
			}
		}
	}}
}

func (s *Session) send(msg pgproto3.BackendMessage) error {
	s.backend.Send(msg)
	return s.backend.Flush()
}

func (s *Session) ready() error { return s.send(&pgproto3.ReadyForQuery{TxStatus: s.txStatus}) }

// answer returns whether the connection goes on.
func (s *Session) answer(msg pgproto3.FrontendMessage) bool {
	if _, ok := msg.(*pgproto3.Sync); s.skipping && !ok {
		return true
	}
	switch m := msg.(type) {
	case *pgproto3.Query:
		for _, sql := range statements(m.String) {
			if ok := s.run(sql, nil, true); !ok {
				return false
			}
			if s.skipping {
				break
			}
		}
		s.skipping = false
		return s.ready() == nil
	case *pgproto3.Parse:
		s.prepared[m.Name] = m.Query
		s.server.mu.Lock()
		s.server.prepared = append(s.server.prepared, m.Name)
		s.server.mu.Unlock()
		s.backend.Send(&pgproto3.ParseComplete{})
	case *pgproto3.Describe:
		s.describe(m)
	case *pgproto3.Bind:
		sql, ok := s.prepared[m.PreparedStatement]
		if !ok {
			return s.fail(Error("26000", "prepared statement does not exist"))
		}
		s.portals[m.DestinationPortal] = portal{sql: sql, formats: slices.Clone(m.ResultFormatCodes)}
		s.backend.Send(&pgproto3.BindComplete{})
	case *pgproto3.Execute:
		p := s.portals[m.Portal]
		ok := s.run(p.sql, p.formats, false)
		return ok
	case *pgproto3.Close:
		s.backend.Send(&pgproto3.CloseComplete{})
	case *pgproto3.Sync:
		s.skipping = false
		return s.ready() == nil
	case *pgproto3.Flush:
		return s.backend.Flush() == nil
	case *pgproto3.Terminate:
		return false
	}
	return true
}

func (s *Session) describe(m *pgproto3.Describe) {
	sql := s.portals[m.Name].sql
	if m.ObjectType == 'S' {
		sql = s.prepared[m.Name]
		// Type 0 leaves the choice of the form to the client, by the Go type.
		s.backend.Send(&pgproto3.ParameterDescription{ParameterOIDs: make([]uint32, parameters(sql))})
	}
	var columns []Column
	if s.script.Columns != nil {
		columns = s.script.Columns(sql)
	}
	if len(columns) == 0 {
		s.backend.Send(&pgproto3.NoData{})
		return
	}
	s.backend.Send(rowDescription(columns, nil))
}

// run answers one statement and returns whether the connection goes on.
func (s *Session) run(sql string, formats []int16, describe bool) (ok bool) {
	s.server.mu.Lock()
	s.server.queries = append(s.server.queries, sql)
	s.server.mu.Unlock()
	if sql == "" || strings.HasPrefix(sql, "--") {
		s.backend.Send(&pgproto3.EmptyQueryResponse{})
		return true
	}
	verb := strings.ToUpper(strings.Fields(sql)[0])
	ends := verb == "COMMIT" || verb == "ROLLBACK" || verb == "END" || verb == "ABORT"
	if s.txStatus == 'E' && !ends {
		return s.fail(Error("25P02", "current transaction is aborted, commands ignored until end of transaction block"))
	}
	var r Result
	if s.script.Run != nil {
		r = s.script.Run(s, sql)
	}
	if r.Notice != nil {
		s.backend.Send(r.Notice)
	}
	switch {
	case r.Hang:
		_ = s.backend.Flush()
		_, _ = io.Copy(io.Discard, s.conn)
		return false
	case r.Err != nil:
		goesOn := s.fail(r.Err) && !r.Close
		if ends {
			s.txStatus = 'I' // a failed COMMIT has rolled back
		}
		return goesOn
	case r.Close:
		_ = s.backend.Flush()
		return false
	}
	if describe && len(r.Columns) > 0 {
		s.backend.Send(rowDescription(r.Columns, formats))
	}
	for _, row := range r.Rows {
		values := make([][]byte, len(row))
		for i, text := range row {
			values[i] = encode(text, r.Columns[i].OID, formatOf(formats, i))
		}
		s.backend.Send(&pgproto3.DataRow{Values: values})
	}
	tag := r.Tag
	if tag == "" {
		tag = s.usualTag(sql, verb, len(r.Rows))
	}
	s.follow(sql, verb)
	s.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
	if r.After != nil {
		_ = s.send(r.After)
		return false
	}
	return true
}

// fail sends an error; a FATAL one ends the connection.
func (s *Session) fail(e *pgproto3.ErrorResponse) bool {
	if s.txStatus == 'T' {
		s.txStatus = 'E'
	}
	s.skipping = true
	if err := s.send(e); err != nil {
		return false
	}
	return e.Severity != "FATAL" && e.Severity != "PANIC"
}

// follow keeps the transaction status.
func (s *Session) follow(sql, verb string) {
	switch verb {
	case "DISCARD":
		clear(s.prepared)
	case "BEGIN", "START":
		s.txStatus = 'T'
	case "COMMIT", "END", "ABORT":
		s.txStatus = 'I'
	case "ROLLBACK":
		s.txStatus = 'I'
		if strings.Contains(strings.ToUpper(sql), " TO ") { // a savepoint
			s.txStatus = 'T'
		}
	}
}
