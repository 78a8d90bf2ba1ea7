// Package compat holds tests that run what is written for database/sql and pgx over both drivers: each program runs once
// over "pgx" and once over "retrypg", and everything it sees, errors included, must be the same. It is a module of its own
// so that nobody else has to build the libraries.
package compat
