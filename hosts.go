package retrypg

import (
	"context"
	"crypto/tls"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/internal/transport"
)

// hostStagger is how long a host may take to answer before the next one is tried beside it. Chosen: the time between two
// attempts of RFC 8305 (Happy Eyeballs, section 5), which is longer than connecting takes to a server that is there.
const hostStagger = 250 * time.Millisecond

// host is one host of a configuration, with the ways to encrypt that sslmode allows for it.
type host struct {
	name      string
	port      uint16
	tls       *tls.Config
	fallbacks []*pgconn.FallbackConfig // the same host with other ways to encrypt
}

// entriesOf returns what pgconn walks through when it connects, the first entry, which is in other fields, included.
func entriesOf(cfg *pgconn.Config) []*pgconn.FallbackConfig {
	return append([]*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...)
}

// hostsOf returns the hosts of a configuration, each once, in its order.
func hostsOf(cfg *pgconn.Config) []host {
	var hosts []host
	for _, f := range entriesOf(cfg) {
		i := slices.IndexFunc(hosts, func(h host) bool { return h.name == f.Host && h.port == f.Port })
		if i < 0 {
			hosts = append(hosts, host{name: f.Host, port: f.Port, tls: f.TLSConfig})
			continue
		}
		hosts[i].fallbacks = append(hosts[i].fallbacks, f)
	}
	return hosts
}

// aim makes cfg, which is a copy, lead to h alone.
func (h host) aim(cfg *pgconn.Config) {
	cfg.Host, cfg.Port, cfg.TLSConfig, cfg.Fallbacks = h.name, h.port, h.tls, h.fallbacks
}

// arrange brings the hosts of cfg, and the addresses that their names lead to, into the order in which they are to be tried.
func arrange(cfg *pgconn.Config, order *endpoint.Order) {
	hosts := endpoint.Sorted(order, hostsOf(cfg), func(h host) (string, uint16) { return h.name, h.port })
	hosts[0].aim(cfg)
	for _, h := range hosts[1:] {
		cfg.Fallbacks = append(cfg.Fallbacks, &pgconn.FallbackConfig{Host: h.name, Port: h.port, TLSConfig: h.tls})
		cfg.Fallbacks = append(cfg.Fallbacks, h.fallbacks...)
	}
	lookup := cfg.LookupFunc
	cfg.LookupFunc = func(ctx context.Context, name string) ([]string, error) {
		addrs, err := lookup(ctx, name)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(hosts, func(h host) bool { return h.name == name })
		return order.Resolved(name, hosts[i].port, addrs), nil
	}
}

// dialled is the address that a connection was dialled at, and "" where that is not known: the user's hooks may hide it.
func dialled(pc *pgconn.PgConn) string {
	if wire := transport.From(pc.Conn()); wire != nil {
		return wire.Dialled()
	}
	return ""
}

// raceHosts makes attempts at all hosts of cfg, and at all addresses of each but skip, until one succeeds: one that does not
// answer does not keep the others waiting. The names are looked up anew.
func raceHosts[T any](ctx context.Context, cfg *pgx.ConnConfig, order *endpoint.Order, skip string, connect func(context.Context, *pgx.ConnConfig) (T, error), discard func(T)) (T, error) {
	hosts := endpoint.Sorted(order, hostsOf(&cfg.Config), func(h host) (string, uint16) { return h.name, h.port })
	return endpoint.Race(ctx, len(hosts), hostStagger, func(ctx context.Context, i int) (T, error) {
		one := cfg.Copy()
		hosts[i].aim(&one.Config)
		var none T
		if filepath.IsAbs(one.Host) {
			if _, addr := pgconn.NetworkAddress(one.Host, one.Port); addr == skip {
				return none, errSkipped
			}
			return connect(ctx, one)
		}
		addrs, err := cfg.LookupFunc(ctx, one.Host)
		if err != nil || len(addrs) == 0 {
			return connect(ctx, one) // whose error says so in pgx's words
		}
		addrs = slices.DeleteFunc(order.Resolved(one.Host, one.Port, addrs), func(addr string) bool {
			return endpoint.WithPort(addr, one.Port) == skip
		})
		if len(addrs) == 0 {
			return none, errSkipped
		}
		return endpoint.Race(ctx, len(addrs), hostStagger, func(ctx context.Context, j int) (T, error) {
			one := one.Copy()
			one.LookupFunc = func(context.Context, string) ([]string, error) { return addrs[j : j+1], nil }
			return connect(ctx, one)
		}, discard)
	}, discard)
}

// errSkipped is the error of a host that is not wanted.
var errSkipped = errors.New("left out, as it is silent")

// connectHooks are the user's functions around connecting; each may be nil.
type connectHooks struct {
	before func(context.Context, *pgx.ConnConfig) error
	after  func(context.Context, *pgx.Conn) error
}

// connectHooks returns the hooks of the options.
func (s settings) connectHooks() connectHooks { return connectHooks{s.beforeConnect, s.afterConnect} }

// and returns hooks that call h and then others.
func (h connectHooks) and(others connectHooks) connectHooks {
	return connectHooks{before: both(h.before, others.before), after: both(h.after, others.after)}
}

func both[T any](f, g func(context.Context, T) error) func(context.Context, T) error {
	if f == nil || g == nil {
		if f == nil {
			f = g
		}
		return f
	}
	return func(ctx context.Context, v T) error {
		if err := f(ctx, v); err != nil {
			return err
		}
		return g(ctx, v)
	}
}

// prepared returns a copy of cfg for one attempt to connect.
func (h connectHooks) prepared(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.ConnConfig, error) {
	cfg = cfg.Copy()
	if h.before != nil {
		if err := h.before(ctx, cfg); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// primaryDialer returns what connects to a primary with cfg, with the hooks that its other connections are made with. It
// makes one attempt at each host.
func primaryDialer(cfg *pgx.ConnConfig, order *endpoint.Order, hooks connectHooks) func(context.Context) (*pgx.Conn, error) {
	cfg = toPrimary(cfg)
	return func(ctx context.Context) (*pgx.Conn, error) {
		ctx = unwatched(ctx)
		cfg, err := hooks.prepared(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return raceHosts(ctx, cfg, order, "", func(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
			conn, err := pgx.ConnectConfig(ctx, cfg)
			if err != nil || hooks.after == nil {
				return conn, err
			}
			if err := hooks.after(ctx, conn); err != nil {
				closeNow(conn)
				return nil, err
			}
			return conn, nil
		}, closeNow)
	}
}

// locator returns what finds out which of the hosts of cfg answers, in the role that cfg asks for, but for the one at skip.
func locator(cfg *pgx.ConnConfig, order *endpoint.Order, hooks connectHooks) func(ctx context.Context, skip string) (string, error) {
	cfg = cfg.Copy()
	cfg.AfterConnect = nil
	return func(ctx context.Context, skip string) (string, error) {
		ctx = unwatched(ctx)
		cfg, err := hooks.prepared(ctx, cfg)
		if err != nil {
			return "", err
		}
		conn, err := raceHosts(ctx, cfg, order, skip, func(ctx context.Context, cfg *pgx.ConnConfig) (*pgconn.PgConn, error) {
			return pgconn.ConnectConfig(ctx, &cfg.Config)
		}, func(conn *pgconn.PgConn) { _ = conn.Close(ended) })
		if err != nil {
			return "", err
		}
		found := dialled(conn)
		_ = conn.Close(ended) // it has served its purpose
		order.Prefer(found)
		return found, nil
	}
}
