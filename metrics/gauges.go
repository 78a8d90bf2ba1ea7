package metrics

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// gauges are what a Recorder reads at each collection; what is nil is not there.
type gauges struct {
	server  atomic.Pointer[func() (up int64, known bool)]
	breaker atomic.Pointer[func() int64]
	budget  atomic.Pointer[func() float64]
	pool    atomic.Pointer[func() PoolConnections]
	admits  atomic.Pointer[func() Admission]
}

// Admission is how transactions are admitted that are in each other's way.
type Admission struct {
	Limit   int64 // the lowest limit in force; 0 where there is none
	Waiting int64 // transactions that wait for their turn
}

// PoolConnections are the connections of a pool.
type PoolConnections struct {
	Idle, Used int64 // connections that are open, or being opened, and in the pool or with a caller
	Max        int64 // connections that the pool may have
}

// ObserveServer makes retry.server.up show what up returns at each collection: 1 for a server that can be reached, else 0, and
// nothing while that is not known. It replaces an earlier function; nil ends the observation, as Close does. up is called on the goroutine of
// the metric reader, may be called concurrently, and must not block. So it is with the functions of the other gauges.
func (r *Recorder) ObserveServer(up func() (value int64, known bool)) {
	if r != nil {
		observe(r, &r.gauges.server, up, up == nil)
	}
}

// ObserveBreaker makes retry.breaker.state show what state returns at each collection, 0 closed, 1 half-open, 2 open, as
// [Recorder.ObserveServer] does.
func (r *Recorder) ObserveBreaker(state func() int64) {
	if r != nil {
		observe(r, &r.gauges.breaker, state, state == nil)
	}
}

// ObserveBudget makes retry.budget.tokens show what tokens returns at each collection, as [Recorder.ObserveServer] does.
// Values that are not finite, as of a budget without limit, are not recorded.
func (r *Recorder) ObserveBudget(tokens func() float64) {
	if r != nil {
		observe(r, &r.gauges.budget, tokens, tokens == nil)
	}
}

// ObservePool makes db.client.connection.count and db.client.connection.max show what pool returns at each collection, as
// [Recorder.ObserveServer] does.
func (r *Recorder) ObservePool(pool func() PoolConnections) {
	if r != nil {
		observe(r, &r.gauges.pool, pool, pool == nil)
	}
}

// ObserveAdmission makes retry.admission.limit and retry.admission.waiting show what admission returns at each collection, as
// [Recorder.ObserveServer] does.
func (r *Recorder) ObserveAdmission(admission func() Admission) {
	if r != nil {
		observe(r, &r.gauges.admits, admission, admission == nil)
	}
}

// observe makes read, a function, what a gauge is read by; with none nothing is.
func observe[F any](r *Recorder, gauge *atomic.Pointer[F], read F, none bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if none || r.closed {
		gauge.Store(nil)
		return
	}
	gauge.Store(&read)
	r.registerLocked()
}

// closeLocked ends the observation.
func (g *gauges) closeLocked() {
	g.server.Store(nil)
	g.breaker.Store(nil)
	g.budget.Store(nil)
	g.pool.Store(nil)
	g.admits.Store(nil)
}

// registerLocked registers the callback once, at the first gauge: a Recorder without gauges is not held by the provider.
func (r *Recorder) registerLocked() {
	if r.registration != nil {
		return
	}
	registration, err := r.meter.RegisterCallback(r.observe, r.serverUp, r.breakerState, r.budgetTokens, r.connections, r.maxConnections,
		r.admissionLimit, r.admissionWaiting)
	if err != nil {
		otel.Handle(fmt.Errorf("metrics: registering the gauges: %w", err))
		return
	}
	r.registration = registration
}

// observe is called by the metric reader. It takes no lock of ours: Close holds it while it waits for the reader.
func (r *Recorder) observe(_ context.Context, o metric.Observer) error {
	r.tally.read(r)
	l := r.labels.plain[opNone]
	if up := r.gauges.server.Load(); up != nil {
		if v, known := (*up)(); known {
			o.ObserveInt64(r.serverUp, v, l.observe...)
		}
	}
	if state := r.gauges.breaker.Load(); state != nil {
		o.ObserveInt64(r.breakerState, (*state)(), l.observe...)
	}
	if tokens := r.gauges.budget.Load(); tokens != nil {
		if v := (*tokens)(); !math.IsNaN(v) && !math.IsInf(v, 0) {
			o.ObserveFloat64(r.budgetTokens, v, l.observe...)
		}
	}
	if admission := r.gauges.admits.Load(); admission != nil {
		a := (*admission)()
		if a.Limit > 0 {
			o.ObserveInt64(r.admissionLimit, a.Limit, l.observe...)
		}
		o.ObserveInt64(r.admissionWaiting, a.Waiting, l.observe...)
	}
	if pool := r.gauges.pool.Load(); pool != nil {
		connections := (*pool)()
		o.ObserveInt64(r.connections, connections.Idle, r.labels.pool.idle.observe...)
		o.ObserveInt64(r.connections, connections.Used, r.labels.pool.used.observe...)
		o.ObserveInt64(r.maxConnections, connections.Max, r.labels.pool.all.observe...)
	}
	return nil
}
