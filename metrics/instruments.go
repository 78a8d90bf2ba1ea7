package metrics

import (
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Kind is the kind of an instrument.
type Kind string

// The kinds of instruments that exist here.
const (
	KindCounter   Kind = "counter"   // a sum that only grows
	KindHistogram Kind = "histogram" // a distribution with explicit buckets
	KindGauge     Kind = "gauge"     // the value at the time of collection
	// KindUpDownCounter is a sum that also falls, read at the time of collection.
	KindUpDownCounter Kind = "updowncounter"
)

// Instrument describes one instrument: a row of the table in the package's documentation.
type Instrument struct {
	Name        string
	Unit        string // UCUM, as OpenTelemetry writes it; in braces what is counted
	Kind        Kind
	Attributes  []attribute.Key // those beside db.system.name, server.address and server.port, which all have
	Description string
}

const (
	nameAttempts          = "retry.attempts"
	nameSuccesses         = "retry.successes"
	nameFailures          = "retry.failures"
	nameBackoff           = "retry.backoff_duration"
	nameOperationAttempts = "retry.operation_attempts"
	nameOperationDuration = "retry.operation_duration"
	nameLost              = "retry.lost_duration"
	nameConnectWait       = "retry.connect_wait_duration"
	nameAdmissionWait     = "retry.admission.wait_duration"
	nameAdmissionLimit    = "retry.admission.limit"
	nameAdmissionWaiting  = "retry.admission.waiting"
	nameOutage            = "retry.outage_duration"
	nameServerUp          = "retry.server.up"
	nameCommitChecks      = "retry.commit_checks"
	nameUnreplicated      = "retry.commit_unreplicated"
	nameEvictions         = "retry.evictions"
	nameBreakerState      = "retry.breaker.state"
	nameBudget            = "retry.budget.tokens"
	nameConnections       = "db.client.connection.count"
	nameMaxConnections    = "db.client.connection.max"
)

// instrumentTable is the source of names, units and descriptions: the instruments are created from it.
var instrumentTable = []Instrument{
	{
		nameAttempts, "{attempt}", KindCounter,
		[]attribute.Key{AttrOperation, AttrStatusCode},
		"Attempts made, the first of each operation included.",
	},
	{
		nameSuccesses, "{operation}", KindCounter,
		[]attribute.Key{AttrOperation},
		"Operations that succeeded in the end.",
	},
	{
		nameFailures, "{operation}", KindCounter,
		[]attribute.Key{AttrOperation, AttrStopReason, AttrStatusCode},
		"Operations that failed in the end, by the reason for giving up.",
	},
	{
		nameBackoff, "s", KindHistogram,
		[]attribute.Key{AttrOperation, AttrStatusCode},
		"Wait chosen before each further attempt.",
	},
	{
		nameOperationAttempts, "{attempt}", KindHistogram,
		[]attribute.Key{AttrOperation},
		"Attempts of an operation that took more than one.",
	},
	{
		nameOperationDuration, "s", KindHistogram,
		[]attribute.Key{AttrOperation},
		"Time that an operation took which succeeded in the end.",
	},
	{
		nameLost, "s", KindHistogram,
		[]attribute.Key{AttrOperation},
		"Time that an operation of several attempts had lost when its last one began.",
	},
	{
		nameConnectWait, "s", KindHistogram,
		nil,
		"Time that a caller spent connecting while the server was away, be it in vain.",
	},
	{
		nameAdmissionWait, "s", KindHistogram,
		nil,
		"Time that an attempt of a transaction waited for its turn because transactions were in each other's way.",
	},
	{
		nameAdmissionLimit, "{transaction}", KindGauge,
		nil,
		"Lowest limit of transactions of one name that run at a time; nothing while there is none.",
	},
	{
		nameAdmissionWaiting, "{transaction}", KindGauge,
		nil,
		"Transactions that wait for their turn.",
	},
	{
		nameOutage, "s", KindHistogram,
		nil,
		"Time from when the server was found to be away until it let a caller in again, or nobody looked any more.",
	},
	{
		nameCommitChecks, "{check}", KindCounter,
		[]attribute.Key{AttrCommitOutcome},
		"Commits whose answer was lost, by what was found out about them.",
	},
	{
		nameUnreplicated, "{transaction}", KindCounter,
		nil,
		"Transactions that committed although the wait for their synchronous standbys was ended.",
	},
	{
		nameEvictions, "{connection}", KindCounter,
		[]attribute.Key{AttrEvictionReason},
		"Pooled connections dropped before use, by reason.",
	},
	{
		nameServerUp, "{state}", KindGauge,
		nil,
		"Whether the server can be reached: 1 yes, 0 no, nothing while nobody has looked for a while.",
	},
	{
		nameBreakerState, "{state}", KindGauge,
		nil,
		"State of the breaker: 0 closed, 1 half-open, 2 open.",
	},
	{
		nameBudget, "{token}", KindGauge,
		nil,
		"Retries that the budget would allow now.",
	},
	{
		nameConnections, "{connection}", KindUpDownCounter,
		[]attribute.Key{AttrPoolName, AttrPoolState},
		"Connections of a Pool, idle and used.",
	},
	{
		nameMaxConnections, "{connection}", KindUpDownCounter,
		[]attribute.Key{AttrPoolName},
		"Connections that a Pool may have.",
	},
}

// Instruments returns the description of every instrument, in the order of the table in the package's documentation. The
// caller may change the result.
func Instruments() []Instrument {
	table := slices.Clone(instrumentTable)
	for i := range table {
		table[i].Attributes = slices.Clone(table[i].Attributes)
	}
	return table
}

// durationBuckets, in seconds, suit waits between 1 ms and 60 s: the steps 1, 2, 5 keep the error of a quantile below a
// factor of 2.5. The defaults of OpenTelemetry are meant for milliseconds.
var durationBuckets = []float64{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60}

// attemptBuckets are exact where it matters, at the first few attempts.
var attemptBuckets = []float64{1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 50, 100}

// instruments are the instruments of one Recorder.
type instruments struct {
	meter metric.Meter

	attempts           metric.Int64Counter
	successes          metric.Int64Counter
	failures           metric.Int64Counter
	commitChecks       metric.Int64Counter
	commitUnreplicated metric.Int64Counter
	evictions          metric.Int64Counter
	backoff            metric.Float64Histogram
	operationDuration  metric.Float64Histogram
	lost               metric.Float64Histogram
	connectWait        metric.Float64Histogram
	admissionWait      metric.Float64Histogram
	outage             metric.Float64Histogram
	operationAttempts  metric.Int64Histogram
	serverUp           metric.Int64ObservableGauge
	admissionLimit     metric.Int64ObservableGauge
	admissionWaiting   metric.Int64ObservableGauge
	breakerState       metric.Int64ObservableGauge
	budgetTokens       metric.Float64ObservableGauge
	connections        metric.Int64ObservableUpDownCounter
	maxConnections     metric.Int64ObservableUpDownCounter
}

func newInstruments(m metric.Meter) (instruments, error) {
	b := instrumentBuilder{meter: m}
	in := instruments{
		meter:              m,
		attempts:           b.counter(nameAttempts),
		successes:          b.counter(nameSuccesses),
		failures:           b.counter(nameFailures),
		commitChecks:       b.counter(nameCommitChecks),
		commitUnreplicated: b.counter(nameUnreplicated),
		evictions:          b.counter(nameEvictions),
		backoff:            b.durations(nameBackoff),
		operationDuration:  b.durations(nameOperationDuration),
		lost:               b.durations(nameLost),
		connectWait:        b.durations(nameConnectWait),
		admissionWait:      b.durations(nameAdmissionWait),
		outage:             b.durations(nameOutage),
		operationAttempts:  b.counts(nameOperationAttempts),
		serverUp:           b.gauge(nameServerUp),
		admissionLimit:     b.gauge(nameAdmissionLimit),
		admissionWaiting:   b.gauge(nameAdmissionWaiting),
		breakerState:       b.gauge(nameBreakerState),
		budgetTokens:       b.floatGauge(nameBudget),
		connections:        b.upDownCounter(nameConnections),
		maxConnections:     b.upDownCounter(nameMaxConnections),
	}
	return in, errors.Join(b.errs...)
}

// instrumentBuilder collects the errors of several instruments.
type instrumentBuilder struct {
	meter metric.Meter
	errs  []error
}

func (b *instrumentBuilder) note(name string, err error) {
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("metrics: creating the instrument %s: %w", name, err))
	}
}

