package retrypg

import (
	"net/url"
	"strings"
)

// dsnPair is one key of a DSN with its value, as written once.
type dsnPair struct{ key, value string }

// dsnPairs lists what a DSN that pgx has parsed gives, in order, repetitions included: pgx itself keeps the last only.
// The password of a URL's user part is listed as well. ambiguous is true for a URL in which a password may have been
// taken for something else: one with an unescaped '/' or '?' leaves its '@' behind in the path or the query.
func dsnPairs(dsn string) (pairs []dsnPair, ambiguous bool) {
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(dsn, scheme); ok {
			return urlPairs(rest)
		}
	}
	return keywordPairs(dsn), false
}

func urlPairs(rest string) (pairs []dsnPair, ambiguous bool) {
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		if _, password, ok := strings.Cut(rest[:i], ":"); ok {
			pairs = append(pairs, dsnPair{"password", unescaped(password)})
		}
		rest = rest[i+1:]
	}
	ambiguous = strings.Contains(rest, "@")
	// An address in brackets may contain anything but its closing bracket.
	for host := true; host; {
		if strings.HasPrefix(rest, "[") {
			if i := strings.IndexByte(rest, ']'); i >= 0 {
				rest = rest[i:]
			}
		}
		i := strings.IndexAny(rest, ",/?")
		if i < 0 {
			return pairs, ambiguous
		}
		host = rest[i] == ','
		if host {
			rest = rest[i+1:]
		} else {
			rest = rest[i:]
		}
	}
	_, query, _ := strings.Cut(rest, "?")
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(pair, "=")
		pairs = append(pairs, dsnPair{unescaped(key), unescaped(value)})
	}
	return pairs, ambiguous
}

// unescaped decodes %xx as PostgreSQL does: '+' stays, spaces around are dropped.
func unescaped(s string) string {
	if u, err := url.PathUnescape(strings.Trim(s, " ")); err == nil {
		return u
	}
	return s
}

func keywordPairs(dsn string) (pairs []dsnPair) {
	const space = " \t\n\r\v\f"
	for {
		key, rest, ok := strings.Cut(dsn, "=")
		if !ok {
			return pairs
		}
		rest = strings.TrimLeft(rest, space)
		end := space
		if strings.HasPrefix(rest, "'") {
			end, rest = "'", rest[1:]
		}
		var value []byte
		for rest != "" && strings.IndexByte(end, rest[0]) < 0 {
			if rest[0] == '\\' {
				if rest = rest[1:]; rest == "" {
					break
				}
			}
			value = append(value, rest[0])
			rest = rest[1:]
		}
		pairs = append(pairs, dsnPair{strings.Trim(key, space), string(value)})
		if rest == "" {
			return pairs
		}
		dsn = rest[1:]
	}
}
