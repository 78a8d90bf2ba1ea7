package metrics

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func TestCountersCarryOperationReasonCodeAndServer(t *testing.T) {
	t.Parallel()
	r, reader, _ := newSDK(t, Options{ServerAddress: "db.example", ServerPort: 5433})
	ctx := t.Context()
	r.Attempt(ctx, OpTransaction, "40001")
	r.Attempt(ctx, OpTransaction, "40001")
	r.Attempt(ctx, OpTransaction, "")
	r.Success(ctx, OpTransaction, 3, 1500*time.Millisecond)
	r.Failure(ctx, OpConnect, "deadline", "57P03", 4)
	r.CommitCheck(ctx, "committed")
	r.CommitCheck(ctx, "unknown")
	r.CommitCheck(ctx, "unknown")
	r.CommitCheck(ctx, "it may have committed")
	r.CommitUnreplicated(ctx)
	r.Evicted(ctx, "dead")

	const server = "server.address=db.example,server.port=5433"
	got := collect(t, reader)
	require.Equal(t, map[string]int64{
		"db.response.status_code=40001,db.system.name=postgresql,retry.operation=transaction," + server: 2,
		"db.system.name=postgresql,retry.operation=transaction," + server:                               1,
	}, sums(t, got["retry.attempts"]))
	require.Equal(t, map[string]int64{
		"db.system.name=postgresql,retry.operation=transaction," + server: 1,
	}, sums(t, got["retry.successes"]))
	require.Equal(t, map[string]int64{
		"db.response.status_code=57P03,db.system.name=postgresql,retry.operation=connect,retry.stop_reason=deadline," + server: 1,
	}, sums(t, got["retry.failures"]))
	require.Equal(t, map[string]int64{
		"db.system.name=postgresql,retry.commit_outcome=committed," + server: 1,
		"db.system.name=postgresql,retry.commit_outcome=unknown," + server:   2,
		"db.system.name=postgresql,retry.commit_outcome=other," + server:     1,
	}, sums(t, got["retry.commit_checks"]))
	require.Equal(t, map[string]int64{
		"db.system.name=postgresql," + server: 1,
	}, sums(t, got["retry.commit_unreplicated"]))
	require.Equal(t, map[string]int64{
		"db.system.name=postgresql,retry.eviction.reason=dead," + server: 1,
	}, sums(t, got["retry.evictions"]))
}

func TestHistogramsHoldSecondsAndAttemptsInExplicitBuckets(t *testing.T) {
	t.Parallel()
	r, reader, _ := newSDK(t, Options{})
	ctx := t.Context()
	r.Backoff(ctx, OpStatement, 250*time.Millisecond, "40P01")
	r.Backoff(ctx, OpStatement, -time.Second, "40P01")
	r.Backoff(ctx, OpStatement, math.MinInt64, "40P01")
	r.Success(ctx, OpStatement, 2, 90*time.Second)
	r.Success(ctx, OpStatement, 1, 0) // one attempt is not recorded, nor a time that is not known
	r.Failure(ctx, OpStatement, "canceled", "", 0)
	r.Failure(ctx, OpStatement, "canceled", "", 1)
	r.Failure(ctx, OpStatement, "canceled", "", 4)

	got := collect(t, reader)
	backoff := got["retry.backoff_duration"].Data.(metricdata.Histogram[float64]).DataPoints
	require.Len(t, backoff, 1)
	require.EqualValues(t, 3, backoff[0].Count)
	require.InDelta(t, 0.25, backoff[0].Sum, 1e-9)
	require.Equal(t, durationBuckets, backoff[0].Bounds)
	require.InDelta(t, 0.001, backoff[0].Bounds[0], 0)
	require.InDelta(t, 60, backoff[0].Bounds[len(backoff[0].Bounds)-1], 0)

	duration := got["retry.operation_duration"].Data.(metricdata.Histogram[float64]).DataPoints
	require.Len(t, duration, 1)
	require.EqualValues(t, 1, duration[0].Count)
	require.InDelta(t, 90, duration[0].Sum, 1e-9)

	attempts := got["retry.operation_attempts"].Data.(metricdata.Histogram[int64]).DataPoints
	require.Len(t, attempts, 1)
	require.EqualValues(t, 2, attempts[0].Count)
	require.EqualValues(t, 6, attempts[0].Sum)
}

