// Package sqlstate is the table of PostgreSQL's SQLSTATE codes and of what each one says about retrying.
//
// sqlstate.tsv is the source. Its codes, condition names and classes are those of PostgreSQL's
// src/backend/utils/errcodes.txt (development branch of PostgreSQL 20, 2026-08-22; it contains every code of the
// supported releases). The columns retry, outcome and why are this project's judgement, read from the server's source
// and from experiments. table.go is generated from it.
//
// A row says what the code means when a PostgreSQL server sends it in the usual way. Severity, routine and speaker can
// change that: the root package refines it.
package sqlstate

import "sort"

//go:generate go run gen.go

// Retry says what heals the condition. The numbers are those of the root package's type of the same name.
type Retry uint8

// The values of [Retry]; the root package documents them.
const (
	Never Retry = iota
	Statement
	Transaction
	Reconnect
	Wait
	Failover
)

// Outcome says what the condition proves. The numbers are those of the root package's type of the same name.
type Outcome uint8

// The values of [Outcome]; the root package documents them.
const (
	Unknown Outcome = iota
	NotStarted
	RolledBack
	Committed
)

// Entry is one code.
type Entry struct {
	// Code is the five-character SQLSTATE.
	Code string
	// Name is PostgreSQL's condition name, as in "deadlock_detected". It is not unique.
	Name string
	// Class is the title of the code's class, as in "Transaction Rollback".
	Class string
	// Retry says what heals the condition.
	Retry Retry
	// Outcome says what the condition proves.
	Outcome Outcome
	// Why gives the reason in one sentence.
	Why string
}

// Lookup returns the entry of code and whether there is one. It does not allocate.
func Lookup(code string) (Entry, bool) {
	i := sort.Search(len(table), func(i int) bool { return table[i].Code >= code })
	if i < len(table) && table[i].Code == code {
		return table[i], true
	}
	return Entry{}, false
}

// Entries returns a copy of the whole table, in the order of the codes.
func Entries() []Entry {
	return append([]Entry(nil), table[:]...)
}
