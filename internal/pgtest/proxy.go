package pgtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// Proxy is a TCP proxy before a PostgreSQL server that knows where messages begin and end. It forwards faithfully
// until told otherwise: by SetAccept for what a new connection meets, by SetFaults for what happens to all bytes, by
// CutAll for the end of what is open, and by OnMessage for one exact message.
//
// It answers a client's request for TLS with "no", unless SetTLS says otherwise, because it could not read what
// follows. A request to cancel a statement, which clients send on a connection of its own, is passed on and counted.
//
// All methods are safe for concurrent use. Close ends every goroutine and connection of the proxy.
type Proxy struct {
	ctx  context.Context // ended by Close
	stop context.CancelFunc
	work sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	closed   bool
	addr     *net.TCPAddr
	listener *net.TCPListener // nil while refusing
	numbers  int64            // of connections taken to the server
	upstream string
	accept   AcceptMode
	tls      bool
	noCancel bool
	faults   Faults // for new connections
	conns    map[*ProxyConn]struct{}
	opening  map[io.Closer]struct{} // accepted, and not yet or never a ProxyConn
	rules    []*Rule
	stats    Stats
	waiting  int           // how many wait for changed
	changed  chan struct{} // closed and replaced when stats change
}

// NewProxy starts a proxy on a free port of 127.0.0.1 before the server at upstream ("host:port"). The server need
// not be there: a client then sees its connection accepted and closed.
func NewProxy(upstream string) (*Proxy, error) {
	if _, _, err := net.SplitHostPort(upstream); err != nil {
		return nil, fmt.Errorf("proxy upstream: want host:port: %w", err)
	}
	ln, err := listenFree()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{
		ctx: ctx, stop: stop, listener: ln, addr: ln.Addr().(*net.TCPAddr), upstream: upstream,
		conns: make(map[*ProxyConn]struct{}), opening: make(map[io.Closer]struct{}), changed: make(chan struct{}),
	}
	p.work.Go(func() { p.serve(ln) })
	return p, nil
}

// Addr returns the address clients connect to, "127.0.0.1:port". It never changes.
func (p *Proxy) Addr() string { return p.addr.String() }

// Port returns the port of Addr.
func (p *Proxy) Port() int { return p.addr.Port }

// DSN returns a connection string through the proxy; for params see [DSN].
func (p *Proxy) DSN(params ...string) string { return DSN([]string{p.Addr()}, params...) }

// SetUpstream changes the server that new connections are taken to.
func (p *Proxy) SetUpstream(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upstream = addr
}

// SetTLS says whether requests for TLS are passed on to the server. Encrypted connections are forwarded byte by byte: Faults
// and cuts work, rules and message counters see nothing of them.
func (p *Proxy) SetTLS(pass bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tls = pass
}

// DropCancels says whether requests to cancel a statement are kept from the server. pgx sends one for every connection that
// broke while it waited for an answer: it would race with the statement whose fate a test is about.
func (p *Proxy) DropCancels(drop bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noCancel = drop
}

// SetAccept says what a new connection meets from now on. Connections that are open are not touched. The error is
// that of listening again after AcceptRefuse.
func (p *Proxy) SetAccept(mode AcceptMode) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.accept = mode
	if mode == AcceptRefuse {
		if p.listener != nil {
			err := p.listener.Close()
			p.listener = nil
			return err
		}
		return nil
	}
	if p.listener != nil {
		return nil
	}
	ln, err := net.ListenTCP("tcp4", p.addr)
	if err != nil {
		return fmt.Errorf("proxy: listen again: %w", err)
	}
	p.listener = ln
	p.work.Go(func() { p.serve(ln) })
	return nil
}

// SetFaults puts faults in force, and ends those in force before, for the connections in scope.
func (p *Proxy) SetFaults(f Faults, scope Scope) {
	p.mu.Lock()
	if scope != Existing {
		p.faults = f
	}
	var conns []*ProxyConn
	if scope != New {
		conns = p.connsLocked()
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.SetFaults(f)
	}
}

// Conns returns the connections that have not ended at both sides, oldest first: also one that is still starting, and
// one that was cut while a side has not closed it.
func (p *Proxy) Conns() []*ProxyConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connsLocked()
}

func (p *Proxy) connsLocked() []*ProxyConn {
	conns := make([]*ProxyConn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	slices.SortFunc(conns, func(a, b *ProxyConn) int { return int(a.number - b.number) })
	return conns
}

// CutAll cuts every connection, also one that is starting or was accepted in silence, and returns how many were open at
// both ends.
func (p *Proxy) CutAll(side Side, how Cut) int {
	open := 0
	for _, c := range p.Conns() {
		if c.end(side, how) {
			open++
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for closer := range p.opening {
		_ = closer.Close()
	}
	return open
}

// Close closes the listener and all connections, releases all rules and waits until every goroutine of the proxy has
// ended. It may be called more than once.
func (p *Proxy) Close() error {
	p.mu.Lock()
	var err error
	if !p.closed {
		p.closed = true
		p.stop()
		if p.listener != nil {
			err = p.listener.Close()
			p.listener = nil
		}
		for closer := range p.opening {
			_ = closer.Close()
		}
		for c := range p.conns {
			c.closeSockets()
		}
	}
	p.mu.Unlock()
	p.work.Wait()
	return err
}

// acceptPause is how long the proxy waits after a failed accept, such as one for want of file descriptors.
const acceptPause = 10 * time.Millisecond

func (p *Proxy) serve(ln *net.TCPListener) {
	for {
		client, err := ln.AcceptTCP()
		if err != nil {
			p.mu.Lock()
			current := p.listener == ln
			p.mu.Unlock()
			if !current {
				return
			}
			select {
			case <-p.ctx.Done():
				return
			case <-time.After(acceptPause):
				continue
			}
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			_ = client.Close()
			return
		}
		p.opening[client] = struct{}{}
		mode := p.accept
		p.mu.Unlock()
		p.count(func(s *Stats) { s.Accepted++ })
		p.work.Go(func() {
			switch mode {
			case AcceptSilent:
				drain(client)
			case AcceptReset, AcceptRefuse:
				_ = client.SetLinger(0)
			case AcceptClose:
				_ = client.CloseWrite()
				drain(client)
			default:
				p.open(client)
			}
			_ = client.Close()
			p.mu.Lock()
			delete(p.opening, client)
			p.mu.Unlock()
		})
	}
}

// drain reads until the other end closes. Closing a socket with unread bytes would reset it.
func drain(conn io.Reader) { _, _ = io.Copy(io.Discard, conn) }

// proxyDialTimeout bounds a connection to the server behind the proxy.
const proxyDialTimeout = 10 * time.Second

func (p *Proxy) dial() (*net.TCPConn, error) {
	p.mu.Lock()
	upstream := p.upstream
	p.mu.Unlock()
	dialer := net.Dialer{Timeout: proxyDialTimeout}
	conn, err := dialer.DialContext(p.ctx, "tcp", upstream)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}
