package doctor

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg"
)

// Target is what a DSN, with the PG* variables, leads to.
type Target struct {
	text      *dsnText
	cfg       *pgx.ConnConfig
	hosts     []hostConfig
	keys      map[string]string // of retrypg, from the DSN or its service file
	secrets   []string
	poolConns int32 // pool_max_conns; 0: not given
}

// hostConfig is one host, with the ways to encrypt that sslmode allows for it, in their order.
type hostConfig struct {
	name string
	port uint16
	tls  []*tls.Config // nil is none
}

// ParseTarget reads a DSN as retrypg does. Its errors never hold a password.
func ParseTarget(dsn string) (*Target, error) {
	t := &Target{}
	connector, err := retrypg.NewConnector(dsn, retrypg.WithoutTelemetry(), retrypg.WithConnConfig(func(cfg *pgx.ConnConfig) error {
		t.cfg = cfg.Copy()
		return nil
	}))
	if err != nil {
		return nil, err
	}
	_ = connector.Close() // nothing was connected
	if t.text, err = parseText(dsn); err != nil {
		return nil, err
	}
	if err := t.readKeys(dsn); err != nil {
		return nil, err
	}
	t.secrets = append(t.text.secrets(), t.cfg.Password, os.Getenv("PGPASSWORD"), os.Getenv("PGSSLPASSWORD"))
	t.readHosts()
	return t, nil
}

// readKeys separates the keys of retrypg, and of pools, from those that are sent to the server.
func (t *Target) readKeys(dsn string) error {
	raw, err := pgx.ParseConfig(dsn)
	if err != nil {
		return errUnreadable // NewConnector has read it: pgx's own error would show it
	}
	pool, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return errPoolKeys
	}
	if _, given := raw.RuntimeParams["pool_max_conns"]; given {
		t.poolConns = pool.MaxConns
	}
	t.keys = make(map[string]string)
	for key, value := range raw.RuntimeParams {
		if _, sent := t.cfg.RuntimeParams[key]; !sent {
			t.keys[key] = value
		}
		if _, sent := pool.ConnConfig.RuntimeParams[key]; !sent {
			delete(t.cfg.RuntimeParams, key)
		}
	}
	return nil
}

func (t *Target) readHosts() {
	add := func(name string, port uint16, config *tls.Config) {
		i := slices.IndexFunc(t.hosts, func(h hostConfig) bool { return h.name == name && h.port == port })
		if i < 0 {
			i = len(t.hosts)
			t.hosts = append(t.hosts, hostConfig{name: name, port: port})
		}
		t.hosts[i].tls = append(t.hosts[i].tls, config)
	}
	add(t.cfg.Host, t.cfg.Port, t.cfg.TLSConfig)
	for _, f := range t.cfg.Fallbacks {
		add(f.Host, f.Port, f.TLSConfig)
	}
}

// configFor returns the configuration for a connection to h alone, whatever its role.
func (t *Target) configFor(h hostConfig) *pgconn.Config {
	cfg := t.cfg.Config.Copy()
	cfg.Host, cfg.Port, cfg.TLSConfig, cfg.Fallbacks = h.name, h.port, h.tls[0], nil
	for _, config := range h.tls[1:] {
		cfg.Fallbacks = append(cfg.Fallbacks, &pgconn.FallbackConfig{Host: h.name, Port: h.port, TLSConfig: config})
	}
	cfg.ValidateConnect, cfg.AfterConnect = nil, nil
	cfg.ConnectTimeout = t.timeout()
	cfg.DialFunc = (&net.Dialer{}).DialContext
	return cfg
}

// timeout bounds connecting to one host, and then the questions to it.
func (t *Target) timeout() time.Duration {
	if t.cfg.ConnectTimeout > 0 {
		return t.cfg.ConnectTimeout
	}
	return retrypg.DefaultConnectTimeout
}

// roles are the target_session_attrs by the function that checks each.
var roles = []struct {
	name  string
	check pgconn.ValidateConnectFunc
}{
	{"read-write", pgconn.ValidateConnectTargetSessionAttrsReadWrite},
	{"read-only", pgconn.ValidateConnectTargetSessionAttrsReadOnly},
	{"primary", pgconn.ValidateConnectTargetSessionAttrsPrimary},
	{"standby", pgconn.ValidateConnectTargetSessionAttrsStandby},
	{"prefer-standby", pgconn.ValidateConnectTargetSessionAttrsPreferStandby},
}

// role is the target_session_attrs.
func (t *Target) role() string {
	for _, r := range roles {
		if t.cfg.ValidateConnect != nil && reflect.ValueOf(t.cfg.ValidateConnect).Pointer() == reflect.ValueOf(r.check).Pointer() {
			return r.name
		}
	}
	return "any"
}

// key returns the value of a key of retrypg, or what it is where it is not given.
func (t *Target) key(name, otherwise string) string {
	if value, given := t.keys[name]; given {
		return value
	}
	return otherwise
}

// redact takes passwords out of a text of another's.
func (t *Target) redact(text string) string {
	for _, secret := range t.secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}

// socket reports whether the host is the directory of a Unix socket.
func (h hostConfig) socket() bool { return filepath.IsAbs(h.name) || strings.HasPrefix(h.name, "@") }

// local reports whether nothing of a connection leaves the machine.
func (h hostConfig) local() bool {
	ip := net.ParseIP(h.name)
	return h.socket() || h.name == "localhost" || ip != nil && ip.IsLoopback()
}

func (h hostConfig) String() string {
	if h.socket() {
		return h.name
	}
	return net.JoinHostPort(h.name, strconv.Itoa(int(h.port)))
}
