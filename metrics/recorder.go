package metrics

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
)

// ScopeName is the name of the instrumentation scope of all metrics and spans of a Recorder.
const ScopeName = "github.com/retrypg/retrypg"

// Options configures a Recorder. The zero value is right for most programs.
type Options struct {
	// MeterProvider records the metrics; nil means OpenTelemetry's global one, also if it is installed later.
	MeterProvider metric.MeterProvider
	// TracerProvider records the spans; nil means OpenTelemetry's global one, also if it is installed later.
	TracerProvider trace.TracerProvider
	// ServerAddress is recorded as server.address: a host name, an IP address or the directory of a socket. Empty
	// leaves it out.
	ServerAddress string
	// ServerPort is recorded as server.port. 0 leaves it out; the range is 0 to 65535.
	ServerPort int
	// Attributes are recorded with every metric and every operation span. Their number of distinct values is the
	// caller's responsibility. Where a key is one of this package's own, this package's value is recorded.
	Attributes []attribute.KeyValue
	// Off records nothing, whatever providers there are.
	Off bool
}

// Recorder records metrics and spans of the operations on one database. It is safe for concurrent use. No method blocks
// or fails, and each works on a nil *Recorder, where it does nothing.
type Recorder struct {
	instruments
	labels  labelCache
	tally   tally
	tracing tracing
	spans   spanOptions

	// placeholder is the global provider of the instruments while the program has installed none; nil: it had.
	placeholder metric.MeterProvider

	gauges gauges

	mu           sync.Mutex
	registration metric.Registration // guarded by mu: of the callback that reads the gauges
	closed       bool                // guarded by mu
}

// New returns a Recorder. The error says which option or which instrument is wrong.
//
// Two Recorders that share a MeterProvider and all attributes add up in the counters, but show the gauges of only one of
// them: tell them apart with Options.Attributes.
func New(o Options) (*Recorder, error) {
	if o.ServerPort < 0 || o.ServerPort > 65535 {
		return nil, fmt.Errorf("metrics: server port %d is out of range: use 1 to 65535, or 0 to leave it out", o.ServerPort)
	}
	base := make([]attribute.KeyValue, 0, len(o.Attributes)+3)
	for _, kv := range o.Attributes {
		if !kv.Valid() {
			return nil, fmt.Errorf("metrics: attribute %q is invalid: give it a key and a value", kv.Key)
		}
		base = append(base, kv)
	}
	// Of two equal keys OpenTelemetry takes the last one.
	base = append(base, AttrDBSystem.String(dbSystem))
	if o.ServerAddress != "" {
		base = append(base, AttrServerAddress.String(o.ServerAddress))
	}
	if o.ServerPort != 0 {
		base = append(base, AttrServerPort.Int(o.ServerPort))
	}
	set := attribute.NewSet(base...)
	base = set.ToSlice()

	mp := o.MeterProvider
	if mp == nil {
		mp = otel.GetMeterProvider()
	}
	if o.Off {
		mp = noop.NewMeterProvider()
	}
	in, err := newInstruments(mp.Meter(ScopeName))
	if err != nil {
		return nil, err
	}
	r := &Recorder{instruments: in, spans: newSpanOptions(base)}
	if isPlaceholder(mp) {
		r.placeholder = mp
	}
	r.labels.init(base, poolName(o))
	if !o.Off {
		r.tracing.init(o.TracerProvider)
	}
	return r, nil
}

// poolName is the name of a pool where nobody gave it one: OpenTelemetry's conventions make it of the server's address and the
// database, whose name is not recorded.
func poolName(o Options) string {
	if o.ServerPort == 0 {
		return o.ServerAddress
	}
	return net.JoinHostPort(o.ServerAddress, strconv.Itoa(o.ServerPort))
}

// Close stops the reading of the gauges. Further calls do nothing. Operations that are still running may go on to record:
// counters and spans keep working.
func (r *Recorder) Close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.gauges.closeLocked()
	registration := r.registration
	r.registration = nil
	var err error
	if registration != nil {
		if err = registration.Unregister(); err != nil {
			err = fmt.Errorf("metrics: unregistering the gauges: %w", err)
		}
	}
	r.tally.close(r) // after the last reader
	return err
}

// Metering reports whether a provider records the metrics of operations now. It takes a few nanoseconds and does not
// allocate: callers ask it before they read the clock for [Recorder.Success].
func (r *Recorder) Metering() bool {
	if r == nil || r.placeholder != nil && otel.GetMeterProvider() == r.placeholder {
		return false
	}
	// A view may drop one instrument and keep another.
	ctx := context.Background()
	return r.attempts.Enabled(ctx) || r.successes.Enabled(ctx) || r.operationDuration.Enabled(ctx) ||
		r.failures.Enabled(ctx) || r.operationAttempts.Enabled(ctx) || r.backoff.Enabled(ctx) ||
		r.lost.Enabled(ctx) || r.connectWait.Enabled(ctx)
}

// Tracing reports whether a provider that makes spans is there now. It takes a few nanoseconds and does not allocate.
// True does not mean that spans are sampled.
func (r *Recorder) Tracing() bool {
	return r != nil && r.tracing.tracer() != nil
}
