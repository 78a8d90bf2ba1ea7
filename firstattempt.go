package retrypg

import (
	"context"

	"github.com/retrypg/retrypg/metrics"
)

// firstAttempt is the first attempt of a statement outside of a transaction, which is the only one where nothing fails. It
// is made before anything is prepared for a second one, unless a breaker or spans are to be told of each.
type firstAttempt struct {
	core    *core
	started instant // zero while no metrics are recorded: the clock is not read for nothing
	over    bool
	err     error // that it failed with
}

// begin begins the attempt, if it may be made in this way. Where metered reports true, ended is to be deferred.
func (f *firstAttempt) begin(c *core) bool {
	if c.breaker != nil || c.rec.Tracing() {
		return false
	}
	f.core = c
	if c.rec.Metering() {
		f.started = readClock()
	}
	return true
}

// metered reports whether metrics are recorded.
func (f *firstAttempt) metered() bool { return f.started != 0 }

// done ends an attempt, and its statement if it succeeded, as done reports; else the statement goes on, in afterFirst.
func (f *firstAttempt) done(ctx context.Context, err error) bool {
	f.over, f.err = true, err
	if err != nil {
		return false
	}
	f.core.budget.Deposit()
	if f.metered() {
		f.core.rec.AtOnce(ctx, metrics.OpStatement, f.started.since())
	}
	return true
}

// operation is what the statement is as an operation, of which the attempt was the first.
func (f *firstAttempt) operation() operation {
	return operation{core: f.core, kind: metrics.OpStatement, started: f.started, attempts: 1}
}

// ended ends an attempt that did not return: user code panicked in it, or ended its goroutine.
func (f *firstAttempt) ended(ctx context.Context) {
	if !f.over {
		op := f.operation()
		op.panicked(ctx, try{})
	}
}
