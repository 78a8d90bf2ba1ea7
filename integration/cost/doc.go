// Package cost measures, on a real server that syncs its WAL to disk, what a transaction or a statement costs more through retrypg than
// through pgx alone. Its benchmarks take the variants in turns within one run and report ratios of medians: absolute times
// say more about the machine. Run them with
//
//	make bench-commit
//
// Its test counts, on the wire, how many round trips each kind of transaction takes.
package cost
