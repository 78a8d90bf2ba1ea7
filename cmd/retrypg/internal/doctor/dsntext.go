package doctor

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/retrypg/retrypg/internal/dsntext"
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
	pairs []dsntext.Pair
}

// parseText takes a DSN apart.
func parseText(dsn string) (*dsnText, error) {
	scheme, rest, found := strings.Cut(dsn, "://")
	if !found || scheme != "postgres" && scheme != "postgresql" {
		return &dsnText{pairs: dsntext.Keywords(dsn)}, nil
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
			t.pass = dsntext.Unescaped(password)
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
			t.pairs = append(t.pairs, dsntext.Pair{Key: dsntext.Unescaped(key), Value: dsntext.Unescaped(value)})
		}
	}
	return t, nil
}

// escaped encodes what dsntext.Unescaped decodes.
func escaped(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// secret reports whether the value of a key is not to be printed.
func secret(key string) bool { return key == "password" || key == "sslpassword" }

// secrets are the passwords of the DSN.
func (t *dsnText) secrets() (secrets []string) {
	secrets = append(secrets, t.pass)
	for _, p := range t.pairs {
		if secret(p.Key) {
			secrets = append(secrets, p.Value)
		}
	}
	return secrets
}

// with returns the DSN with changes, without its passwords.
func (t *dsnText) with(changes []Change) string {
	pairs := slices.Clone(t.pairs)
	for i, p := range pairs {
		if secret(p.Key) {
			pairs[i].Value = placeholder
		}
	}
	for _, c := range changes {
		pairs = slices.DeleteFunc(pairs, func(p dsntext.Pair) bool { return p.Key == c.Key })
		pairs = append(pairs, dsntext.Pair{Key: c.Key, Value: c.Value})
	}
	var parts []string
	for _, p := range pairs {
		if t.url {
			parts = append(parts, escaped(p.Key)+"="+escaped(p.Value))
		} else {
			parts = append(parts, p.Key+"="+quoted(p.Value))
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
	if value == "" || inside != value || strings.ContainsAny(value, dsntext.Blanks) {
		return "'" + inside + "'"
	}
	return value
}
