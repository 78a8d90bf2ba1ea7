package retrypg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/internal/transport"
)

// silentError ends what waits for a server that has said nothing for a while, when another one was found to be what is
// looked for. It is a net.Error that says Timeout, and no more is known of the outcome than after any other.
type silentError struct{ addr, found string }

func (e *silentError) Error() string {
	return fmt.Sprintf("no answer from %s, while the server at %s answers", e.addr, e.found)
}

// Timeout implements net.Error.
func (*silentError) Timeout() bool { return true }

// Temporary implements net.Error.
func (*silentError) Temporary() bool { return false }

// watchServers makes what cfg connects with be ended when its server falls silent and another one of its hosts answers.
// plain says that they are dialled in the usual way.
func (c *core) watchServers(cfg *pgx.ConnConfig, hooks connectHooks, plain bool) {
	c.locate = locator(cfg, &c.order, hooks)
	dial, several := cfg.DialFunc, len(hostsOf(&cfg.Config)) > 1
	c.watch = endpoint.NewWatch(c.ctx, endpoint.WatchOptions{
		Stagger:  hostStagger,
		FailOver: needsPrimary(cfg),
		Alive:    func(ctx context.Context, network, addr string) bool { return answers(ctx, dial, network, addr) },
		Find:     c.locate,
		Silent: func(addr, found string, established bool) {
			c.order.Avoid(addr)
			if !established {
				return
			}
			if h := c.hosts.At(addr); h.Fence(h.Generation()) {
				c.fenced(&silentError{addr: addr, found: found})
			}
		},
		Cut: func(addr, found string) error { return &silentError{addr: addr, found: found} },
	})
	insistently := dial
	if plain {
		insistently = c.insistent(dial)
	}
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if ctx.Value(unwatchedKey{}) != nil || !several && !c.order.Several(cfg.Host) {
			return insistently(ctx, network, addr)
		}
		ctx, abort := context.WithCancelCause(ctx)
		defer abort(nil)
		line := c.watch.Dial(network, addr, abort)
		nc, err := insistently(ctx, network, addr)
		if err != nil {
			line.End()
			var silent *silentError
			if errors.As(context.Cause(ctx), &silent) {
				return nil, silent
			}
			return nil, err
		}
		wire := transport.From(nc)
		if wire == nil { // the user's own hides what it wraps
			line.End()
			return nc, nil
		}
		wire.OnClose(line.End)
		line.Dialled(wire)
		return nc, nil
	}
}

// How long a dial may take before another one is made beside it: while the server is known to be away, as often as its return is
// looked for at last; else as long as Linux waits before it sends its first packet again (RFC 6298, section 2).
const (
	redialWhileAway = 250 * time.Millisecond
	redial          = time.Second
)

// insistent makes dial send its first packet again sooner than the system does, which takes 1, 2, 4 s and so on: after an outage in
// which packets were lost without a word, that would be the time until it is noticed to be over.
func (c *core) insistent(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if network == "unix" {
			return dial(ctx, network, addr)
		}
		interval := redial
		if _, down := c.gate.Down(); down {
			interval = redialWhileAway
		}
		return endpoint.Insist(ctx, interval, func(ctx context.Context) (net.Conn, error) {
			return dial(ctx, network, addr)
		}, func(nc net.Conn) { _ = nc.Close() })
	}
}

type unwatchedKey struct{}

// unwatched is the context of connections that are not to be watched: those that look for a server themselves.
func unwatched(ctx context.Context) context.Context {
	return context.WithValue(ctx, unwatchedKey{}, true)
}

// answers asks the server at addr whether it speaks TLS. What it says does not matter: it costs neither a connection slot nor
// a password, and a server says nothing of it in its log (ProcessStartupPacket in src/backend/postmaster).
func answers(ctx context.Context, dial pgconn.DialFunc, network, addr string) bool {
	nc, err := dial(ctx, network, addr)
	if err != nil {
		return false
	}
	defer nc.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = nc.SetDeadline(deadline) // without one the answer is awaited in vain only as long as ctx lasts
	}
	defer context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })()
	sslRequest := [8]byte{3: 8, 4: 0x04, 5: 0xd2, 6: 0x16, 7: 0x2f} // length 8, code 80877103
	if _, err := nc.Write(sslRequest[:]); err != nil {
		return false
	}
	var answer [1]byte
	_, err = nc.Read(answer[:])
	return err == nil
}
