package metrics

import (
	"context"
	"fmt"
	"math"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// ObserveBreaker makes retry.breaker.state show what state returns at each collection: 0 closed, 1 half-open, 2 open.
// It replaces an earlier function; nil ends the observation, as Close does. state is called on the goroutine of the
// metric reader, may be called concurrently, and must not block.
func (r *Recorder) ObserveBreaker(state func() int64) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if state == nil || r.closed {
		r.breaker.Store(nil)
		return
	}
	r.breaker.Store(&state)
	r.registerLocked()
}

// ObserveBudget makes retry.budget.tokens show what tokens returns at each collection. Values that are not finite, as of
// a budget without limit, are not recorded. It replaces an earlier function; nil ends the observation, as Close does.
// tokens is called on the goroutine of the metric reader, may be called concurrently, and must not block.
func (r *Recorder) ObserveBudget(tokens func() float64) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if tokens == nil || r.closed {
		r.budget.Store(nil)
		return
	}
	r.budget.Store(&tokens)
	r.registerLocked()
}

// registerLocked registers the callback once, at the first gauge: a Recorder without gauges is not held by the provider.
func (r *Recorder) registerLocked() {
	if r.registration != nil {
		return
	}
	registration, err := r.meter.RegisterCallback(r.observe, r.breakerState, r.budgetTokens)
	if err != nil {
		otel.Handle(fmt.Errorf("metrics: registering the gauges: %w", err))
		return
	}
	r.registration = registration
}

// observe is called by the metric reader. It takes no lock of ours: Close holds it while it waits for the reader.
func (r *Recorder) observe(_ context.Context, o metric.Observer) error {
	l := r.labels.plain[opNone]
	if state := r.breaker.Load(); state != nil {
		o.ObserveInt64(r.breakerState, (*state)(), l.observe...)
	}
	if tokens := r.budget.Load(); tokens != nil {
		if v := (*tokens)(); !math.IsNaN(v) && !math.IsInf(v, 0) {
			o.ObserveFloat64(r.budgetTokens, v, l.observe...)
		}
	}
	return nil
}
