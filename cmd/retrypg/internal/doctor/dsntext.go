package doctor

import (
	"errors"
	"net/url"
	"slices"
	"strings"
)

// Errors of DSNs, in which no part of them is shown.
var (
	errUnreadable = errors.New("the DSN cannot be read")
	errPoolKeys   = errors.New("a pool_* key of the DSN has a value that is not allowed")
	errAmbiguous  = errors.New("the DSN has an @ after its hosts: write / ? # @ in user and password as %2F %3F %23 %40, and an @ elsewhere as %40")
)

// placeholder stands for a password in a DSN that is printed.
const placeholder = "PASSWORD"

// dsnText is the text of a DSN that pgx has read, taken apart so that it can be written again with other keys and without
// its passwords. What the DSN leaves to the environment is left to it again.
type dsnText struct {
	url   bool
	head  string // of a URL: scheme, user, hosts, database, with the password replaced
	pass  string // of a URL's user part
	pairs []pair
}

type pair struct{ key, value string }

// parseText takes a DSN apart.
func parseText(dsn string) (*dsnText, error) {
	scheme, rest, found := strings.Cut(dsn, "://")
	if !found || scheme != "postgres" && scheme != "postgresql" {
		return &dsnText{pairs: keywords(dsn)}, nil
	}
	t := &dsnText{url: true, head: scheme + "://"}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, rest := rest[:end], rest[end:]
	if strings.Contains(rest, "@") {
		return nil, errAmbiguous // it may be a part of a password
	}
	if at := strings.LastIndex(authority, "@"); at >= 0 {
		user, password, given := strings.Cut(authority[:at], ":")
		t.head += user
		if given {
			t.pass = unescaped(password)
			t.head += ":" + placeholder
		}
		t.head += "@"
		authority = authority[at+1:]
	}
	rest, _, _ = strings.Cut(rest, "#")
	path, query, _ := strings.Cut(rest, "?")
	t.head += authority + path
	for query != "" {
		var key, value string
		key, query, _ = strings.Cut(query, "&")
		if key, value, _ = strings.Cut(key, "="); key != "" {
			t.pairs = append(t.pairs, pair{unescaped(key), unescaped(value)})
		}
	}
	return t, nil
}

// unescaped decodes %xx as pgx does: + stays, and blanks around are dropped.
func unescaped(s string) string {
	if u, err := url.PathUnescape(strings.Trim(s, " ")); err == nil {
		return u
	}
	return s
}

// escaped encodes what unescaped decodes.
func escaped(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

const blanks = " \t\n\r\v\f"

// keywords reads the pairs of a keyword/value DSN, with the rules of libpq: values with blanks are in quotes, and \ makes
// the next character one of the value.
func keywords(dsn string) (pairs []pair) {
	for {
		key, rest, found := strings.Cut(dsn, "=")
		if !found {
			return pairs
		}
		rest = strings.TrimLeft(rest, blanks)
		end := blanks
		if strings.HasPrefix(rest, "'") {
			end, rest = "'", rest[1:]
		}
		var value strings.Builder
		i := 0
		for ; i < len(rest) && !strings.ContainsRune(end, rune(rest[i])); i++ {
			if rest[i] == '\\' && i+1 < len(rest) {
				i++
			}
			value.WriteByte(rest[i])
		}
		pairs = append(pairs, pair{strings.Trim(key, blanks), value.String()})
		dsn = rest[min(i+1, len(rest)):]
	}
}

// secret reports whether the value of a key is not to be printed.
func secret(key string) bool { return key == "password" || key == "sslpassword" }

// secrets are the passwords of the DSN.
func (t *dsnText) secrets() (secrets []string) {
	secrets = append(secrets, t.pass)
	for _, p := range t.pairs {
		if secret(p.key) {
			secrets = append(secrets, p.value)
		}
	}
	return secrets
}

// with returns the DSN with changes, without its passwords.
func (t *dsnText) with(changes []Change) string {
	pairs := slices.Clone(t.pairs)
	for i, p := range pairs {
		if secret(p.key) {
			pairs[i].value = placeholder
		}
	}
	for _, c := range changes {
		pairs = slices.DeleteFunc(pairs, func(p pair) bool { return p.key == c.Key })
		pairs = append(pairs, pair{c.Key, c.Value})
	}
	var parts []string
	for _, p := range pairs {
		if t.url {
			parts = append(parts, escaped(p.key)+"="+escaped(p.value))
		} else {
			parts = append(parts, p.key+"="+quoted(p.value))
		}
	}
	switch {
	case !t.url:
		return strings.Join(parts, " ")
	case len(parts) == 0:
		return t.head
	}
	return t.head + "?" + strings.Join(parts, "&")
}

// quoted writes a value of a keyword/value DSN.
func quoted(value string) string {
	inside := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value)
	if value == "" || inside != value || strings.ContainsAny(value, blanks) {
		return "'" + inside + "'"
	}
	return value
}
