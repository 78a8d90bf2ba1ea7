package retrypg

import (
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
	// for what the session has not it must not wait with a snapshot. Its row tells of each whether that was so.
	takeOver
	lockQueries
)

var lockColumns = [lockQueries]string{
	takeForSession:     "case when pg_catalog.pg_try_advisory_lock($) then true else pg_catalog.pg_advisory_lock($) is null end",
	takeForTransaction: "case when pg_catalog.pg_try_advisory_xact_lock($) then true else pg_catalog.pg_advisory_xact_lock($) is null end",
	takeOver:           "pg_catalog.pg_try_advisory_xact_lock($) and pg_catalog.pg_advisory_unlock($)",
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
	columns := make([]string, n)
	for i := range columns {
		columns[i] = strings.ReplaceAll(lockColumns[q], "$", key(i))
	}
	return "select " + strings.Join(columns, ", ")
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
