// Package script plays a PostgreSQL server over net.Pipe, for unit tests in a testing/synctest bubble: no socket, no
// real time. What each connection meets is written down as a list of conversations.
package script

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Server is a scripted server. Its methods are safe for concurrent use. Close it inside the bubble.
type Server struct {
	work sync.WaitGroup
	done chan struct{} // closed by Close

	mu       sync.Mutex // guards the fields below
	talks    []Conversation
	attempts []time.Time
	queries  []string
	prepared []string // names
	cancels  int
	open     map[net.Conn]struct{}
	closed   bool
}

// New returns a server whose n-th connection meets the n-th conversation, and the last one for ever. A connection
// that brings a cancel request does not count. Without conversations every connection is accepted, see [Accept].
func New(talks ...Conversation) *Server {
	if len(talks) == 0 {
		talks = []Conversation{Accept(nil)}
	}
	return &Server{talks: slices.Clone(talks), done: make(chan struct{}), open: make(map[net.Conn]struct{})}
}

// Configure makes cfg connect to the server, whatever its hosts are, without a look-up of names.
func (s *Server) Configure(cfg *pgconn.Config) {
	cfg.DialFunc = s.Dial
	cfg.LookupFunc = Lookup
}

// Lookup is a pgconn.LookupFunc that returns the host itself.
func Lookup(_ context.Context, host string) ([]string, error) { return []string{host}, nil }

// ErrClosed is what dialing a closed server returns.
var ErrClosed = errors.New("script: the server is closed")

// pipe is the client's end of a connection. pgx sends a cancel request to the remote address of the connection it is
// about: the network of that address makes it known before it is read, so that it takes no conversation.
type pipe struct {
	net.Conn
	addr string
}

const pipeNetwork = "script"

func (p *pipe) RemoteAddr() net.Addr { return p }
func (p *pipe) Network() string      { return pipeNetwork }
func (p *pipe) String() string       { return p.addr }

// Dial is a pgconn.DialFunc. It blocks only for [DialHangs].
func (s *Server) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	if next := s.talks[0]; next.dial != nil && network != pipeNetwork {
		s.takeLocked()
		s.mu.Unlock()
		return nil, next.dial(ctx, s.done)
	}
	defer s.mu.Unlock()
	client, server := net.Pipe()
	s.open[server] = struct{}{}
	s.work.Go(func() {
		s.serve(server)
		_ = server.Close()
		s.mu.Lock()
		delete(s.open, server)
		s.mu.Unlock()
	})
	return &pipe{Conn: client, addr: addr}, nil
}

// takeLocked returns the conversation of a new connection.
func (s *Server) takeLocked() Conversation {
	s.attempts = append(s.attempts, time.Now())
	talk := s.talks[0]
	if len(s.talks) > 1 {
		s.talks = s.talks[1:]
	}
	return talk
}

// serve reads up to the startup message and goes on with the conversation.
func (s *Server) serve(conn net.Conn) {
	backend := pgproto3.NewBackend(conn, conn)
	for {
		first, err := backend.ReceiveStartupMessage()
		if err != nil {
			return
		}
		switch first.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := conn.Write([]byte{'N'}); err != nil {
				return
			}
			continue
		case *pgproto3.CancelRequest:
			s.mu.Lock()
			s.cancels++
			s.mu.Unlock()
			return
		}
		s.mu.Lock()
		talk := s.takeLocked()
		number := len(s.attempts)
		s.mu.Unlock()
		if talk.serve != nil {
			talk.serve(&Session{server: s, conn: conn, backend: backend, number: number, txStatus: 'I'})
		}
		return
	}
}

// Attempts returns when each connection was tried, refused ones included.
func (s *Server) Attempts() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.attempts)
}

// Queries returns the statements that were run, on all connections, in order.
func (s *Server) Queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.queries)
}

// Cancels returns how many cancel requests came.
func (s *Server) Cancels() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cancels
}

// Drop closes every open connection from the server's side: what a crash does.
func (s *Server) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		_ = conn.Close()
	}
}

// Close ends every connection and waits until all goroutines of the server have ended. It may be called again.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	s.mu.Unlock()
	s.Drop()
	s.work.Wait()
}

// Route returns a pgconn.DialFunc that takes each address ("host:port") to a server of its own; another address is
// refused.
func Route(servers map[string]*Server) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if s, ok := servers[addr]; ok {
			return s.Dial(ctx, network, addr)
		}
		return nil, refused()
	}
}

// Prepared returns how often a statement was prepared under a name, the empty one included.
func (s *Server) Prepared(name string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.prepared {
		if p == name {
			n++
		}
	}
	return n
}
