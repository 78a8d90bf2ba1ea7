// Package metrics holds the OpenTelemetry instruments and the operation spans of retrypg, and the lines that it writes
// to a [log/slog.Logger].
//
// It imports the OpenTelemetry API and the standard library, nothing else: it is fed by the packages above it, through
// a [Recorder] and a [Logger]. All methods of both work on a nil pointer and do nothing then. Programs need none of these,
// but only the names: [Instruments] and the constants Attr* and Op*.
//
// # Instruments
//
//	name                           kind           unit           meaning
//	retry.attempts                 counter        {attempt}      attempts made, the first of each operation included
//	retry.successes                counter        {operation}    operations that succeeded in the end
//	retry.failures                 counter        {operation}    operations that failed in the end, by the reason for giving up
//	retry.backoff_duration         histogram      s              wait chosen before each further attempt
//	retry.operation_attempts       histogram      {attempt}      attempts of an operation that took more than one
//	retry.operation_duration       histogram      s              time that an operation took which succeeded in the end
//	retry.lost_duration            histogram      s              time that an operation of several attempts had lost when its last one began
//	retry.connect_wait_duration    histogram      s              time that a caller spent connecting while the server was away, be it in vain
//	retry.admission.wait_duration  histogram      s              time that an attempt of a transaction waited for its turn because transactions were in each other's way
//	retry.admission.limit          gauge          {transaction}  lowest limit of transactions of one name that run at a time; nothing while there is none
//	retry.admission.waiting        gauge          {transaction}  transactions that wait for their turn
//	retry.outage_duration          histogram      s              time from when the server was found to be away until it let a caller in again, or nobody looked any more
//	retry.commit_checks            counter        {check}        commits whose answer was lost, by what was found out about them
//	retry.commit_unreplicated      counter        {transaction}  transactions that committed although the wait for their synchronous standbys was ended
//	retry.evictions                counter        {connection}   pooled connections dropped before use, by reason
//	retry.server.up                gauge          {state}        whether the server can be reached: 1 yes, 0 no, nothing while nobody has looked for a while
//	retry.breaker.state            gauge          {state}        state of the breaker: 0 closed, 1 half-open, 2 open
//	retry.budget.tokens            gauge          {token}        retries that the budget would allow now
//	db.client.connection.count     updowncounter  {connection}   connections of a Pool, idle and used
//	db.client.connection.max       updowncounter  {connection}   connections that a Pool may have
//
// An operation that took one attempt is in retry.successes or in retry.failures, and not in retry.operation_attempts: to
// record it there would cost each call as much as its duration does. So of how many there was one attempt only is known too,
// and the mean number of attempts is retry.attempts by retry.successes and retry.failures, of which those that a breaker
// refused (retry.stop_reason=breaker_open) had none.
//
// [Instruments] returns the same table as data, with the attributes of each. Durations are sorted into buckets from
// 1 ms to 60 s; a view of the SDK can replace them.
//
// # Attributes
//
// Every value is of a bounded set, whatever is passed in: an operation, a stop reason or an eviction reason that is not
// known becomes "other", and what does not have the form of a SQLSTATE is left out of db.response.status_code. A Recorder
// keeps at most 1,024 combinations of operation, stop reason and SQLSTATE apart; a SQLSTATE that would exceed that is
// recorded as "other". Neither SQL text nor arguments, nor names of users and databases, are ever recorded, and of an
// error only its SQLSTATE or its Go type.
//
// # Spans
//
// One operation, that is one call of the user, is one span, retrypg.<operation>, a child of the caller's span. Each
// attempt is a child of it, retrypg.attempt; what otelsql records lies below that. Both are of kind INTERNAL, because
// they are not themselves the request to the server: otelsql's spans are, and are of kind CLIENT. A wait between two
// attempts is an event, retry.backoff, of the operation span, and so is a wait for its turn, retry.admission. Only what failed in the end has the status Error: an
// attempt that was followed by another one has not.
//
// # Without a provider
//
// What is not recorded must cost nothing. [Recorder.Tracing] and [Recorder.Metering] tell in a few nanoseconds, and
// without allocating, whether anything would be recorded, and each recording method asks the same of itself. For metrics
// the answer is the Enabled method of the instrument. For spans it is a look at the provider: OpenTelemetry's no-op
// providers record nothing, nor does the global provider that is in place until the program installs one. A global
// provider that is installed after New is used from then on: for metrics the first one installed, which is how
// OpenTelemetry's instruments work; for spans always the one installed last.
//
// # The cost of a provider
//
// What succeeds at its first attempt costs one measurement of retry.operation_duration, and no allocation. Attempts and
// successes are counted in words of the Recorder's own, which several processors can write to at once, and which are added to
// the counters each time that the metrics are read, before the counters are: for every reader and temporality
// the sums are as if each had been added at once. They are added at once until the metrics are read for the first time, after
// Close, and by a Recorder that observes nothing, as those of single transactions on the handles of other packages. What is
// added later has no exemplars.
//
// Instrumentation that attaches from outside of the process (eBPF) in place of a provider does not see these spans.
package metrics
