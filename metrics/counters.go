package metrics

import (
	"context"
	"time"
)

// Attempt counts one attempt in retry.attempts, the first of an operation included. code is the SQLSTATE with which it
// failed; empty if it succeeded or failed without one.
func (r *Recorder) Attempt(ctx context.Context, op Operation, code string) {
	if r == nil {
		return
	}
	index := operationIndex(op)
	if code == "" && r.tally.addAttempt(r, index) || !r.attempts.Enabled(ctx) {
		return
	}
	r.attempts.Add(ctx, 1, r.labels.find(index, reasonNone, code).add...)
}

// AtOnce is Attempt and Success of an operation that succeeded with its only attempt.
func (r *Recorder) AtOnce(ctx context.Context, op Operation, elapsed time.Duration) {
	if r == nil {
		return
	}
	index := operationIndex(op)
	if !r.tally.addBoth(r, index, uint64(elapsed)) {
		r.Attempt(ctx, op, "")
		r.Success(ctx, op, 1, elapsed)
		return
	}
	if elapsed > 0 && r.operationDuration.Enabled(ctx) {
		r.operationDuration.Record(ctx, elapsed.Seconds(), r.labels.plain[index].record...)
	}
}

// Success counts one operation that succeeded in retry.successes, its attempts, if it took more than one, in
// retry.operation_attempts, and its duration in retry.operation_duration. elapsed runs from the beginning of the first
// attempt to the end of the last one; 0 or less means that it was not measured, and is not recorded.
func (r *Recorder) Success(ctx context.Context, op Operation, attempts int, elapsed time.Duration) {
	if r == nil {
		return
	}
	index := operationIndex(op)
	l := r.labels.plain[index]
	if !r.tally.addSuccess(r, index) && r.successes.Enabled(ctx) {
		r.successes.Add(ctx, 1, l.add...)
	}
	if attempts > 1 && r.operationAttempts.Enabled(ctx) {
		r.operationAttempts.Record(ctx, int64(attempts), l.record...)
	}
	if elapsed > 0 && r.operationDuration.Enabled(ctx) {
		r.operationDuration.Record(ctx, elapsed.Seconds(), l.record...)
	}
}

// Failure counts one operation that failed in the end in retry.failures, and its attempts, if it took more than one, in
// retry.operation_attempts. stopReason is one of package policy's stop reasons, "commit_unknown" or "panic"; code is the
// SQLSTATE of the last error, or empty.
func (r *Recorder) Failure(ctx context.Context, op Operation, stopReason, code string, attempts int) {
	if r == nil {
		return
	}
	index := operationIndex(op)
	if r.failures.Enabled(ctx) {
		r.failures.Add(ctx, 1, r.labels.find(index, stopReasonIndex(stopReason), code).add...)
	}
	if attempts > 1 && r.operationAttempts.Enabled(ctx) {
		r.operationAttempts.Record(ctx, int64(attempts), r.labels.plain[index].record...)
	}
}

// Backoff records the wait before a further attempt in retry.backoff_duration. A wait below 0 counts as 0. code is the
// SQLSTATE of the attempt that failed, or empty.
func (r *Recorder) Backoff(ctx context.Context, op Operation, wait time.Duration, code string) {
	if r == nil || !r.backoff.Enabled(ctx) {
		return
	}
	r.backoff.Record(ctx, max(wait, 0).Seconds(), r.labels.find(operationIndex(op), reasonNone, code).record...)
}

// AdmissionWait records how long an attempt of a transaction had to wait for its turn, because transactions were in each
// other's way, in retry.admission.wait_duration.
func (r *Recorder) AdmissionWait(ctx context.Context, elapsed time.Duration) {
	if r == nil || !r.admissionWait.Enabled(ctx) {
		return
	}
	r.admissionWait.Record(ctx, max(elapsed, 0).Seconds(), r.labels.plain[opNone].record...)
}

// Lost records what an operation of several attempts had lost when its last one began in retry.lost_duration.
func (r *Recorder) Lost(ctx context.Context, op Operation, elapsed time.Duration) {
	if r == nil || !r.lost.Enabled(ctx) {
		return
	}
	r.lost.Record(ctx, max(elapsed, 0).Seconds(), r.labels.plain[operationIndex(op)].record...)
}

// ConnectWait records how long a caller was connecting while the server was away, be it in vain, in
// retry.connect_wait_duration.
func (r *Recorder) ConnectWait(ctx context.Context, elapsed time.Duration) {
	if r == nil || !r.connectWait.Enabled(ctx) {
		return
	}
	r.connectWait.Record(ctx, max(elapsed, 0).Seconds(), r.labels.plain[opNone].record...)
}

// Outage records how long the server was away in retry.outage_duration.
func (r *Recorder) Outage(ctx context.Context, elapsed time.Duration) {
	if r == nil || !r.outage.Enabled(ctx) {
		return
	}
	r.outage.Record(ctx, max(elapsed, 0).Seconds(), r.labels.plain[opNone].record...)
}

// CommitCheck counts one commit whose answer was lost in retry.commit_checks. outcome is what was found out: "committed",
// "not_applied" or "unknown".
func (r *Recorder) CommitCheck(ctx context.Context, outcome string) {
	if r == nil || !r.commitChecks.Enabled(ctx) {
		return
	}
	r.commitChecks.Add(ctx, 1, r.labels.word(&r.labels.outcomes, outcome).add...)
}

// CommitUnreplicated counts one transaction that committed although the wait for its synchronous standbys was ended in
// retry.commit_unreplicated.
func (r *Recorder) CommitUnreplicated(ctx context.Context) {
	if r == nil || !r.commitUnreplicated.Enabled(ctx) {
		return
	}
	r.commitUnreplicated.Add(ctx, 1, r.labels.find(opNone, reasonNone, "").add...)
}

// Evicted counts one pooled connection that was dropped before use in retry.evictions. reason is a short word of lower
// case letters, digits, _ and -, at most 32 bytes; anything else, and the 17th distinct word, is recorded as "other".
func (r *Recorder) Evicted(ctx context.Context, reason string) {
	if r == nil || !r.evictions.Enabled(ctx) {
		return
	}
	r.evictions.Add(ctx, 1, r.labels.word(&r.labels.evictions, reason).add...)
}
