// Package soak checks, with random faults under load, which one seed chooses together with the work, that what was told about
// each transaction is what is there. It runs for a short time with the other tests, and for as long as asked with
//
//	make soak SOAK=10m
//
// Two histories are written at the same time: transfers between accounts, whose sum must stay, and lists that are
// appended to and read under SERIALIZABLE, where every read must be a prefix of what the list became.
package soak
