package metrics

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
)

// tally counts what operations count that went well, in words of its own: adding to one costs a few nanoseconds, adding to a
// counter of OpenTelemetry's SDK a quarter of a microsecond. Whoever reads the metrics calls read first, which moves the
// counts into the counters; so these are what they would be if each had been added to them at once.
//
// Until somebody has read the metrics nobody is known to do so, and everything is added at once: a view may drop the
// instruments that a reader calls us for and keep the counters, and a Recorder without gauges is not called at all. So it is
// again once the tally is closed. The zero value is ready for use.
type tally struct {
	shards atomic.Pointer[[]tallyShard] // nil: add at once
	closed atomic.Bool
}

// tallyShard is a share of the counts, so that few processors write to the same one.
type tallyShard struct {
	attempts, successes [opCount]atomic.Int64 // by operation
	_                   [2*cacheLine - 2*8*opCount]byte
}

const (
	cacheLine = 64 // of amd64 and most arm64; where it is longer, shards are slower, not wrong
	maxShards = 64 // chosen: 8 KiB for a Recorder
)

// addAttempt counts an attempt that did not fail with a SQLSTATE. false means that it is to be added at once.
func (t *tally) addAttempt(r *Recorder, op uint8) bool {
	shards := t.shards.Load()
	if shards == nil {
		return false
	}
	anyOf(*shards).attempts[op].Add(1)
	t.added(r, shards)
	return true
}

// addSuccess counts an operation that succeeded. false means that it is to be added at once.
func (t *tally) addSuccess(r *Recorder, op uint8) bool {
	shards := t.shards.Load()
	if shards == nil {
		return false
	}
	anyOf(*shards).successes[op].Add(1)
	t.added(r, shards)
	return true
}

// addBoth is addAttempt and addSuccess of an operation that took elapsed, in nanoseconds, which also draws the shard.
func (t *tally) addBoth(r *Recorder, op uint8, elapsed uint64) bool {
	shards := t.shards.Load()
	if shards == nil {
		return false
	}
	// The product's upper bits depend on all of the number's: where clocks tick slowly, its lower ones are not random.
	const golden = 0x9E3779B97F4A7C15 // 2^64 divided by the golden ratio
	shard := shardOf(*shards, uint32(elapsed*golden>>32))
	shard.attempts[op].Add(1)
	shard.successes[op].Add(1)
	t.added(r, shards)
	return true
}

// anyOf draws a shard.
func anyOf(shards []tallyShard) *tallyShard { return shardOf(shards, rand.Uint32()) }

// shardOf returns the shard of a number. That of the shards is a power of two.
func shardOf(shards []tallyShard, n uint32) *tallyShard { return &shards[n&uint32(len(shards)-1)] }

// added settles what was added while the tally was closed, whose last settling may have missed it.
func (t *tally) added(r *Recorder, shards *[]tallyShard) {
	if t.shards.Load() != shards {
		r.settle(*shards)
	}
}

// read is called by the metric reader. From now on counts are kept until the next time.
func (t *tally) read(r *Recorder) {
	if shards := t.shards.Load(); shards != nil {
		r.settle(*shards)
		return
	}
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < maxShards {
		n *= 2
	}
	shards := make([]tallyShard, n)
	t.shards.CompareAndSwap(nil, &shards)
	if t.closed.Load() { // a reader that is late
		t.close(r)
	}
}

// close settles what there is. What is counted from now on is added at once.
func (t *tally) close(r *Recorder) {
	t.closed.Store(true)
	if shards := t.shards.Swap(nil); shards != nil {
		r.settle(*shards)
	}
}

// settle moves the counts into the counters. A count that is zero is not moved: counters do not exist before they are
// incremented for the first time.
func (r *Recorder) settle(shards []tallyShard) {
	ctx := context.Background()
	for op := range opCount {
		var attempts, successes int64
		for i := range shards {
			attempts += take(&shards[i].attempts[op])
			successes += take(&shards[i].successes[op])
		}
		if attempts > 0 {
			r.attempts.Add(ctx, attempts, r.labels.plain[op].add...)
		}
		if successes > 0 {
			r.successes.Add(ctx, successes, r.labels.plain[op].add...)
		}
	}
}

func take(n *atomic.Int64) int64 {
	if n.Load() == 0 {
		return 0 // most are: they are not written to
	}
	return n.Swap(0)
}
