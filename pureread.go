package retrypg

import "strings"

// pureRead reports whether sql is one statement that reads and, as far as a text tells, does nothing else: a SELECT, VALUES or TABLE
// that locks no rows and calls no function but those of readingWords. Whatever leaves a doubt is none. A view, an operator, a cast, or a
// function of the user's that has the name of one of PostgreSQL's, may still do more.
//
// The work is linear in the length of sql.
func pureRead(sql string) bool {
	if !rerunnable(sql) || strings.IndexFunc(sql, unusualBlank) >= 0 {
		return false
	}
	t := sqlText{s: sql}
	t.skipBlank()
	switch word := t.word(); {
	case strings.EqualFold(word, "select"), strings.EqualFold(word, "values"):
		t.i -= len(word) // it may be followed by a parenthesis
	case !strings.EqualFold(word, "table"):
		return false
	}
	qualified := false // behind a dot, only a function stands before a parenthesis
	for t.i < len(t.s) {
		start := t.i
		named := t.s[start] == '"' // a quoted name
		word := ""
		if isWordByte(t.s[start]) {
			word = strings.ToLower(t.word())
			t.i = start
		}
		switch {
		case word == "for", word == "into": // rows are locked, or a table is made
			return false
		case word == "current_timestamp", word == "current_time", word == "localtimestamp", word == "localtime":
			return false // the next transaction has another one
		case word != "" && '0' <= word[0] && word[0] <= '9' && !decimal(word):
			return false // up to PostgreSQL 14 it is a number and a word
		}
		if !t.skipToken() || !t.skipBlank() {
			return false
		}
		if t.at("(") && (named || word != "" && (qualified || !readingWords[word])) {
			return false
		}
		qualified = t.s[start] == '.'
	}
	return true
}

// unusualBlank reports whether a character may be a blank to the server that sqlText does not know: PostgreSQL 16 has made the vertical tab one.
func unusualBlank(r rune) bool { return r < ' ' && !strings.ContainsRune(" \t\n\r\f", r) }

// decimal reports whether a word that begins with a digit is a number, or one up to the sign of its exponent.
func decimal(word string) bool {
	digits, exponent, _ := strings.Cut(word, "e")
	return strings.Trim(digits+exponent, "0123456789") == ""
}

// readingWords are the keywords and functions that may stand before a parenthesis in a text that does nothing but read. Of the functions of
// PostgreSQL those are here that are immutable, or aggregates, and common; of the keywords those of which a function cannot have the name.
var readingWords = func() map[string]bool {
	words := make(map[string]bool)
	for word := range strings.FieldsSeq(`
		select distinct on all any some in not and or exists between case when then else values from join using where having limit
		offset union except intersect as array row cast coalesce nullif greatest least
		count sum min max avg bool_and bool_or every array_agg string_agg json_agg jsonb_agg
		abs ceil ceiling floor round trunc mod sign length char_length lower upper trim btrim ltrim rtrim left right replace strpos
		concat concat_ws md5 numeric decimal varchar char bit timestamp timestamptz time interval
		cardinality array_length array_position unnest`) {
		words[word] = true
	}
	return words
}()
