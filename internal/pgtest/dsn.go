package pgtest

import (
	"net/url"
	"strings"
)

// DSN returns a connection string (a postgres:// URL) for one or more addresses "host:port", tried in that order. Each
// parameter is "key=value"; user, password and dbname replace postgres, no password and postgres; of two parameters
// with the same key the later one counts. The default is sslmode=disable.
func DSN(addrs []string, params ...string) string {
	u := url.URL{Scheme: "postgres", Host: strings.Join(addrs, ",")}
	user, password, database := "postgres", "", "postgres"
	query := url.Values{"sslmode": {"disable"}}
	for _, param := range params {
		key, value, _ := strings.Cut(param, "=")
		switch key {
		case "user":
			user = value
		case "password":
			password = value
		case "dbname":
			database = value
		default:
			query.Set(key, value)
		}
	}
	u.User = url.User(user)
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	u.Path = "/" + database
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return u.String()
}

// adminName is the application_name of the package's own connections.
const adminName = "pgtest"

// adminDSN is for the package's own connections: what the environment says about target_session_attrs must not count.
func (c *Cluster) adminDSN() string {
	sslmode := "sslmode=disable"
	if c.opts.TLS {
		sslmode = "sslmode=prefer"
	}
	return c.reach(sslmode, "target_session_attrs=any", "application_name="+adminName, "connect_timeout=5")
}

// reach returns a connection string that leads from this process to the server.
func (c *Cluster) reach(params ...string) string {
	if c.opts.Namespace == "" {
		return DSN([]string{c.Addr()}, params...)
	}
	return DSN(nil, append([]string{"host=" + c.dir, "port=" + portText(c.Port())}, params...)...)
}
