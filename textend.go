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

// mayEndTransaction reports whether a statement of sql may end a transaction. A text that cannot be read for certain is
// taken for one if it holds one of the words anywhere.
func mayEndTransaction(sql string) bool {
	may, _ := endsTransaction(sql)
	return may
}

// endsTransaction is mayEndTransaction; certain says that the text could be read, so that it does if it succeeds.
func endsTransaction(sql string) (may, certain bool) {
	t := sqlText{s: sql}
	for {
		for t.i < len(t.s) && t.s[t.i] == ';' {
			t.i++
		}
		if !t.skipBlank() {
			return holdsEnd(sql), false
		}
		if t.i == len(t.s) {
			return false, true
		}
		if t.s[t.i] == ';' {
			continue
		}
		if t.ending() {
			return true, true
		}
		for t.i < len(t.s) && t.s[t.i] != ';' {
			if !t.skipToken() {
				return holdsEnd(sql), false
			}
		}
	}
}

// ending consumes the first words of a statement and reports whether it is one that ends a transaction.
func (t *sqlText) ending() bool {
	switch strings.ToLower(t.word()) {
	case "commit", "end", "abort":
		return true
	case "rollback":
		next := t.nextWord()
		if next == "work" || next == "transaction" {
			next = t.nextWord()
		}
		return next != "to" // TO SAVEPOINT
	case "prepare":
		return t.nextWord() == "transaction"
	}
	return false
}

// nextWord consumes blanks and a word, and returns it in lower case.
func (t *sqlText) nextWord() string {
	if !t.skipBlank() {
		return ""
	}
	return strings.ToLower(t.word())
}

// endings are the first words of the statements that end a transaction.
var endings = []string{"commit", "end", "rollback", "abort", "prepare"}

func holdsEnd(sql string) bool {
	lower := strings.ToLower(sql)
	for _, e := range endings {
		if strings.Contains(lower, e) {
			return true
		}
	}
	return false
}

// several reports whether a text may be more than one statement.
func several(sql string) bool {
	i := strings.IndexByte(sql, ';')
	return i >= 0 && strings.Trim(sql[i+1:], "; \t\r\n\f") != ""
}

// maySwitchTransaction reports whether sql may end a transaction and leave another one open, which the server's status
// then does not show: several statements in one text, or AND CHAIN; certain says that it does if it succeeds and leaves one
// open. It looks no further into a single statement than its first words.
func maySwitchTransaction(sql string) (may, certain bool) {
	if several(sql) {
		return endsTransaction(sql)
	}
	t := sqlText{s: sql}
	if !t.skipBlank() || !t.ending() {
		return false, false
	}
	words := strings.Join(strings.Fields(strings.ToLower(strings.TrimRight(sql, "; \t\r\n\f"))), " ")
	return strings.Contains(words, "chain"), strings.HasSuffix(words, " and chain")
}

// mayWrite reports whether sql may be what makes a READ ONLY transaction read-write: PostgreSQL allows that before the first
// query, by SET and RESET, and by a BEGIN with a mode of its own, which it otherwise only warns about; or whether it is NOTIFY,
// which a READ ONLY transaction may do.
func mayWrite(sql string) bool {
	t := sqlText{s: sql}
	if !several(sql) && t.skipBlank() {
		switch strings.ToLower(t.word()) {
		case "set", "reset", "begin", "start":
		case "notify":
			return true
		default:
			return false
		}
	}
	lower := strings.ToLower(sql)
	return strings.Contains(lower, "write") || strings.Contains(lower, "read_only") || strings.Contains(lower, "notify")
}

// settingOf reports whether sql is a single SET or RESET, and whether it may set a characteristic of the transaction: its
// isolation level, mode or snapshot, which PostgreSQL refuses after the first query.
func settingOf(sql string) (set, characteristic bool) {
	t := sqlText{s: sql}
	if !t.skipBlank() {
		return false, false
	}
	switch strings.ToLower(t.word()) {
	case "begin", "start":
		return false, true
	case "set", "reset":
	default:
		return false, false
	}
	if several(sql) {
		return false, strings.Contains(strings.ToLower(sql), "transaction")
	}
	name := t.nextWord()
	if name == "local" || name == "session" {
		name = t.nextWord()
	}
	switch name {
	case "transaction", "transaction_isolation", "transaction_read_only", "transaction_deferrable":
		return true, true
	}
	return true, false
}
