// Package piggyback lets messages travel with the flights of another user of a PostgreSQL connection, and keeps their answers
// from that user: BEGIN with the first statement of a transaction, and a question or COMMIT with a later one, cost no round trip of
// their own.
//
// It relies on what the protocol promises (PostgreSQL documentation, "Message Flow", extended query): after an error the server skips
// all messages up to the next Sync. So a statement that travels behind a BEGIN that is refused is not run. That holds for a simple
// Query too, which the server skips like any other message (ignore_till_sync in src/backend/tcop/postgres.c); what stands between
// client and server may see that differently, so there it is for the caller to say whether a Query may travel like that.
//
// Only what is written through it can carry something: pgconn's ExecBatch, by which pgx sends a batch in QueryExecModeExec, writes to
// the connection itself. Before that may happen BEGIN must have been sent.
package piggyback
