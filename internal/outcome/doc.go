// Package outcome finds out what became of a COMMIT whose answer was lost.
//
// A transaction id alone does not tell: after a crash PostgreSQL hands out ids again whose WAL was not flushed, and after
// the promotion of an asynchronous standby those that it never received. pg_xact_status then answers for another
// transaction. So an id is believed only together with the [Identity] of the server that it was read with: cluster, timeline
// and crash epoch. "aborted" is true in any case; "committed" of another epoch or timeline is not taken for an answer.
//
// A [Token] in a ledger table is exact everywhere: it is there if and only if the transaction committed, and who inserts it
// again waits for the first inserter's end.
//
// [Resolver] asks, again and again while the transaction is in progress, and ends it (fences it) where it would go on for
// ever because its COMMIT never arrived. What it asks is text of the simple protocol, one message each, so that it works
// through every pooler. The rules are in decide.go, apart from all input and output.
package outcome
