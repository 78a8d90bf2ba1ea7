package retrypg

import (
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// serverSide returns the start-up parameters by which the server finds out about a client that vanished as soon as the client
// about a server: it then gives the locks back that the client held. All can be set by any user (context user in pg_settings).
func (s settings) serverSide() map[string]string {
	params := make(map[string]string)
	if s.tcpUserTimeout != Off {
		params["tcp_user_timeout"] = strconv.FormatInt(max(s.tcpUserTimeout.Milliseconds(), 1), 10)
	}
	if s.tcpKeepAliveIdle != Off {
		params["tcp_keepalives_idle"] = wholeSeconds(s.tcpKeepAliveIdle)
		params["tcp_keepalives_interval"] = wholeSeconds(s.tcpKeepAliveInterval)
		params["tcp_keepalives_count"] = strconv.Itoa(s.tcpKeepAliveCount)
		// A server process that works looks at its socket only where this says so.
		params["client_connection_check_interval"] = strconv.FormatInt(s.tcpKeepAliveIdle.Milliseconds(), 10)
	}
	return params
}

func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// addServerSide puts the parameters into cfg, which is a copy, where they are wanted and the server has not refused them. What the
// user has set stays.
func (c *core) addServerSide(cfg *pgconn.Config) {
	if !c.set.serverSideOn || c.serverSideRefused.Load() {
		return
	}
	params := c.set.serverSide()
	maps.Copy(params, cfg.RuntimeParams)
	cfg.RuntimeParams = params
}

// removeServerSide takes them out of cfg again.
func (c *core) removeServerSide(cfg *pgconn.Config) {
	for name, value := range c.set.serverSide() {
		if cfg.RuntimeParams[name] == value {
			delete(cfg.RuntimeParams, name)
		}
	}
}

// refusesServerSide reports whether a pooler, or a server that is too old, does not take the parameters.
func (c *core) refusesServerSide(err error) bool {
	var pgErr *pgconn.PgError
	if !c.set.serverSideOn || !errors.As(err, &pgErr) || severityOf(pgErr) != "FATAL" {
		return false
	}
	for name := range c.set.serverSide() {
		// PgBouncer: "unsupported startup parameter: NAME". PostgreSQL: undefined_object.
		if strings.Contains(pgErr.Message, name) {
			return true
		}
	}
	return false
}

// noteRefusal notes that they are refused: they are asked for no more.
func (c *core) noteRefusal(err *pgconn.PgError) {
	if c.refusesServerSide(err) {
		c.serverSideRefused.Store(true)
	}
}
