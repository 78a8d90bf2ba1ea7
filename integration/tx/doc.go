// Package tx holds the tests of WithTx and WithPgxTx against real servers: one suite over everything that a transaction
// can be run on, and crash tests that count what was told against what is there.
package tx
