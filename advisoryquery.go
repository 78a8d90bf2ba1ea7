package retrypg

import (
	"slices"
	"strconv"
	"strings"
)

// lockQuery is a query about advisory locks, with a column for each of them.
type lockQuery uint8

const (
	// takeForSession takes the locks for the session, one after another. Its row tells of each whether it was to be had at once. Who
	// asks with pg_try gets none that others wait for already.
	takeForSession lockQuery = iota
	// takeForTransaction takes them for the transaction.
	takeForTransaction
	// takeOver makes locks of the session those of the transaction. It waits for none: what the session has, the transaction gets, and
	// for what the session has not it must not wait with a snapshot. It fails then, with notTakenOver.
	takeOver
	lockQueries
)

// notTakenOver is in the error of takeOver where the session has not all the locks: that there is no setting of this name.
const notTakenOver = "retrypg.advisory_lock_of_this_session"

var lockColumns = [lockQueries]string{
	takeForSession:     "case when pg_catalog.pg_try_advisory_lock($) then true else pg_catalog.pg_advisory_lock($) is null end",
	takeForTransaction: "case when pg_catalog.pg_try_advisory_xact_lock($) then true else pg_catalog.pg_advisory_xact_lock($) is null end",
	takeOver:           "case when not pg_catalog.pg_try_advisory_xact_lock($) or not pg_catalog.pg_advisory_unlock($) then pg_catalog.current_setting('" + notTakenOver + "') else 't' end",
}

// text is the query for these locks.
func (q lockQuery) text(keys []int64) string {
	return q.with(len(keys), func(i int) string { return strconv.FormatInt(keys[i], 10) })
}

// prepared is the query for n locks, which are its parameters.
func (q lockQuery) prepared(n int) string {
	return q.with(n, func(i int) string { return "$" + strconv.Itoa(i+1) })
}

func (q lockQuery) with(n int, key func(i int) string) string {
	if q == takeForSession && n > 1 && n <= maxPolite {
		return "select " + politely(n, key)
	}
	columns := make([]string, n)
	for i := range columns {
		columns[i] = strings.ReplaceAll(lockColumns[q], "$", key(i))
	}
	return "select " + strings.Join(columns, ", ")
}

// maxPolite is for how many locks takeForSession waits politely. Chosen: the text grows with the cube of that, and a server runs the one for four 40 µs longer than
// one that does not care.
const maxPolite = 3

// politely is an expression that takes n locks for the session, and is true if all were to be had at once. Who waits for one while it has another
// keeps those waiting who want that other one only. So where a lock is not to be had, those that were are given back before it is waited for, and
// the rest is tried again. Where that fails too, they are waited for in their order: nobody starves, and as all who wait either have
// none or go by that order, there is no deadlock. CASE is what keeps the order of evaluation.
func politely(n int, key func(i int) string) string {
	var all []int
	for i := range n {
		all = append(all, i)
	}
	call := func(function string, i int) string { return "pg_catalog.pg_" + function + "(" + key(i) + ")" }
	get := func(i int) string { return " when " + call("advisory_lock", i) + " is null then null" }
	drop := func(held []int) (text string) {
		for _, i := range held {
			text += " when not " + call("advisory_unlock", i) + " then null"
		}
		return text
	}
	var try func(held, rest []int, success string, failure func(held []int, i int) string) string
	try = func(held, rest []int, success string, failure func(held []int, i int) string) string {
		if len(rest) == 0 {
			return success
		}
		i := rest[0]
		return "case when " + call("try_advisory_lock", i) + " then " + try(append(slices.Clip(held), i), rest[1:], success, failure) +
			" else " + failure(held, i) + " end"
	}
	inOrder := func(held []int, _ int) (text string) {
		text = "case" + drop(held)
		for _, i := range all {
			text += get(i)
		}
		return text + " else false end"
	}
	return try(nil, all, "true", func(held []int, i int) string {
		others := slices.DeleteFunc(slices.Clone(all), func(other int) bool { return other == i })
		return "case" + drop(held) + get(i) + " else " + try([]int{i}, others, "false", inOrder) + " end"
	})
}

// name is that of the prepared statement for n locks.
func (q lockQuery) name(n int) string {
	return "retrypg_locks_" + strconv.Itoa(int(q)) + "_" + strconv.Itoa(n)
}

func parameters(keys []int64) [][]byte {
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = strconv.AppendInt(nil, key, 10)
	}
	return values
}

// maxPreparedLocks is for how many locks the queries are prepared. Chosen: a connection has three statements for each number at most.
const maxPreparedLocks = 8

// preparedLocks is for which numbers of locks a query is prepared on a connection, as bits.
type preparedLocks uint16

func (p preparedLocks) has(n int) bool { return p&(1<<n) != 0 }

// preparesLocks reports whether queries for n locks are to be prepared, of which the server then spends half the time.
func (l *link) preparesLocks(n int) bool {
	return n <= maxPreparedLocks && l.preparable && !l.pooled && l.core != nil && !l.core.lockTexts.Load()
}

// hasLockQuery notes that a query for n locks is prepared, if it was to be.
func (l *link) hasLockQuery(q lockQuery, n int) {
	if l.preparesLocks(n) {
		l.lockQueries[q] |= 1 << n
	}
}
