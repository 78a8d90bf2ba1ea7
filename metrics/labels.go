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
	// maxWords bounds the distinct eviction reasons, and commit outcomes.
	maxWords = 16
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
	evictions wordLabels
	outcomes  wordLabels
	pool      poolLabels

	mu sync.Mutex // held while a map is replaced
}

// poolLabels are the label sets of a pool's connections.
type poolLabels struct{ idle, used, all *labels }

func newPoolLabels(base []attribute.KeyValue, pool string) poolLabels {
	base = append(slices.Clone(base), AttrPoolName.String(pool))
	in := func(state string) *labels {
		return newLabels(append(slices.Clone(base), AttrPoolState.String(state))...)
	}
	return poolLabels{idle: in("idle"), used: in("used"), all: newLabels(base...)}
}

func (c *labelCache) init(base []attribute.KeyValue, pool string) {
	c.base = base
	for op := range opCount {
		c.plain[op] = c.build(labelKey{op: op})
	}
	c.coded.Store(&map[labelKey]*labels{})
	c.evictions.init(AttrEvictionReason)
	c.outcomes.init(AttrCommitOutcome)
	c.pool = newPoolLabels(base, pool)
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

// wordLabels are the label sets of an attribute whose values are words.
type wordLabels struct {
	key   attribute.Key
	known atomic.Pointer[map[string]*labels]
}

func (w *wordLabels) init(key attribute.Key) {
	w.key = key
	w.known.Store(&map[string]*labels{})
}

// word returns the labels with that word.
func (c *labelCache) word(w *wordLabels, word string) *labels {
	if l, ok := (*w.known.Load())[word]; ok {
		return l
	}
	word = boundedWord(word)
	c.mu.Lock()
	defer c.mu.Unlock()
	known := *w.known.Load()
	if len(known) >= maxWords {
		word = other
	}
	if l, ok := known[word]; ok {
		return l
	}
	l := newLabels(append(slices.Clone(c.base), w.key.String(word))...)
	known = maps.Clone(known)
	known[word] = l
	w.known.Store(&known)
	return l
}
