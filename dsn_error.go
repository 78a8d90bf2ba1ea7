package retrypg

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// DSNError says what is wrong with a DSN. It never holds a password, nor the DSN itself, and neither does what it wraps:
// where a value could be part of a password it is left out.
type DSNError struct {
	Key     string // the key as written; "" where no single key is at fault
	Value   string // the value as written, cut after 64 bytes; "" where it is not shown
	Allowed string // what the key allows: unit, format and range; "" where the value is not at fault
	Nearest string // the key or value that was probably meant; "" where none is near
	Problem string // what is wrong where it is not the value: a key that is unknown or given twice, a DSN pgx cannot parse

	cause error
}

// maxShown bounds, in bytes, what of a key or a value is shown.
const maxShown = 64

// Error says what is wrong and what is allowed.
func (e *DSNError) Error() string {
	var b strings.Builder
	b.WriteString("retrypg: dsn")
	if e.Key != "" {
		b.WriteString(" key " + plain(e.Key))
	} else {
		b.WriteByte(':')
	}
	switch {
	case e.Problem != "":
		b.WriteString(" " + e.Problem)
	case e.Value != "":
		fmt.Fprintf(&b, ": %q is not allowed", e.Value)
	default:
		b.WriteString(": the value is not allowed")
	}
	if e.Allowed != "" {
		b.WriteString("; allowed: " + e.Allowed)
	}
	if e.Nearest != "" {
		fmt.Fprintf(&b, "; did you mean %q?", e.Nearest)
	}
	if e.cause != nil {
		b.WriteString(": " + e.cause.Error())
	}
	return b.String()
}

// Unwrap returns what the operating system said where a file could not be read, and nil otherwise.
func (e *DSNError) Unwrap() error { return e.cause }

// hide takes out of e what could be a secret, and shortens the rest. The secrets are looked for before the shortening,
// which could leave half of one.
func (e *DSNError) hide(secrets []string, ambiguous bool) {
	shown := func(text string) string {
		if ambiguous {
			return ""
		}
		for _, s := range secrets {
			if s != "" && strings.Contains(text, s) {
				return ""
			}
		}
		return cut(text)
	}
	e.Value = shown(e.Value)
	// A key of the table is no secret even if a password is like it.
	if dsnKeyNamed(e.Key) == nil {
		e.Key = shown(e.Key)
		if e.Key == "" {
			e.Problem = "a key " + e.Problem
		}
	}
}

func cut(s string) string {
	if len(s) <= maxShown {
		return s
	}
	end := maxShown
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}

// plain is s, quoted only where it needs it.
func plain(s string) string {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '.' {
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}

// pgxSays maps the beginning of what pgx says of a DSN, without the DSN, to what we say: only texts of ours are shown,
// because in a DSN that cannot be parsed every quoted part could be a password.
var pgxSays = []struct {
	pgx          string
	key, problem string
	allowed      string
}{
	{pgx: "failed to parse as URL", problem: "it is not a valid URL: escape : / ? # [ ] @ % in user and password as %xx, and give each parameter as key=value"},
	{pgx: "failed to parse as keyword/value", problem: "it is neither a URL that begins with postgres:// nor a list of key=value: quote values with spaces as 'value'"},
	{pgx: "failed to read service (unable to find", key: "service", problem: "names a service that the service file does not have"},
	{pgx: "failed to read service", key: "service", problem: "needs a service file that can be read: check servicefile or PGSERVICEFILE"},
	{pgx: "invalid sslcertmode", key: "sslcertmode", allowed: "disable, allow, require"},
	{pgx: "invalid connect_timeout", key: "connect_timeout", allowed: "whole seconds, 0 for none"},
	{pgx: "could not match", key: "port", problem: "must be one for all hosts, or one for each host"},
	{pgx: "invalid port", key: "port", allowed: "a whole number from 1 to 65535; a password with : / ? @ must be escaped as %xx"},
	{pgx: "failed to configure TLS (sslmode is invalid", key: "sslmode", allowed: "disable, allow, prefer, require, verify-ca, verify-full"},
	{pgx: "failed to configure TLS (unable to read CA", key: "sslrootcert", problem: "names a file that cannot be read"},
	{pgx: "failed to configure TLS (unable to add CA", key: "sslrootcert", problem: "names a file without a PEM certificate"},
	{pgx: "failed to configure TLS (unable to read cert", key: "sslcert", problem: "names a file that cannot be read"},
	{pgx: "failed to configure TLS (unable to load cert", key: "sslcert", problem: "and sslkey do not name a certificate and its key"},
	{pgx: "failed to configure TLS (unable to read sslkey", key: "sslkey", problem: "names a file that cannot be read"},
	{pgx: "failed to configure TLS", problem: "TLS cannot be set up: check the ssl keys"},
	{pgx: "unknown target_session_attrs", key: "target_session_attrs", allowed: "any, read-write, read-only, primary, standby, prefer-standby"},
	{pgx: "invalid min_protocol_version", key: "min_protocol_version", allowed: "3.0, 3.2, latest"},
	{pgx: "invalid max_protocol_version", key: "max_protocol_version", allowed: "3.0, 3.2, latest"},
	{pgx: "min_protocol_version cannot be", key: "min_protocol_version", problem: "is above max_protocol_version"},
	{pgx: "unknown channel_binding", key: "channel_binding", allowed: "disable, prefer, require"},
	{pgx: "invalid require_auth", key: "require_auth", allowed: "methods separated by commas, all or none of them with a leading !: password, md5, gss, sspi, scram-sha-256, oauth, none"},
	{pgx: "cannot parse statement_cache_capacity", key: "statement_cache_capacity", allowed: "a whole number"},
	{pgx: "cannot parse description_cache_capacity", key: "description_cache_capacity", allowed: "a whole number"},
	{pgx: "invalid default_query_exec_mode", key: "default_query_exec_mode", allowed: "cache_statement, cache_describe, describe_exec, exec, simple_protocol"},
	{pgx: "cannot parse pool_max_conns", key: "pool_max_conns", allowed: "a whole number from 1"},
	{pgx: "pool_max_conns too small", key: "pool_max_conns", allowed: "a whole number from 1"},
	{pgx: "cannot parse pool_min_conns", key: "pool_min_conns", allowed: "a whole number"},
	{pgx: "cannot parse pool_min_idle_conns", key: "pool_min_idle_conns", allowed: "a whole number"},
}

// sanitised replaces an error of pgx's parsers. theirs keeps the DSN with its password in a field, and quotes parts of it
// in its text and in what it wraps, so none of that is passed on.
func sanitised(theirs error) error {
	e := &DSNError{Problem: "it cannot be parsed"}
	var pe *pgconn.ParseConfigError
	if !errors.As(theirs, &pe) {
		return e
	}
	// What comes before the message is the DSN with its password masked as well as pgx can.
	head := pgconn.NewParseConfigError(pe.ConnString, "", nil).Error()
	says, ok := strings.CutPrefix(pe.Error(), head)
	if !ok {
		return e
	}
	for _, p := range pgxSays {
		if strings.HasPrefix(says, p.pgx) {
			e.Key, e.Problem, e.Allowed = p.key, p.problem, p.allowed
			break
		}
	}
	var path *fs.PathError
	if errors.As(theirs, &path) {
		e.cause = path.Err
	}
	return e
}
