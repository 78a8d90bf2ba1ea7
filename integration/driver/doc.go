// Package driver holds the tests of the database/sql driver against real servers and real faults: what pgx itself reports,
// what callers of database/sql see through retrypg, and how many rows are there afterwards.
package driver
