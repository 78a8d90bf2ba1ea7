// Package commit holds the tests of what is told about a COMMIT whose answer was lost: by exact cuts around it, through
// failovers, under synchronous replication. What was told is compared with what is in the table.
package commit
