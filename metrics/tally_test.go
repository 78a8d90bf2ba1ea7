package metrics

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

const (
	plainStatement   = "db.system.name=postgresql,retry.operation=statement"
	plainTransaction = "db.system.name=postgresql,retry.operation=transaction"
)

// newTallied returns a Recorder that keeps its counts until the reader asks for them.
func newTallied(t *testing.T) (*Recorder, *sdkmetric.ManualReader) {
	t.Helper()
	r, reader, _ := newSDK(t, Options{})
	r.ObserveBudget(func() float64 { return 1 })
	collect(t, reader)
	require.NotNil(t, r.tally.shards.Load())
	return r, reader
}

// kept is how many attempts and successes wait for the reader.
func kept(r *Recorder) (n int64) {
	shards := r.tally.shards.Load()
	if shards == nil {
		return 0
	}
	for i := range *shards {
		for op := range opCount {
			n += (*shards)[i].attempts[op].Load() + (*shards)[i].successes[op].Load()
		}
	}
	return n
}

func TestWhatIsKeptForTheReaderIsInWhatItReads(t *testing.T) {
	t.Parallel()
	r, reader := newTallied(t)
	ctx := t.Context()
	require.NotContains(t, collect(t, reader), nameAttempts, "a counter that was not incremented does not exist")
	for range 5 {
		r.AtOnce(ctx, OpStatement, time.Millisecond)
	}
	r.Attempt(ctx, OpTransaction, "40001")
	r.Attempt(ctx, OpTransaction, "")
	r.Success(ctx, OpTransaction, 2, time.Second)
	require.EqualValues(t, 12, kept(r), "none with a SQLSTATE")

	for range 2 { // what was read stays read
		got := collect(t, reader)
		require.Equal(t, map[string]int64{
			plainStatement: 5, plainTransaction: 1,
			"db.response.status_code=40001," + plainTransaction: 1,
		}, sums(t, got[nameAttempts]))
		require.Equal(t, map[string]int64{plainStatement: 5, plainTransaction: 1}, sums(t, got[nameSuccesses]))
		require.Zero(t, kept(r))
	}
	durations := collect(t, reader)[nameOperationDuration].Data.(metricdata.Histogram[float64]).DataPoints
	require.Len(t, durations, 2)
	require.EqualValues(t, 6, durations[0].Count+durations[1].Count)
}

// delta is the temporality of readers that want to know what was added since they read last.
func delta(sdkmetric.InstrumentKind) metricdata.Temporality { return metricdata.DeltaTemporality }

// TestEveryReaderReadsEachCountOnce: one that reads sums and one that reads differences, in any order.
func TestEveryReaderReadsEachCountOnce(t *testing.T) {
	t.Parallel()
	cumulative, deltas := sdkmetric.NewManualReader(), sdkmetric.NewManualReader(sdkmetric.WithTemporalitySelector(delta))
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(cumulative), sdkmetric.WithReader(deltas))
	r, err := New(Options{MeterProvider: mp})
	require.NoError(t, err)
	r.ObserveBudget(func() float64 { return 1 })
	collect(t, cumulative)
	collect(t, deltas)
	count := func(reader *sdkmetric.ManualReader) int64 {
		m, ok := collect(t, reader)[nameSuccesses]
		if !ok {
			return 0
		}
		return sums(t, m)[plainStatement]
	}
	add := func(n int) {
		for range n {
			r.AtOnce(t.Context(), OpStatement, time.Second)
		}
	}
	add(3)
	require.EqualValues(t, 3, count(cumulative))
	add(4)
	require.EqualValues(t, 7, count(deltas), "also what the other one was told before")
	require.EqualValues(t, 7, count(cumulative))
	require.Zero(t, count(deltas))
	add(1)
	require.EqualValues(t, 1, count(deltas))
	require.EqualValues(t, 8, count(cumulative))
}

