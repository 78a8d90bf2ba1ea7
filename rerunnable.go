package retrypg

import "strings"

// rerunnable says whether sql may be sent again after the server has rolled it back because of a deadlock or a
// serialization failure outside a transaction. It is true only if sql is provably one statement whose first keyword is
// SELECT, INSERT, UPDATE, DELETE, MERGE, WITH, VALUES or TABLE. Of these the server leaves nothing behind but what no
// rollback ever takes back (sequences, advisory locks of the session, dblink).
//
// Everything else is refused. CALL and DO may have committed a part. CREATE INDEX CONCURRENTLY and its like leave an
// invalid index. Text with several statements may hold a COMMIT. EXPLAIN ANALYZE, EXECUTE and the utility commands are
// not worth the proof. COPY is refused although its database side is rolled back: sent as a statement it reads or writes
// files and programs of the server, and those are not.
//
// Refused as well is any text whose reading depends on a setting or on the server's version: a backslash before the
// closing quote of a plain string (standard_conforming_strings), a string constant continued after an E'...' one, a $
// within a word, a psql backslash, an ideographic or other unusual blank before the keyword. pgx sends a prepared statement
// where the text is the name of one: a name of several words that reads like a statement cannot be told from one.
//
// The work is linear in the length of sql.
func rerunnable(sql string) bool {
	t := sqlText{s: sql}
	if !t.skipBlank() {
		return false
	}
	if !t.plans() {
		return false
	}
	if t.at("$") || t.i == len(t.s) {
		return false // one word alone: pgx takes it for the name of a prepared statement, if there is one
	}
	for t.i < len(t.s) {
		if t.s[t.i] == ';' {
			t.i++
			return t.skipBlank() && t.i == len(t.s)
		}
		if !t.skipToken() {
			return false
		}
	}
	return true
}

// plans consumes a word and reports whether a statement that begins with it is one that the server plans.
func (t *sqlText) plans() bool {
	switch word := t.word(); {
	case strings.EqualFold(word, "select"), strings.EqualFold(word, "insert"), strings.EqualFold(word, "update"),
		strings.EqualFold(word, "delete"), strings.EqualFold(word, "merge"), strings.EqualFold(word, "with"),
		strings.EqualFold(word, "values"), strings.EqualFold(word, "table"):
		return true
	}
	return false
}

// sqlText is a position in a text, read by the rules of PostgreSQL's lexer (src/backend/parser/scan.l).
type sqlText struct {
	s string
	i int
}

// at reports whether the text goes on with prefix.
func (t *sqlText) at(prefix string) bool { return strings.HasPrefix(t.s[t.i:], prefix) }

// word consumes a keyword or an identifier without quotes; it is empty if there is none here.
func (t *sqlText) word() string {
	start := t.i
	for t.i < len(t.s) && isWordByte(t.s[t.i]) {
		t.i++
	}
	return t.s[start:t.i]
}

// isWordByte: letters, digits, underscore, and all of a character outside ASCII. The dollar sign, which PostgreSQL
// allows in identifiers too, is left out: where it follows a word the text is refused.
func isWordByte(c byte) bool {
	return c == '_' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// skipBlank consumes white space and comments. It is false if a comment does not end.
func (t *sqlText) skipBlank() bool {
	for t.i < len(t.s) {
		switch {
		case strings.IndexByte(" \t\n\r\f", t.s[t.i]) >= 0:
			t.i++
		case t.at("--"):
			end := strings.IndexAny(t.s[t.i:], "\r\n")
			if end < 0 {
				t.i = len(t.s)
				return true
			}
			t.i += end + 1
		case t.at("/*"):
			if !t.skipBlockComment() {
				return false
			}
		default:
			return true
		}
	}
	return true
}

// skipBlockComment consumes a comment that begins here. Such comments nest.
func (t *sqlText) skipBlockComment() bool {
	depth := 0
	for t.i < len(t.s) {
		switch {
		case t.at("/*"):
			depth++
			t.i += 2
		case t.at("*/"):
			depth--
			t.i += 2
			if depth == 0 {
				return true
			}
		default:
			t.i++
		}
	}
	return false
}

// skipToken consumes one token other than a semicolon, or blanks. It is false if the token is doubtful.
func (t *sqlText) skipToken() bool {
	switch c := t.s[t.i]; {
	case c == 0 || c == '\\':
		return false
	case strings.IndexByte(" \t\n\r\f", c) >= 0, t.at("--"), t.at("/*"):
		return t.skipBlank()
	case c == '\'':
		return t.skipPlainString()
	case c == '"':
		return t.skipQuotedName()
	case c == '$':
		return t.skipDollar()
	case isWordByte(c):
		word := t.word()
		if t.i == len(t.s) {
			return true
		}
		switch {
		case t.s[t.i] == '$':
			return false
		case t.s[t.i] == '\'' && strings.EqualFold(word, "e"):
			return t.skipEscapeString()
		}
		// Other prefixes (B, N, X, U&) do not change where a string ends.
		return true
	}
	t.i++
	return true
}

// skipPlainString consumes '...', in which a quote is written twice. A backslash before a quote is doubtful: with
// standard_conforming_strings off it would hide the quote.
func (t *sqlText) skipPlainString() bool {
	for t.i++; t.i < len(t.s); t.i++ {
		switch t.s[t.i] {
		case 0:
			return false
		case '\\':
			if t.i+1 < len(t.s) && t.s[t.i+1] == '\'' {
				return false
			}
		case '\'':
			t.i++
			if t.i == len(t.s) || t.s[t.i] != '\'' {
				return true
			}
		}
	}
	return false
}

// skipEscapeString consumes the quoted part of E'...', in which a backslash hides the next byte. PostgreSQL continues
// a string in the next line by the rules of its first part; another string that follows is therefore doubtful.
func (t *sqlText) skipEscapeString() bool {
	for t.i++; t.i < len(t.s); t.i++ {
		switch t.s[t.i] {
		case 0:
			return false
		case '\\':
			t.i++
		case '\'':
			t.i++
			if t.i == len(t.s) {
				return true
			}
			if t.s[t.i] != '\'' {
				return t.skipBlank() && !t.at("'")
			}
		}
	}
	return false
}

// skipQuotedName consumes "...", in which a quote is written twice and a backslash means nothing.
func (t *sqlText) skipQuotedName() bool {
	for t.i++; t.i < len(t.s); t.i++ {
		switch t.s[t.i] {
		case 0:
			return false
		case '"':
			t.i++
			if t.i == len(t.s) || t.s[t.i] != '"' {
				return true
			}
		}
	}
	return false
}

// skipDollar consumes a parameter such as $1, or a string between two equal $tag$.
func (t *sqlText) skipDollar() bool {
	start := t.i
	t.i++
	word := t.word()
	if word != "" && '0' <= word[0] && word[0] <= '9' {
		return strings.Trim(word, "0123456789") == "" && !t.at("$")
	}
	if !t.at("$") {
		return false
	}
	t.i++
	tag := t.s[start:t.i]
	end := strings.Index(t.s[t.i:], tag)
	if end < 0 {
		return false
	}
	t.i += end + len(tag)
	return true
}
