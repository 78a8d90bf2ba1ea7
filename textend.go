package retrypg

import "strings"

// textEnd returns how a text ended the transaction that was open, whose status before it was was, and whose last tag is tag:
// COMMIT only where it certainly committed. Of several statements in one text pgx shows the last tag alone.
func textEnd(was byte, sql, tag string) string {
	lower := strings.ToLower(sql)
	if was != 'T' || strings.Contains(lower, "rollback") || strings.Contains(lower, "abort") || strings.Contains(lower, "prepare") {
		return "ROLLBACK"
	}
	return tag
}

// mayEndTransaction reports whether a statement of sql may end a transaction. It is asked only of a text whose answer was
// lost: what it ended is not to be run again. A text that cannot be read for certain is taken for one if it holds one of
// the words anywhere.
func mayEndTransaction(sql string) bool {
	t := sqlText{s: sql}
	for {
		for t.i < len(t.s) && t.s[t.i] == ';' {
			t.i++
		}
		if !t.skipBlank() {
			return holdsEnd(sql)
		}
		if t.i == len(t.s) {
			return false
		}
		if t.s[t.i] == ';' {
			continue
		}
		if endsTransaction(t.word()) {
			return true
		}
		for t.i < len(t.s) && t.s[t.i] != ';' {
			if !t.skipToken() {
				return holdsEnd(sql)
			}
		}
	}
}

// endings are the first words of the statements that end a transaction; PREPARE is that of PREPARE TRANSACTION.
var endings = []string{"commit", "end", "rollback", "abort", "prepare"}

func endsTransaction(word string) bool {
	for _, e := range endings {
		if strings.EqualFold(word, e) {
			return true
		}
	}
	return false
}

func holdsEnd(sql string) bool {
	lower := strings.ToLower(sql)
	for _, e := range endings {
		if strings.Contains(lower, e) {
			return true
		}
	}
	return false
}

// maySwitchTransaction reports whether sql may end a transaction and leave another one open, which the server's status
// then does not show: several statements in one text, or AND CHAIN. It looks no further into a single statement than its
// first word.
func maySwitchTransaction(sql string) bool {
	if i := strings.IndexByte(sql, ';'); i >= 0 && strings.Trim(sql[i+1:], "; \t\r\n\f") != "" {
		return mayEndTransaction(sql)
	}
	t := sqlText{s: sql}
	return t.skipBlank() && endsTransaction(t.word()) && strings.Contains(strings.ToLower(sql[t.i:]), "chain")
}

// mayWrite reports whether sql may be what makes a READ ONLY transaction read-write: PostgreSQL allows that before the first
// query, by SET, and by a BEGIN with a mode of its own, which it otherwise only warns about.
func mayWrite(sql string) bool {
	t := sqlText{s: sql}
	if strings.IndexByte(sql, ';') < 0 && t.skipBlank() {
		switch strings.ToLower(t.word()) {
		case "set", "begin", "start":
		default:
			return false
		}
	}
	lower := strings.ToLower(sql)
	return strings.Contains(lower, "write") || strings.Contains(lower, "read_only")
}
