package retrypg

import (
	"strings"

	"github.com/retrypg/retrypg/internal/dsntext"
)

// dsnPairs lists what a DSN that pgx has parsed gives, in order, repetitions included: pgx itself keeps the last only.
// The password of a URL's user part is listed as well. ambiguous is true for a URL in which a password may have been
// taken for something else: one with an unescaped '/' or '?' leaves its '@' behind in the path or the query.
func dsnPairs(dsn string) (pairs []dsntext.Pair, ambiguous bool) {
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(dsn, scheme); ok {
			return urlPairs(rest)
		}
	}
	return dsntext.Keywords(dsn), false
}

func urlPairs(rest string) (pairs []dsntext.Pair, ambiguous bool) {
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		if _, password, ok := strings.Cut(rest[:i], ":"); ok {
			pairs = append(pairs, dsntext.Pair{Key: "password", Value: dsntext.Unescaped(password)})
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
		pairs = append(pairs, dsntext.Pair{Key: dsntext.Unescaped(key), Value: dsntext.Unescaped(value)})
	}
	return pairs, ambiguous
}
