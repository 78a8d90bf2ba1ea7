package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func attributesOf(span sdktrace.ReadOnlySpan) map[attribute.Key]any {
	got := map[attribute.Key]any{}
	for _, kv := range span.Attributes() {
		got[kv.Key] = kv.Value.AsInterface()
	}
	return got
}

func TestTransactionWithTwoAttemptsNestsUnderTheCallersSpan(t *testing.T) {
	t.Parallel()
	r, _, spans := newSDK(t, Options{ServerAddress: "db.example", ServerPort: 5432})
	require.True(t, r.Tracing())
	tracer := r.tracing.tracer()

	ctx, caller := tracer.Start(t.Context(), "caller")
	opCtx, op := r.Start(ctx, OpTransaction, "transfer")
	require.True(t, op.Recording())
	ctx1, first := op.Attempt(opCtx, 1)
	_, statement := tracer.Start(ctx1, "sql.conn.exec") // as otelsql does
	statement.End()
	first.Retried(errPlain, "40001")
	op.Backoff(1, 30*time.Millisecond, "40001", "transaction")
	_, second := op.Attempt(opCtx, 2)
	second.End(nil, "")
	op.End(nil, "")
	caller.End()

	ended := spans.Ended()
	require.Len(t, ended, 5)
	byName := map[string][]sdktrace.ReadOnlySpan{}
	for _, s := range ended {
		byName[s.Name()] = append(byName[s.Name()], s)
	}
	operation := byName["retrypg.transaction"][0]
	attempts := byName["retrypg.attempt"]
	require.Len(t, attempts, 2)
	require.Equal(t, byName["caller"][0].SpanContext().SpanID(), operation.Parent().SpanID())
	require.Equal(t, operation.SpanContext().SpanID(), attempts[0].Parent().SpanID())
	require.Equal(t, operation.SpanContext().SpanID(), attempts[1].Parent().SpanID())
	require.Equal(t, attempts[0].SpanContext().SpanID(), byName["sql.conn.exec"][0].Parent().SpanID())

	require.Equal(t, trace.SpanKindInternal, operation.SpanKind())
	require.Equal(t, trace.SpanKindInternal, attempts[0].SpanKind())
	require.Equal(t, map[attribute.Key]any{
		"retry.operation": "transaction", "retry.name": "transfer", "db.system.name": "postgresql",
		"server.address": "db.example", "server.port": int64(5432),
	}, attributesOf(operation))
	require.Equal(t, map[attribute.Key]any{
		"retry.operation": "transaction", "retry.attempt": int64(1), "error.type": "40001",
		"db.response.status_code": "40001",
	}, attributesOf(attempts[0]))
	require.Equal(t, map[attribute.Key]any{
		"retry.operation": "transaction", "retry.attempt": int64(2),
	}, attributesOf(attempts[1]))

	require.Len(t, operation.Events(), 1)
	event := operation.Events()[0]
	require.Equal(t, "retry.backoff", event.Name)
	require.ElementsMatch(t, []attribute.KeyValue{
		attribute.Int("retry.attempt", 1), attribute.Float64("retry.delay", 0.03),
		attribute.String("db.response.status_code", "40001"), attribute.String("retry.class", "transaction"),
	}, event.Attributes)
	for _, s := range ended {
		require.Equal(t, codes.Unset, s.Status().Code, s.Name())
	}
}

func TestStatusIsErrorOnlyWhenTheOperationFailedInTheEnd(t *testing.T) {
	t.Parallel()
	r, _, spans := newSDK(t, Options{})
	ctx, op := r.Start(t.Context(), OpConnect, "")
	_, first := op.Attempt(ctx, 1)
	first.Retried(errPlain, "57P03")
	_, second := op.Attempt(ctx, 2)
	second.End(errPlain, "57P03")
	op.EndStopped(errPlain, "57P03", "max_attempts")

	ended := spans.Ended()
	require.Len(t, ended, 3)
	require.Equal(t, codes.Unset, ended[0].Status().Code)
	require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "57P03"}, ended[1].Status())
	require.Equal(t, "retrypg.connect", ended[2].Name())
	require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "57P03: max_attempts"}, ended[2].Status())
	require.Equal(t, "max_attempts", attributesOf(ended[2])["retry.stop_reason"])
}

