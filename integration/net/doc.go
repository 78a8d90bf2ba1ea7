// Package net holds the tests with a real network between the program and its server: links that go down, packets that are
// dropped, in both directions or in one, and connections that are reset. They have the build tag netns, as they need root on
// Linux with iproute2, iptables and util-linux:
//
//	make test-net
//
// The program and the server are in a network namespace each, joined by a pair of virtual Ethernet devices, and faults are
// injected at the server's end. The namespaces have no names: they end with the processes in them, however these end, and
// two runs at the same time know nothing of each other.
package net