func (b *instrumentBuilder) counter(name string) metric.Int64Counter {
	row := description(name)
	c, err := b.meter.Int64Counter(name, metric.WithUnit(row.Unit), metric.WithDescription(row.Description))
	b.note(name, err)
	return c
}

func (b *instrumentBuilder) durations(name string) metric.Float64Histogram {
	row := description(name)
	h, err := b.meter.Float64Histogram(name, metric.WithUnit(row.Unit), metric.WithDescription(row.Description),
		metric.WithExplicitBucketBoundaries(durationBuckets...))
	b.note(name, err)
	return h
}

func (b *instrumentBuilder) counts(name string) metric.Int64Histogram {
	row := description(name)
	h, err := b.meter.Int64Histogram(name, metric.WithUnit(row.Unit), metric.WithDescription(row.Description),
		metric.WithExplicitBucketBoundaries(attemptBuckets...))
	b.note(name, err)
	return h
}

func (b *instrumentBuilder) gauge(name string) metric.Int64ObservableGauge {
	row := description(name)
	g, err := b.meter.Int64ObservableGauge(name, metric.WithUnit(row.Unit), metric.WithDescription(row.Description))
	b.note(name, err)
	return g
}

func (b *instrumentBuilder) floatGauge(name string) metric.Float64ObservableGauge {
	row := description(name)
	g, err := b.meter.Float64ObservableGauge(name, metric.WithUnit(row.Unit), metric.WithDescription(row.Description))
	b.note(name, err)
	return g
}

func (b *instrumentBuilder) upDownCounter(name string) metric.Int64ObservableUpDownCounter {
	row := description(name)
	c, err := b.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(row.Unit), metric.WithDescription(row.Description))
	b.note(name, err)
	return c
}

// description returns the row of an instrument, or a row without unit and description, which a test would find.
func description(name string) Instrument {
	for _, row := range instrumentTable {
		if row.Name == name {
			return row
		}
	}
	return Instrument{Name: name}
}