func TestEndAfterRetriedChangesNothing(t *testing.T) {
	t.Parallel()
	r, _, spans := newSDK(t, Options{})
	ctx, op := r.Start(t.Context(), OpStatement, "")
	_, attempt := op.Attempt(ctx, 1)
	attempt.Retried(errPlain, "40001")
	attempt.End(context.Canceled, "") // the wait ended with the context
	require.Len(t, spans.Ended(), 1)
	require.Equal(t, codes.Unset, spans.Ended()[0].Status().Code)
	require.Equal(t, "40001", attributesOf(spans.Ended()[0])["error.type"])
}

func TestNoErrorTextReachesASpan(t *testing.T) {
	t.Parallel()
	r, _, spans := newSDK(t, Options{})
	_, op := r.Start(t.Context(), "SELECT 'hunter2'", "")
	op.Backoff(1, 0, "hunter2", "hunter2 is the password")
	op.EndStopped(fmt.Errorf("connecting: %w", errPlain), "hunter2", "hunter2")
	span := spans.Ended()[0]
	require.Equal(t, "retrypg.other", span.Name())
	require.NotContains(t, fmt.Sprint(span.Attributes(), span.Events(), span.Status()), "hunter2")
	require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "_OTHER: other"}, span.Status())
}

func TestErrorTypeIsTheOutermostTypeThatSaysSomething(t *testing.T) {
	t.Parallel()
	netErr := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errPlain)}
	for _, c := range []struct {
		err  error
		want string
	}{
		{errPlain, "_OTHER"},
		{fmt.Errorf("a: %w", errPlain), "_OTHER"},
		{fmt.Errorf("a: %w", netErr), "*net.OpError"},
		{errors.Join(errPlain, netErr), "_OTHER"},
		{errors.Join(netErr, errPlain), "*net.OpError"},
		{fmt.Errorf("a: %w, %w", netErr, context.Canceled), "canceled"},
		{fmt.Errorf("a: %w", context.DeadlineExceeded), "deadline_exceeded"},
		{os.ErrDeadlineExceeded, "*poll.DeadlineExceededError"},
	} {
		require.Equal(t, c.want, errorType(c.err), "%v", c.err)
	}
}

func TestNameIsCutAt64BytesBetweenCharacters(t *testing.T) {
	t.Parallel()
	r, _, spans := newSDK(t, Options{})
	_, op := r.Start(t.Context(), OpTransaction, strings.Repeat("x", 63)+"é and more")
	op.End(nil, "")
	require.Equal(t, strings.Repeat("x", 63), attributesOf(spans.Ended()[0])["retry.name"])
}

func TestConcurrentStartsDoNotShareAttributes(t *testing.T) {
	t.Parallel()
	r, _, spans := newSDK(t, Options{})
	_, a := r.Start(t.Context(), OpTransaction, "a")
	_, b := r.Start(t.Context(), OpTransaction, "b")
	a.End(nil, "")
	b.End(nil, "")
	require.Equal(t, "a", attributesOf(spans.Ended()[0])["retry.name"])
	require.Equal(t, "b", attributesOf(spans.Ended()[1])["retry.name"])
}

func TestLinkLeadsToTheSpanThatDidTheWork(t *testing.T) {
	t.Parallel()
	r, _, spans := newSDK(t, Options{})
	_, prober := r.Start(t.Context(), OpConnect, "")
	_, waiter := r.Start(t.Context(), OpConnect, "")
	waiter.Link(trace.SpanContext{})
	waiter.Link(prober.SpanContext())
	waiter.Event("served", attribute.Bool("by_probe", true))
	waiter.SetAttributes(attribute.Int("n", 1))
	waiter.End(nil, "")
	span := spans.Ended()[0]
	require.Len(t, span.Links(), 1)
	require.Equal(t, prober.SpanContext(), span.Links()[0].SpanContext)
	require.Equal(t, "served", span.Events()[0].Name)
	require.Equal(t, int64(1), attributesOf(span)["n"])
	prober.End(nil, "")
}

func TestSpansThatAreNotSampledStillCarryTheTrace(t *testing.T) {
	t.Parallel()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	r, err := New(Options{TracerProvider: tp})
	require.NoError(t, err)
	ctx, op := r.Start(t.Context(), OpStatement, "")
	require.False(t, op.Recording())
	require.True(t, op.SpanContext().IsValid())
	_, attempt := op.Attempt(ctx, 1)
	require.Equal(t, op.SpanContext().TraceID(), attempt.SpanContext().TraceID())
	attempt.End(errPlain, "40001")
	op.EndStopped(errPlain, "", "policy")
}
