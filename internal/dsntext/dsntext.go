// Package dsntext reads the text of a DSN as pgx and libpq do, below what their parsers tell of it: which keys are written, in
// which order, and how often.
package dsntext

import (
	"net/url"
	"strings"
)

// Pair is one key of a DSN with its value, as written once.
type Pair struct{ Key, Value string }

// Blanks are the characters that separate the pairs of a keyword/value DSN.
const Blanks = " \t\n\r\v\f"

// Unescaped decodes %xx in a part of a URL as PostgreSQL does: '+' stays, spaces around are dropped. What cannot be decoded
// comes back as it is.
func Unescaped(s string) string {
	if u, err := url.PathUnescape(strings.Trim(s, " ")); err == nil {
		return u
	}
	return s
}

// Keywords returns the pairs of a keyword/value DSN, with the rules of libpq: values with blanks are in quotes, and \ makes the
// next character one of the value.
func Keywords(dsn string) (pairs []Pair) {
	for {
		key, rest, ok := strings.Cut(dsn, "=")
		if !ok {
			return pairs
		}
		rest = strings.TrimLeft(rest, Blanks)
		end := Blanks
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
		pairs = append(pairs, Pair{strings.Trim(key, Blanks), string(value)})
		if rest == "" {
			return pairs
		}
		dsn = rest[1:]
	}
}
