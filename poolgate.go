package retrypg

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg/internal/transport"
	"github.com/retrypg/retrypg/metrics"
)

// waitWhereItConnects makes a pool that is not ours wait for its server. No hook of pgxpool can try a connection again, but pgconn
// walks through a list of hosts: each host is put there twice, and the second round waits at the gate before it begins.
func (c *core) waitWhereItConnects(cfg *pgxpool.Config) {
	before := cfg.BeforeConnect
	cfg.BeforeConnect = func(ctx context.Context, attempt *pgx.ConnConfig) error {
		if err := before(ctx, attempt); err != nil {
			return err
		}
		if _, down := c.gate.Down(); down {
			if err := c.awaitServer(ctx); err != nil {
				return err
			}
		}
		c.addSecondRound(&attempt.Config)
		return nil
	}
}

// awaitServer waits at the gate until a server of the role that is asked for lets somebody in. pgxpool connects with a context
// that ends only with the pool, so that the setting bounds it.
func (c *core) awaitServer(ctx context.Context) error {
	return c.reach(ctx, reaching{kind: metrics.OpConnect}, func(ctx context.Context) error {
		_, err := c.locate(ctx, "")
		return err
	})
}

// addSecondRound makes one connection attempt with cfg, which is its own, go through the hosts twice.
func (c *core) addSecondRound(cfg *pgconn.Config) {
	entries := entriesOf(cfg)
	r := &rounds{core: c, dial: cfg.DialFunc, timeout: cfg.ConnectTimeout}
	for _, e := range entries {
		if filepath.IsAbs(e.Host) {
			r.first++
		} else {
			r.names++
		}
	}
	cfg.Fallbacks = slices.Concat(cfg.Fallbacks, entries)
	// It has to cover the wait; rounds keeps each connection to the time that was set.
	cfg.ConnectTimeout = max(c.connectMaxElapsed(), cfg.ConnectTimeout)
	lookup := cfg.LookupFunc
	cfg.LookupFunc = func(ctx context.Context, name string) ([]string, error) {
		if r.names == 0 && r.first == 0 && !r.waited { // no name of the first round leads anywhere: there is nothing to dial
			if err := r.wait(ctx); err != nil {
				return nil, err
			}
		}
		addrs, err := lookup(ctx, name)
		if r.names > 0 { // pgconn looks all names up before it dials, in their order
			r.names--
			r.first += len(addrs)
		}
		return addrs, err
	}
	cfg.DialFunc = r.next
	if validate := cfg.ValidateConnect; validate != nil {
		cfg.ValidateConnect = func(ctx context.Context, pc *pgconn.PgConn) error { return r.judge(validate(ctx, pc)) }
	}
	afterNetConnect := cfg.AfterNetConnect
	cfg.AfterNetConnect = func(ctx context.Context, copied *pgconn.Config, nc net.Conn) (net.Conn, error) {
		if c.serverSideRefused.Load() { // in the first round
			c.removeServerSide(copied)
		}
		if afterNetConnect != nil {
			return afterNetConnect(ctx, copied, nc)
		}
		return nc, nil
	}
	afterConnect := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, pc *pgconn.PgConn) error {
		if !r.ready(pc) {
			return errConnectTimeout
		}
		if afterConnect != nil {
			return afterConnect(ctx, pc)
		}
		return nil
	}
}

// rounds is one attempt to connect, which goes through the hosts twice. It is used by one goroutine until it has connected.
type rounds struct {
	core    *core
	dial    pgconn.DialFunc
	timeout time.Duration // of one connection
	names   int           // names of the first round that have not been looked up yet
	first   int           // addresses of the first round
	dials   int
	second  bool        // pgconn is in the second round
	settled bool        // a server was met that is good enough where none is preferred
	waited  bool        // for the server
	failed  error       // of the wait
	bound   *time.Timer // ends the connection that is being made

	connected atomic.Bool // what is dialled from then on are requests to cancel, maybe by several goroutines
}

// next dials the next address of the two rounds.
func (r *rounds) next(ctx context.Context, network, addr string) (net.Conn, error) {
	if r.connected.Load() || transport.Held(network) {
		return r.dial(ctx, network, addr)
	}
	if r.bound != nil {
		r.bound.Stop()
	}
	if r.dials++; r.dials == r.first+1 {
		r.second = true
		if !r.waited && !r.settled {
			r.failed = r.wait(ctx)
		}
	}
	if r.failed != nil {
		return nil, r.failed // what is left of the second round has nothing to wait for
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	began := time.Now()
	nc, err := r.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if wire := transport.From(nc); wire != nil {
		// pgx asks for a cancellation when the check of the role fails, on a goroutine of its own: it is none of the hosts.
		wire.HoldCancels(true)
		r.bound = time.AfterFunc(r.timeout-time.Since(began), func() { wire.Sever(errConnectTimeout) })
	}
	return nc, nil
}

// judge makes the second round take a server that is not the preferred one: the first has met no other.
func (r *rounds) judge(err error) error {
	var notPreferred *pgconn.NotPreferredError
	if !errors.As(err, &notPreferred) {
		return err
	}
	r.settled = true
	if r.second {
		return nil
	}
	return err
}

// wait waits for the server between the two rounds.
func (r *rounds) wait(ctx context.Context) error {
	r.waited = true
	return r.core.awaitServer(ctx)
}

// ready ends the bound on the connection, and reports whether that was in time.
func (r *rounds) ready(pc *pgconn.PgConn) bool {
	if r.bound != nil && !r.bound.Stop() {
		return false
	}
	r.connected.Store(true)
	if wire := transport.From(pc.Conn()); wire != nil {
		wire.HoldCancels(false)
	}
	return true
}

// errConnectTimeout ends a connection that was not ready for use in time.
var errConnectTimeout = &net.OpError{Op: "connect", Err: os.ErrDeadlineExceeded}