func TestWhatIsNotKnownBecomesOtherAndWhatIsNoSQLStateIsDropped(t *testing.T) {
	t.Parallel()
	r, reader, _ := newSDK(t, Options{})
	ctx := t.Context()
	r.Failure(ctx, "DROP TABLE users", "because of alice", "relation \"x\"", 1)
	r.Failure(ctx, "", "", "4000a", 1)
	r.Evicted(ctx, "Connection of alice")
	r.Evicted(ctx, "")
	for i := range 2 * maxWords {
		r.Evicted(ctx, fmt.Sprintf("reason%d", i))
	}

	got := collect(t, reader)
	require.Equal(t, map[string]int64{
		"db.system.name=postgresql,retry.operation=other,retry.stop_reason=other": 2,
	}, sums(t, got["retry.failures"]))
	evictions := sums(t, got["retry.evictions"])
	require.Len(t, evictions, maxWords)
	require.EqualValues(t, 2+maxWords+1, evictions["db.system.name=postgresql,retry.eviction.reason=other"])
}

func TestDistinctSQLStatesAreBounded(t *testing.T) {
	t.Parallel()
	r, reader, _ := newSDK(t, Options{})
	const n = maxCombinations + 100
	for i := range n {
		r.Attempt(t.Context(), OpStatement, fmt.Sprintf("U%04d", i))
	}
	got := sums(t, collect(t, reader)["retry.attempts"])
	require.Len(t, got, maxCombinations+1)
	require.EqualValues(t, 100, got["db.response.status_code=other,db.system.name=postgresql,retry.operation=statement"])
}

func TestEveryStopReasonIsKeptApart(t *testing.T) {
	t.Parallel()
	r, reader, _ := newSDK(t, Options{})
	reasons := []string{
		"not_retryable", "max_attempts", "max_elapsed", "deadline", "canceled", "budget_exhausted", "breaker_open",
		"policy", "commit_unknown", "panic",
	}
	for _, reason := range reasons {
		r.Failure(t.Context(), OpReady, reason, "", 1)
	}
	got := sums(t, collect(t, reader)["retry.failures"])
	require.Len(t, got, len(reasons))
	for _, reason := range reasons {
		require.EqualValues(t, 1, got["db.system.name=postgresql,retry.operation=ready,retry.stop_reason="+reason])
	}
}

func TestUserAttributesAreAddedButNeverReplaceOurs(t *testing.T) {
	t.Parallel()
	r, reader, spans := newSDK(t, Options{Attributes: []attribute.KeyValue{
		attribute.String("pool", "orders"),
		AttrDBSystem.String("oracle"),
		AttrOperation.String("mine"),
	}})
	r.Attempt(t.Context(), OpConnect, "")
	_, span := r.Start(t.Context(), OpConnect, "")
	span.End(nil, "")

	require.Equal(t, map[string]int64{
		"db.system.name=postgresql,pool=orders,retry.operation=connect": 1,
	}, sums(t, collect(t, reader)["retry.attempts"]))
	set := attribute.NewSet(spans.Ended()[0].Attributes()...)
	require.Equal(t, "db.system.name=postgresql,pool=orders,retry.operation=connect",
		set.Encoded(attribute.DefaultEncoder()))
}

func TestNewRefusesWrongOptions(t *testing.T) {
	t.Parallel()
	_, err := New(Options{ServerPort: 65536})
	require.ErrorContains(t, err, "server port 65536 is out of range")
	_, err = New(Options{ServerPort: -1})
	require.ErrorContains(t, err, "server port -1 is out of range")
	_, err = New(Options{Attributes: []attribute.KeyValue{{}}})
	require.ErrorContains(t, err, "attribute \"\" is invalid")
}

func TestOffRecordsNothing(t *testing.T) {
	t.Parallel()
	r, reader, spans := newSDK(t, Options{Off: true})
	require.False(t, r.Metering())
	require.False(t, r.Tracing())
	exercise(t.Context(), r)
	require.Empty(t, collect(t, reader))
	require.Empty(t, spans.Started())
}

