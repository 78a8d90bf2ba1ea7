package doctor

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/policy"
)

// judgeUnreachable says why a host was not reached, and what retrypg would do. Where another host may serve, it is a
// warning.
func (d *Doctor) judgeUnreachable(e *examined, several bool) {
	c := retrypg.Classify(e.err)
	level, does := Problem, "retrypg ends at once"
	if c.Retry != retrypg.RetryNever {
		does = "retrypg waits for it"
		if several {
			level, does = Warning, "retrypg tries the other hosts"
		}
	}
	e.report.add(level, "reachable", "not reached ("+does+"): "+d.says(e.err), adviceFor(e.err))
}

// adviceFor says what to do about an error of connecting. Of several attempts, as with TLS and then without, it is about
// the last one.
func adviceFor(err error) string {
	attempts := []error{err}
	var connect *pgconn.ConnectError
	var many interface{ Unwrap() []error }
	if errors.As(err, &connect) && errors.As(connect.Unwrap(), &many) {
		attempts = many.Unwrap()
	}
	for _, attempt := range slices.Backward(attempts) {
		if advice := adviceForClass(retrypg.Classify(&policy.ExhaustedError{Op: endpoint.Connecting, Last: attempt})); advice != "" {
			return advice
		}
	}
	return ""
}

func adviceForClass(c retrypg.Class) string {
	switch c.SQLState {
	case "28P01":
		return "check user and password: in the DSN, PGPASSWORD, or the password file"
	case "28000":
		return "add a line to pg_hba.conf that lets the user in from here, with or without TLS as sslmode has it"
	case "3D000":
		return "create the database, or correct its name in the DSN"
	case "42501":
		return "grant CONNECT on the database to the user"
	case "53300":
		return "the server is full: raise max_connections, make the pools smaller, or put a pooler in between"
	case "57P03":
		return "the server starts, stops or recovers: look again, and into its log if that lasts"
	}
	switch c.Reason {
	case "connection refused":
		return "start the server, or correct host and port; listen_addresses of the server says where it listens"
	case "host not found", "name lookup failed":
		return "check the name of the host and the name server"
	case "connection timed out", "host unreachable":
		return "check address, routes and firewalls: nothing answers there within connect_timeout"
	case "socket missing":
		return "start the server, or correct the directory of its socket (unix_socket_directories)"
	case "server refused TLS":
		return "turn ssl on at the server, or ask for another sslmode"
	case "certificate not valid":
		return "give the certificate of its authority in sslrootcert, and connect by the name that the certificate has"
	case "pooler refused a startup parameter":
		return "leave the parameter out of the DSN, or list it in the pooler's ignore_startup_parameters"
	}
	return ""
}

// judgeTLS says how the connection is encrypted.
func (d *Doctor) judgeTLS(e *examined) {
	f, h := e.facts, &e.report
	switch {
	case f.tls == nil && e.host.local():
	case f.tls == nil:
		h.add(Warning, "tls", "the connection is not encrypted: who is in between can read passwords and data",
			"turn ssl on at the server and give sslmode=verify-full, or sslmode=require")
	case f.verified:
		h.TLS = versionOf(f.tls)
		h.add(OK, "tls", h.TLS+", and the server's certificate is checked", "")
	default:
		h.TLS = versionOf(f.tls)
		level := Note
		if e.host.local() {
			level = OK
		}
		h.add(level, "tls", h.TLS+", but the server's certificate is not checked: who is in between can take its place",
			"give sslmode=verify-full, with sslrootcert where its authority is not the system's")
	}
}

func versionOf(state *tls.ConnectionState) string { return tls.VersionName(state.Version) }

// judgePooler says whether a pooler is in between, and what does not go through one.
func (d *Doctor) judgePooler(e *examined, r *Report) {
	f, h := e.facts, &e.report
	if !f.pooled() {
		return
	}
	h.Pooler = true
	h.add(Note, "pooler", "a pooler is in between: the server process is not the one that was announced. "+
		"Settings of a session, LISTEN and advisory locks may not stay with a connection", "")
	if mode := d.target.cfg.DefaultQueryExecMode.String(); mode == "cache statement" {
		h.add(Warning, "exec_mode", "pgx prepares statements, which a pooler loses that has server connections for transactions only",
			"give default_query_exec_mode=exec, unless the pooler keeps prepared statements (PgBouncer 1.21 and later: max_prepared_statements)")
		r.change("default_query_exec_mode", "exec", "a pooler is in between")
	}
	if strings.EqualFold(d.target.key("tcp_server_side", "off"), "on") {
		h.add(Note, "tcp_server_side", "tcp_server_side=on asks the server, which has the pooler for its client: what it then "+
			"finds out about is a pooler that vanished", "leave it out")
	}
}