// TestNothingIsKeptWhereNobodyAsksForIt: a view may drop the instruments that the reader asks us for.
func TestNothingIsKeptWhereNobodyAsksForIt(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	drop := func(in sdkmetric.Instrument) (sdkmetric.Stream, bool) {
		if in.Name == nameSuccesses || in.Name == nameAttempts {
			return sdkmetric.Stream{}, false
		}
		return sdkmetric.Stream{Aggregation: sdkmetric.AggregationDrop{}}, true
	}
	r, err := New(Options{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithView(drop))})
	require.NoError(t, err)
	r.ObserveBudget(func() float64 { return 1 })
	for want := range int64(3) {
		r.AtOnce(t.Context(), OpStatement, time.Second)
		got := collect(t, reader)
		require.Len(t, got, 2)
		require.Equal(t, map[string]int64{plainStatement: want + 1}, sums(t, got[nameSuccesses]))
		require.Equal(t, map[string]int64{plainStatement: want + 1}, sums(t, got[nameAttempts]))
	}
}

func TestCloseTellsWhatWasKeptAndWhatComesLaterIsToldAtOnce(t *testing.T) {
	t.Parallel()
	r, reader := newTallied(t)
	r.AtOnce(t.Context(), OpStatement, time.Second)
	require.EqualValues(t, 2, kept(r))
	require.NoError(t, r.Close())
	require.Equal(t, map[string]int64{plainStatement: 1}, sums(t, collect(t, reader)[nameSuccesses]))
	r.AtOnce(t.Context(), OpStatement, time.Second)
	require.NoError(t, r.observe(t.Context(), nil), "a reader that is late")
	r.AtOnce(t.Context(), OpStatement, time.Second)
	require.Nil(t, r.tally.shards.Load())
	require.Equal(t, map[string]int64{plainStatement: 3}, sums(t, collect(t, reader)[nameSuccesses]))
}

// TestNoCountIsLostBetweenReadersAndClose has all of them at the same time.
func TestNoCountIsLostBetweenReadersAndClose(t *testing.T) {
	t.Parallel()
	const goroutines, each = 4, 2000
	for range 5 {
		r, reader := newTallied(t)
		var writers sync.WaitGroup
		for range goroutines {
			writers.Go(func() {
				for range each {
					r.AtOnce(context.Background(), OpStatement, 0)
					r.Attempt(context.Background(), OpConnect, "")
					r.Success(context.Background(), OpConnect, 1, 0)
				}
			})
		}
		for range 5 {
			collect(t, reader)
		}
		require.NoError(t, r.Close())
		writers.Wait()
		got := collect(t, reader)
		want := map[string]int64{plainStatement: goroutines * each, "db.system.name=postgresql,retry.operation=connect": goroutines * each}
		require.Equal(t, want, sums(t, got[nameAttempts]))
		require.Equal(t, want, sums(t, got[nameSuccesses]))
	}
}

func TestShardsDoNotShareCacheLines(t *testing.T) {
	t.Parallel()
	require.Zero(t, unsafe.Sizeof(tallyShard{})%cacheLine)
	r, _ := newTallied(t)
	shards := *r.tally.shards.Load()
	require.GreaterOrEqual(t, len(shards), min(runtime.GOMAXPROCS(0), maxShards))
	require.Zero(t, len(shards)&(len(shards)-1), "a power of two")
	require.Zero(t, uintptr(unsafe.Pointer(&shards[0]))%cacheLine)
}

func TestOneMeasurementIsAllThatASuccessAtOnceTakes(t *testing.T) {
	r, reader := newTallied(t)
	require.Zero(t, testing.AllocsPerRun(100, func() { r.AtOnce(context.Background(), OpStatement, time.Second) }))
	require.NotContains(t, collect(t, reader), nameOperationAttempts, "it took one attempt")
}

// TestACountThatIsLateForCloseIsTold: of a call that had found the tally open.
func TestACountThatIsLateForCloseIsTold(t *testing.T) {
	t.Parallel()
	r, reader := newTallied(t)
	shards := r.tally.shards.Load()
	require.NoError(t, r.Close())
	(*shards)[0].successes[operationIndex(OpStatement)].Add(1)
	r.tally.added(r, shards)
	require.Equal(t, map[string]int64{plainStatement: 1}, sums(t, collect(t, reader)[nameSuccesses]))
}