func TestGaugesShowBreakerAndBudgetUntilClose(t *testing.T) {
	t.Parallel()
	r, reader, _ := newSDK(t, Options{ServerAddress: "db.example"})
	require.Empty(t, collect(t, reader), "no gauge without a function")

	state, tokens := int64(2), 7.5
	r.ObserveBreaker(func() int64 { return state })
	r.ObserveBudget(func() float64 { return tokens })
	got := collect(t, reader)
	breaker := got["retry.breaker.state"].Data.(metricdata.Gauge[int64]).DataPoints
	require.Len(t, breaker, 1)
	require.EqualValues(t, 2, breaker[0].Value)
	require.Equal(t, "db.system.name=postgresql,server.address=db.example",
		breaker[0].Attributes.Encoded(attribute.DefaultEncoder()))
	budget := got["retry.budget.tokens"].Data.(metricdata.Gauge[float64]).DataPoints
	require.Len(t, budget, 1)
	require.InDelta(t, 7.5, budget[0].Value, 0)

	r.ObserveBreaker(func() int64 { return 1 }) // replaces the first
	tokens = math.Inf(1)                        // a budget without limit
	got = collect(t, reader)
	require.EqualValues(t, 1, got["retry.breaker.state"].Data.(metricdata.Gauge[int64]).DataPoints[0].Value)
	require.NotContains(t, got, "retry.budget.tokens")

	tokens = 1
	r.ObserveBreaker(nil)
	got = collect(t, reader)
	require.NotContains(t, got, "retry.breaker.state")
	require.Contains(t, got, "retry.budget.tokens")

	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	r.ObserveBudget(func() float64 { t.Error("observed after Close"); return 0 })
	require.Empty(t, collect(t, reader))
	r.Attempt(t.Context(), OpConnect, "")
	require.Contains(t, collect(t, reader), "retry.attempts", "operations that outlive Close are still counted")
}

func TestConcurrentUseLosesNoCount(t *testing.T) {
	t.Parallel()
	r, reader, _ := newSDK(t, Options{})
	const goroutines, each = 8, 200
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := range each {
				r.Attempt(t.Context(), OpStatement, fmt.Sprintf("%05d", i))
				r.ObserveBudget(func() float64 { return float64(i) })
			}
		})
	}
	for range 10 {
		collect(t, reader)
	}
	wg.Wait()
	require.NoError(t, r.Close())
	var total int64
	for _, v := range sums(t, collect(t, reader)["retry.attempts"]) {
		total += v
	}
	require.EqualValues(t, goroutines*each, total)
}

// exercise calls every recording method.
func exercise(ctx context.Context, r *Recorder) {
	for _, op := range []Operation{OpConnect, OpStatement, OpTransaction, OpCommitCheck, OpReady} {
		opCtx, span := r.Start(ctx, op, "transfer")
		_, attempt := span.Attempt(opCtx, 1)
		attempt.Retried(errPlain, "40001")
		span.Backoff(1, time.Second, "40001", "transaction")
		span.Event("event")
		span.SetAttributes(attribute.Bool("a", true))
		span.CommitChecked("committed", 1, false)
		span.Link(span.SpanContext())
		span.End(errPlain, "40001")
		r.Attempt(ctx, op, "40001")
		r.Backoff(ctx, op, time.Second, "40001")
		r.Success(ctx, op, 2, time.Second)
		r.AtOnce(ctx, op, time.Second)
		r.Failure(ctx, op, "max_attempts", "40001", 2)
		r.Lost(ctx, op, time.Second)
	}
	r.CommitCheck(ctx, "committed")
	r.CommitUnreplicated(ctx)
	r.Evicted(ctx, "dead")
	r.ConnectWait(ctx, time.Second)
	r.AdmissionWait(ctx, time.Second)
	r.ObserveAdmission(func() Admission { return Admission{Limit: 1, Waiting: 2} })
	r.Outage(ctx, time.Second)
	r.ObserveServer(func() (int64, bool) { return 1, true })
	r.ObserveBreaker(func() int64 { return 0 })
	r.ObserveBudget(func() float64 { return 10 })
	r.ObservePool(func() PoolConnections { return PoolConnections{Idle: 1, Used: 2, Max: 4} })
}

func TestNilRecorderAndZeroSpanDoNothing(t *testing.T) {
	t.Parallel()
	var r *Recorder
	exercise(t.Context(), r)
	require.False(t, r.Metering())
	require.False(t, r.Tracing())
	require.NoError(t, r.Close())
	ctx, span := r.Start(t.Context(), OpConnect, "")
	require.Equal(t, t.Context(), ctx)
	require.Equal(t, Span{}, span)
	require.False(t, span.SpanContext().IsValid())
	ctx, span = Span{}.Attempt(t.Context(), 1)
	require.Equal(t, t.Context(), ctx)
	require.Equal(t, Span{}, span)
}
