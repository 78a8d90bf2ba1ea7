// Package policy decides when to try again. It knows nothing of databases and imports the standard library alone.
//
// # Policies
//
// A [Policy] says how long to wait before the next attempt, or that there is none. [Fixed], [Linear] and [Exponential] make
// one, each with a [Jitter]; [MaxAttempts] and [MaxElapsed] limit it. All are immutable values and safe to share: what
// changes from attempt to attempt comes in the [Attempt]. Arguments are checked when a policy is made. From then on no
// wait is negative or above the cap, jitter included, at any number of attempts.
//
// # Loops
//
// A [Retrier] runs an operation under a policy; [Retrier.Do] and [DoValue] take a function, [Loop] is for code that needs
// more. It holds to these rules:
//
//   - An operation whose context has ended is not begun, and not begun again after a wait.
//   - There is no wait that cannot end before the deadline of the context. The loop ends at once instead, with an error that
//     matches context.DeadlineExceeded and the last error.
//   - Attempts are counted, not retries: a limit of 1 retries nothing.
//   - The last error is never lost. [ExhaustedError] says how often and how long was tried, and why there was an end.
//   - An error comes back as it is if the first attempt failed with it and it is not to be retried.
//   - The refusal of a [Budget] or a [Gate] ends the loop.
//
// # Budget
//
// A [Budget] is shared by many loops and bounds their retries by their successes, so that a server in trouble does not get
// a multiple of its usual load.
//
// # Cost
//
// An operation that succeeds at once allocates nothing, and neither does a retry without a wait. A loop makes one timer
// at its first wait and uses it for all.
package policy
