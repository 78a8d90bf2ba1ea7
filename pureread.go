package retrypg

import "strings"

// pureRead reports whether sql is one statement that reads and, as far as a text tells, does nothing else: a SELECT, VALUES or TABLE
// that locks no rows and calls no function but those of readingWords. Whatever leaves a doubt is none. A view or an operator may
// still call a function.
//
// The work is linear in the length of sql.
func pureRead(sql string) bool {
	if !rerunnable(sql) {
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
	for t.i < len(t.s) {
		start := t.i
		named := t.s[start] == '"' // a quoted name
		word := ""
		if c := t.s[start]; isWordByte(c) && (c < '0' || c > '9') {
			word = t.word()
			t.i = start
		}
		switch strings.ToLower(word) {
		case "for", "into": // rows are locked, or a table is made
			return false
		}
		if !t.skipToken() {
			return false
		}
		if !named && word == "" {
			continue
		}
		if !t.skipBlank() {
			return false
		}
		if t.at("(") && (named || !readingWords[strings.ToLower(word)]) {
			return false
		}
	}
	return true
}

// readingWords are the keywords and functions that may stand before a parenthesis in a text that does nothing but read. Of the functions of
// PostgreSQL those are here that are immutable, or aggregates, and common.
var readingWords = func() map[string]bool {
	words := make(map[string]bool)
	for word := range strings.FieldsSeq(`
		select distinct on all any some in not and or exists between case when then else values from join using where by having limit
		offset union except intersect as over filter partition array row cast coalesce nullif greatest least
		count sum min max avg bool_and bool_or every array_agg string_agg json_agg jsonb_agg
		abs ceil ceiling floor round trunc mod sign length char_length lower upper trim btrim ltrim rtrim left right replace strpos
		concat concat_ws md5 numeric decimal varchar char bit timestamp timestamptz time interval
		cardinality array_length array_position unnest row_number rank dense_rank lag lead first_value last_value`) {
		words[word] = true
	}
	return words
}()
