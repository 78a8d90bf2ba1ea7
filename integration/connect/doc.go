// Package connect holds the tests of connecting, of pools, of waiting for a server, and of what all of these record,
// against real servers and through the fault proxy.
package connect
