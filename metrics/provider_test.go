package metrics

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// hotPath is what one operation that succeeds at the second attempt records.
func hotPath(ctx context.Context, r *Recorder) {
	opCtx, op := r.Start(ctx, OpTransaction, "transfer")
	_, attempt := op.Attempt(opCtx, 1)
	r.Attempt(ctx, OpTransaction, "40001")
	attempt.Retried(errPlain, "40001")
	op.Backoff(1, time.Second, "40001", "transaction")
	r.Backoff(ctx, OpTransaction, time.Second, "40001")
	_, attempt = op.Attempt(opCtx, 2)
	r.Attempt(ctx, OpTransaction, "")
	attempt.End(nil, "")
	r.Success(ctx, OpTransaction, 2, time.Second)
	r.AtOnce(ctx, OpStatement, time.Second)
	r.Failure(ctx, OpTransaction, "max_attempts", "40001", 2)
	op.EndStopped(errPlain, "40001", "max_attempts")
}

func TestAskingForAProviderAllocatesNothing(t *testing.T) {
	for name, o := range map[string]Options{
		"global": {},
		"noop":   {MeterProvider: metricnoop.NewMeterProvider(), TracerProvider: noop.NewTracerProvider()},
		"sdk":    {MeterProvider: sdkmetric.NewMeterProvider(), TracerProvider: sdktrace.NewTracerProvider()},
	} {
		r, err := New(o)
		require.NoError(t, err)
		require.Equal(t, name == "sdk", r.Tracing(), name)
		require.False(t, r.Metering(), "%s: not even an SDK records without a reader", name)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			_ = r.Tracing()
			_ = r.Metering()
		}), name)
	}
}

func TestWithoutAProviderNothingIsAllocated(t *testing.T) {
	global, err := New(Options{})
	require.NoError(t, err)
	none, err := New(Options{MeterProvider: metricnoop.NewMeterProvider(), TracerProvider: noop.NewTracerProvider()})
	require.NoError(t, err)
	for name, r := range map[string]*Recorder{"nil": nil, "global": global, "noop": none} {
		ctx := t.Context()
		require.Zero(t, testing.AllocsPerRun(100, func() { hotPath(ctx, r) }), name)
		got, span := r.Start(ctx, OpConnect, "")
		require.Equal(t, ctx, got, "the context is returned unchanged")
		require.Equal(t, Span{}, span)
	}
}

func TestMetricsOfAnSDKAllocateNothing(t *testing.T) {
	r, _, _ := newSDK(t, Options{ServerAddress: "db.example", ServerPort: 5432})
	r.tracing.found.Store(newFoundProvider(noop.NewTracerProvider()))
	require.True(t, r.Metering())
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(100, func() { hotPath(ctx, r) }))
}

// childEnv makes the test binary run one test that changes OpenTelemetry's globals, which a process can do only once.
const childEnv = "RETRYPG_METRICS_TEST_GLOBALS"

func TestGlobalProvidersInstalledAfterNewAreNoticed(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), childEnv+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	early, err := New(Options{})
	require.NoError(t, err)
	explicit, err := New(Options{MeterProvider: otel.GetMeterProvider(), TracerProvider: otel.GetTracerProvider()})
	require.NoError(t, err)
	early.ObserveBudget(func() float64 { return 1 })
	require.False(t, early.Tracing())
	require.False(t, early.Metering())

	reader := sdkmetric.NewManualReader()
	spans := tracetest.NewSpanRecorder()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	for _, r := range []*Recorder{early, explicit} {
		require.True(t, r.Tracing())
		require.True(t, r.Metering())
		hotPath(t.Context(), r)
	}
	require.Len(t, spans.Ended(), 6)
	got := collect(t, reader)
	require.Contains(t, got, "retry.attempts")
	require.Contains(t, got, "retry.budget.tokens", "a callback registered before is delegated")
	require.NoError(t, early.Close())
	require.NotContains(t, collect(t, reader), "retry.budget.tokens")

	// A second provider gets the spans from then on; and none is none again.
	later := tracetest.NewSpanRecorder()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(later)))
	hotPath(t.Context(), early)
	require.Len(t, spans.Ended(), 6)
	require.Len(t, later.Ended(), 3)
	otel.SetTracerProvider(noop.NewTracerProvider())
	require.False(t, early.Tracing())
}

// sliceProvider is a provider whose values cannot be compared with ==.
type sliceProvider struct {
	trace.TracerProvider
	_ []int
}

func TestProvidersThatCannotBeComparedDoNotPanic(t *testing.T) {
	t.Parallel()
	sdk := sdktrace.NewTracerProvider()
	p := sliceProvider{TracerProvider: sdk}
	found := newFoundProvider(p)
	require.NotNil(t, found.tracer)
	require.True(t, found.is(p))
	require.False(t, found.is(sdk))
	require.False(t, newFoundProvider(sdk).is(p))
	r, err := New(Options{TracerProvider: p})
	require.NoError(t, err)
	require.True(t, r.Tracing())
}

func TestPlaceholderOfOpenTelemetryIsRecognised(t *testing.T) {
	t.Parallel()
	require.True(t, isPlaceholder(otel.GetTracerProvider()), "%T", otel.GetTracerProvider())
	require.False(t, isPlaceholder(sdktrace.NewTracerProvider()))
	require.False(t, isPlaceholder(noop.NewTracerProvider()))
}

func BenchmarkSuccessWithoutProvider(b *testing.B) {
	r, err := New(Options{})
	require.NoError(b, err)
	benchmarkSuccess(b, r)
}

func BenchmarkSuccessWithSDKMeter(b *testing.B) {
	r, err := New(Options{
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
		TracerProvider: noop.NewTracerProvider(),
	})
	require.NoError(b, err)
	benchmarkSuccess(b, r)
}

func benchmarkSuccess(b *testing.B, r *Recorder) {
	b.Helper()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		opCtx, op := r.Start(ctx, OpStatement, "")
		_, attempt := op.Attempt(opCtx, 1)
		r.Attempt(ctx, OpStatement, "")
		attempt.End(nil, "")
		r.Success(ctx, OpStatement, 1, time.Millisecond)
		op.End(nil, "")
	}
}

func BenchmarkTracingWithoutProvider(b *testing.B) {
	r, err := New(Options{})
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if r.Tracing() {
			b.Fatal("no provider is installed")
		}
	}
}

func BenchmarkMeteringWithoutProvider(b *testing.B) {
	r, err := New(Options{})
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if r.Metering() {
			b.Fatal("no provider is installed")
		}
	}
}
