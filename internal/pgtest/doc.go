// Package pgtest runs throwaway PostgreSQL clusters and breaks them on purpose.
//
// It has two halves. [Start] makes a real cluster in a temporary directory, in a few hundred milliseconds, and the
// methods of [Cluster] stop, kill, freeze, clone and promote it. [NewProxy] puts a TCP proxy that reads the PostgreSQL
// protocol in front of any server, so that a connection can be cut at one exact message.
//
// Nothing here needs the testing package, so that the demo of the command line tool can use it; package pgt adds what
// tests want. Nothing outlives the process: see the type [Cluster].
//
// Environment:
//
//	RETRYPG_PG_BIN      directory of postgres and initdb to use
//	RETRYPG_PG_VERSION  major version to use, such as 17
//	RETRYPG_CACHE       directory for downloaded servers and cluster templates, instead of the user's cache directory
//	RETRYPG_TEST_DSN    a server that is already running, for tests that need one server only: see [ExternalDSN]
package pgtest
