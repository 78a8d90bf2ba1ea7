package retrypg

import (
	"context"
	"crypto/tls"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/internal/outcome"
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

// hostsOf returns the hosts of a configuration, each once, in its order.
func hostsOf(cfg *pgconn.Config) []host {
	all := append([]*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...)
	var hosts []host
	for _, f := range all {
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

// primaryDialer returns what connects to a primary with cfg, calling the hooks, which may be nil, that its other connections
// are made with. It makes one attempt at each host; a host that does not answer does not keep the others waiting.
func primaryDialer(cfg *pgx.ConnConfig, before func(context.Context, *pgx.ConnConfig) error, after func(context.Context, *pgx.Conn) error,
) func(context.Context) (*pgx.Conn, error) {
	cfg = toPrimary(cfg)
	hosts := hostsOf(&cfg.Config)
	return func(ctx context.Context) (*pgx.Conn, error) {
		return endpoint.Race(ctx, len(hosts), hostStagger, func(ctx context.Context, i int) (*pgx.Conn, error) {
			cfg := cfg.Copy()
			hosts[i].aim(&cfg.Config)
			if before != nil {
				if err := before(ctx, cfg); err != nil {
					return nil, err
				}
			}
			conn, err := pgx.ConnectConfig(ctx, cfg)
			if err != nil || after == nil {
				return conn, err
			}
			if err := after(ctx, conn); err != nil {
				closeNow(conn)
				return nil, err
			}
			return conn, nil
		}, closeNow)
	}
}

// toPrimary returns a copy of cfg for a connection to a primary, whatever role cfg asks for. One attempt at one host is
// bounded, also where cfg is another's.
func toPrimary(cfg *pgx.ConnConfig) *pgx.ConnConfig {
	cfg = cfg.Copy()
	cfg.ConnectTimeout = orDefault(cfg.ConnectTimeout, DefaultConnectTimeout)
	cfg.ValidateConnect = validatePrimary
	return cfg
}

// validatePrimary is a pgconn.ValidateConnectFunc for a connection that questions are asked over. Each answer says again
// whether it is a hot standby's, so that a pooler which tells of another server costs another attempt only.
func validatePrimary(ctx context.Context, pc *pgconn.PgConn) error {
	if pc.ParameterStatus("in_hot_standby") == "off" {
		return nil
	}
	standby, err := outcome.InRecovery(ctx, pc)
	if err == nil && standby {
		err = pgconn.ErrStandbyConnection
	}
	return err
}
