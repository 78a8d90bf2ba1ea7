package metrics

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const (
	spanPrefix  = "retrypg." // and then the operation
	spanAttempt = "retrypg.attempt"

	eventBackoff   = "retry.backoff"
	eventAdmission = "retry.admission"
)

// spanOptions are the names and the ready-made start options of the spans, by operation.
type spanOptions struct {
	names    [opCount]string
	starts   [opCount][]trace.SpanStartOption
	attempts [opCount]trace.SpanStartOption
}

func newSpanOptions(base []attribute.KeyValue) spanOptions {
	var o spanOptions
	for i, op := range operations {
		operation := AttrOperation.String(string(op))
		o.names[i] = spanPrefix + string(op)
		o.starts[i] = []trace.SpanStartOption{
			trace.WithSpanKind(trace.SpanKindInternal),
			trace.WithAttributes(base...),
			trace.WithAttributes(operation),
		}
		o.attempts[i] = trace.WithAttributes(operation)
	}
	return o
}

// Span is the span of an operation or of one attempt. It is a small value, to be passed by value; the zero Span is valid
// and does nothing. Like OpenTelemetry's spans it is safe for concurrent use, and what is called after it ended has no
// effect.
type Span struct {
	span trace.Span // nil in the zero Span
	rec  *Recorder
	op   uint8 // index in operations
}

// Start begins the span of an operation, retrypg.<op>, below the span in ctx, and returns a context that holds it. name is
// what the user called the transaction; it is cut off after 64 bytes; empty leaves it out. While no provider makes spans,
// it returns ctx and the zero Span and does not allocate.
func (r *Recorder) Start(ctx context.Context, op Operation, name string) (context.Context, Span) {
	if r == nil {
		return ctx, Span{}
	}
	tracer := r.tracing.tracer()
	if tracer == nil {
		return ctx, Span{}
	}
	i := operationIndex(op)
	opts := r.spans.starts[i]
	if name != "" {
		// A copy: the array behind opts is shared. With the start, not later: samplers see it there.
		opts = append(opts[:len(opts):len(opts)], trace.WithAttributes(AttrName.String(boundedName(name))))
	}
	ctx, span := tracer.Start(ctx, r.spans.names[i], opts...)
	return ctx, Span{span: span, rec: r, op: i}
}

// Attempt begins the span of attempt n, counted from 1, below the span in ctx, which should be the context that Start
// returned, and returns a context that holds it. The spans of the attempt's statements belong below that one.
func (s Span) Attempt(ctx context.Context, n int) (context.Context, Span) {
	if s.span == nil {
		return ctx, Span{}
	}
	tracer := s.rec.tracing.tracer()
	if tracer == nil {
		return ctx, Span{}
	}
	ctx, span := tracer.Start(ctx, spanAttempt, s.rec.spans.attempts[s.op], trace.WithAttributes(AttrAttempt.Int(n)))
	return ctx, Span{span: span, rec: s.rec, op: s.op}
}

// Recording reports whether the span is sampled, so that what is set on it is kept. Callers ask it before they build
// attributes.
func (s Span) Recording() bool {
	return s.span != nil && s.span.IsRecording()
}

// Backoff adds the event retry.backoff: attempt, counted from 1, failed with code (a SQLSTATE, or empty) and the next one
// follows after wait. class is the word for what the classification said is to be done; empty leaves it out.
func (s Span) Backoff(attempt int, wait time.Duration, code, class string) {
	if !s.Recording() {
		return
	}
	kvs := make([]attribute.KeyValue, 0, 4)
	kvs = append(kvs, AttrAttempt.Int(attempt), AttrDelay.Float64(max(wait, 0).Seconds()))
	if c := parseSQLState(code); c != (sqlstate{}) {
		kvs = append(kvs, AttrStatusCode.String(c.String()))
	}
	if class != "" {
		kvs = append(kvs, AttrClass.String(boundedWord(class)))
	}
	s.span.AddEvent(eventBackoff, trace.WithAttributes(kvs...))
}

// Admission adds the event retry.admission: an attempt, counted from 1, had to wait for its turn, or one of its statements had.
func (s Span) Admission(attempt int, waited time.Duration) {
	s.Event(eventAdmission, AttrAttempt.Int(attempt), AttrDelay.Float64(max(waited, 0).Seconds()))
}

// Event adds an event. The attributes must not hold SQL text or user data.
func (s Span) Event(name string, attributes ...attribute.KeyValue) {
	if s.Recording() {
		s.span.AddEvent(name, trace.WithAttributes(attributes...))
	}
}

// SetAttributes sets attributes of the span. They must not hold SQL text or user data.
func (s Span) SetAttributes(attributes ...attribute.KeyValue) {
	if s.Recording() {
		s.span.SetAttributes(attributes...)
	}
}

// CommitChecked sets what a check of a commit found out: outcome as for [Recorder.CommitCheck], how often the server was
// asked, and whether the transaction's server process was terminated to end it.
func (s Span) CommitChecked(outcome string, asked int, fenced bool) {
	if s.Recording() {
		s.span.SetAttributes(AttrCommitOutcome.String(boundedWord(outcome)), AttrCommitAsked.Int(asked), AttrCommitFenced.Bool(fenced))
	}
}

// Link links the span to the one that did the work for it, as when another caller's attempt found the server back. An
// invalid context is not linked.
func (s Span) Link(to trace.SpanContext) {
	if to.IsValid() && s.Recording() {
		s.span.AddLink(trace.Link{SpanContext: to})
	}
}

// SpanContext identifies the span to others, for Link. That of the zero Span is invalid.
func (s Span) SpanContext() trace.SpanContext {
	if s.span == nil {
		return trace.SpanContext{}
	}
	return s.span.SpanContext()
}

// End ends the span. A nil err leaves its status unset. Any other error means that the operation, or the attempt and the
// operation with it, failed in the end: the status becomes Error. Of err only the kind is recorded, as error.type: code if
// it is a SQLSTATE, else "deadline_exceeded", "canceled" or the Go type. An attempt that another one follows ends with
// Retried instead.
func (s Span) End(err error, code string) {
	s.EndStopped(err, code, "")
}

// EndStopped is End with the reason for giving up, recorded as retry.stop_reason and in the description of the status.
// An empty reason leaves it out.
func (s Span) EndStopped(err error, code, stopReason string) {
	if s.span == nil {
		return
	}
	if err != nil && s.span.IsRecording() {
		description := s.setError(err, code)
		if stopReason != "" {
			reason := stopReasons[stopReasonIndex(stopReason)]
			s.span.SetAttributes(AttrStopReason.String(reason))
			description += ": " + reason
		}
		s.span.SetStatus(codes.Error, description)
	}
	s.span.End()
}

// Retried ends the span of an attempt that failed and is followed by another one: it records the kind of err, as End
// does, but leaves the status unset.
func (s Span) Retried(err error, code string) {
	if s.span == nil {
		return
	}
	if err != nil && s.span.IsRecording() {
		s.setError(err, code)
	}
	s.span.End()
}

// setError sets the attributes that tell the kind of err and returns the value of error.type.
func (s Span) setError(err error, code string) string {
	c := parseSQLState(code)
	if c != (sqlstate{}) {
		s.span.SetAttributes(AttrErrorType.String(c.String()), AttrStatusCode.String(c.String()))
		return c.String()
	}
	kind := errorType(err)
	s.span.SetAttributes(AttrErrorType.String(kind))
	return kind
}
