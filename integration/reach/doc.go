// Package reach measures how soon callers are served again after an outage, and what they are told of it: the server appears
// late, crashes, fails over, falls silent, loses its role, is full, loses connections, or vanishes behind a broken network.
//
// Each situation is one function, in a file of its own, which is used twice. A test runs it with the two clients of this
// module and requires what must hold on any machine: nobody is told of an error, nothing is lost or written twice, the
// server is not asked more often than was said. And
//
//	make chaos CHAOS=5
//
// runs it several times, with plain pgx beside it, and prints a table of what was measured.
package reach
