// Package pgbouncer holds the tests of commits whose answer was lost with a real PgBouncer in between, in transaction and
// session pooling. They have the build tag pgbouncer, as the program must be installed:
//
//	make test-pgbouncer
package pgbouncer
