package metrics

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const (
	// maxCombinations bounds the attribute sets that differ in their SQLSTATE. PostgreSQL has 264 codes, few of which a
	// program ever sees; functions on the server can raise others. OpenTelemetry's SDK keeps at most 2,000 sets per
	// instrument apart.
	maxCombinations = 1024
	// maxEvictionReasons bounds the distinct eviction reasons.
	maxEvictionReasons = 16
)

// labels is one set of attributes, as ready-made options: to build them for each measurement costs about 1 µs and four
// allocations.
type labels struct {
	add     []metric.AddOption
	record  []metric.RecordOption
	observe []metric.ObserveOption
}

func newLabels(kvs ...attribute.KeyValue) *labels {
	opt := metric.WithAttributeSet(attribute.NewSet(kvs...))
	return &labels{
		add:     []metric.AddOption{opt},
		record:  []metric.RecordOption{opt},
		observe: []metric.ObserveOption{opt},
	}
}

// labelKey identifies a set of attributes within one Recorder.
type labelKey struct {
	op     uint8 // index in operations, or opNone
	reason uint8 // index in stopReasons
	code   sqlstate
}

// labelCache holds the label sets in use. Reading takes no lock: the maps are replaced, never changed.
type labelCache struct {
	base  []attribute.KeyValue
	plain [opCount]*labels // by operation, for the path without failure

	coded     atomic.Pointer[map[labelKey]*labels]
	evictions atomic.Pointer[map[string]*labels]

	mu sync.Mutex // held while a map is replaced
}

func (c *labelCache) init(base []attribute.KeyValue) {
	c.base = base
	for op := range opCount {
		c.plain[op] = c.build(labelKey{op: op})
	}
	c.coded.Store(&map[labelKey]*labels{})
	c.evictions.Store(&map[string]*labels{})
}

func (c *labelCache) build(k labelKey) *labels {
	kvs := slices.Clone(c.base)
	if k.op != opNone {
		kvs = append(kvs, AttrOperation.String(string(operations[k.op])))
	}
	if k.reason != reasonNone {
		kvs = append(kvs, AttrStopReason.String(stopReasons[k.reason]))
	}
	if k.code != (sqlstate{}) {
		kvs = append(kvs, AttrStatusCode.String(k.code.String()))
	}
	return newLabels(kvs...)
}

// find returns the labels of an operation (an index in operations), a stop reason (an index in stopReasons) and a code.
func (c *labelCache) find(op, reason uint8, code string) *labels {
	if code == "" && reason == reasonNone {
		return c.plain[op]
	}
	k := labelKey{op: op, reason: reason, code: parseSQLState(code)}
	if l, ok := (*c.coded.Load())[k]; ok {
		return l
	}
	return c.insert(k)
}

func (c *labelCache) insert(k labelKey) *labels {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := *c.coded.Load()
	if len(known) >= maxCombinations && k.code != (sqlstate{}) {
		k.code = otherCode
	}
	if l, ok := known[k]; ok {
		return l
	}
	l := c.build(k)
	known = maps.Clone(known)
	known[k] = l
	c.coded.Store(&known)
	return l
}

// eviction returns the labels of an eviction reason.
func (c *labelCache) eviction(reason string) *labels {
	if l, ok := (*c.evictions.Load())[reason]; ok {
		return l
	}
	reason = boundedWord(reason)
	c.mu.Lock()
	defer c.mu.Unlock()
	known := *c.evictions.Load()
	if len(known) >= maxEvictionReasons {
		reason = other
	}
	if l, ok := known[reason]; ok {
		return l
	}
	l := newLabels(append(slices.Clone(c.base), AttrEvictionReason.String(reason))...)
	known = maps.Clone(known)
	known[reason] = l
	c.evictions.Store(&known)
	return l
}
