// Package breaker has a circuit breaker: it keeps callers from trying what has just failed several times in a row.
//
// A [Breaker] is in one of three states.
//
//   - Closed: everything is allowed. [Options.Failures] failures without a success between them, all within
//     [Options.Window], open it.
//   - Open: everything is refused, with an [*OpenError] that says when to come back. After [Options.OpenFor] it is
//     half-open, by the clock, whether anybody asks or not.
//   - Half-open: up to [Options.Probes] attempts at a time are allowed, as probes. [Options.ProbeSuccesses] successes
//     close it, one failure opens it again.
//
// Each state begins a new generation. The result of an attempt counts only in the generation that allowed it, so what was
// started before an outage decides nothing after it. A probe holds its place on a lease: if its result never comes, the
// place is free again after [Options.ProbeLease], so a lost probe cannot keep the breaker half-open for ever.
//
// An attempt ends in one of three ways: [Permit.Success], [Permit.Failure], or [Permit.Ignore] for what says nothing about
// the health of the server, such as a caller that cancelled.
//
// While it is closed and no failure has been reported since the last success, asking and reporting success take no lock,
// read no clock, allocate nothing and write nothing. While it is open, refusing takes no lock, reads no clock and allocates
// nothing either, until a tenth of a second before the end: a timer says when that is. It is the only one, no goroutine
// waits, and a Breaker that nobody uses any more is freed though its timer runs. A nil *Breaker allows everything.
package breaker
