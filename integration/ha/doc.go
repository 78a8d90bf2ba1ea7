// Package ha holds the tests of the library against a cluster that manages itself: three PostgreSQL servers under Patroni,
// with etcd, and HAProxy and PgBouncer in front of them. They have the build tag ha, as these programs must be installed,
// and run on Linux:
//
//	make test-ha
//
// In every event, a switchover, the death of the primary, of its whole node, and a node that stands still, writers work
// through four ways at once: the list of all servers as one connection string, through database/sql and through the pool,
// HAProxy, and PgBouncer before HAProxy. What each was told is compared with what is there in the end.
//
// At the end a table says how long each way was without a success, beside the time that the cluster itself needed: the time
// in which a probe that asks every server directly, every few milliseconds, found none that took a write.
//
// Replication is synchronous, so that a failover loses nothing that was told to be there.
//
// Two tests need one server only: each has, on purpose, what the cluster came upon by chance.
package ha
