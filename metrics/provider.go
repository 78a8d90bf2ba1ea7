package metrics

import (
	"reflect"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// tracing finds out whether a provider that makes spans is there. The tracing API has no Enabled, and starting a span to
// see what becomes of it allocates, or exports it: so the provider itself is looked at, once, and recognised by identity
// from then on. The zero value means that no spans are recorded.
type tracing struct {
	global bool
	found  atomic.Pointer[foundProvider]
}

// foundProvider is what was found out about a provider.
type foundProvider struct {
	provider trace.TracerProvider
	typ      reflect.Type
	pointer  bool
	tracer   trace.Tracer // nil if the provider makes no spans
}

func (t *tracing) init(p trace.TracerProvider) {
	// A program that fetched the global provider before it installed one means the global one.
	t.global = p == nil || isPlaceholder(p)
	if t.global {
		p = otel.GetTracerProvider()
	}
	t.found.Store(newFoundProvider(p))
}

// tracer returns the tracer to use, or nil if no spans would be recorded.
func (t *tracing) tracer() trace.Tracer {
	found := t.found.Load()
	if !t.global {
		if found == nil {
			return nil
		}
		return found.tracer
	}
	if p := otel.GetTracerProvider(); !found.is(p) {
		found = newFoundProvider(p)
		t.found.Store(found)
	}
	return found.tracer
}

func newFoundProvider(p trace.TracerProvider) *foundProvider {
	typ := reflect.TypeOf(p)
	found := &foundProvider{provider: p, typ: typ, pointer: typ.Kind() == reflect.Pointer}
	if !isPlaceholder(p) && !isNoop(p) {
		found.tracer = p.Tracer(ScopeName)
	}
	return found
}

// is reports whether p is the provider that was found. Two providers that are not pointers count as the same if their
// types are: their values may not be comparable.
func (f *foundProvider) is(p trace.TracerProvider) bool {
	if f.pointer {
		return f.provider == p
	}
	return f.typ == reflect.TypeOf(p)
}

// isPlaceholder recognises the provider that is global until the program installs one: its type is not exported, but its
// package is known. Should OpenTelemetry move it, then spans that record nothing would be made: slower, not wrong, and a
// test of this package would say so.
func isPlaceholder(p any) bool {
	typ := reflect.TypeOf(p)
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	// The path has a prefix if the package is vendored without modules.
	return strings.HasSuffix(typ.PkgPath(), "go.opentelemetry.io/otel/internal/global")
}

func isNoop(p trace.TracerProvider) bool {
	switch p.(type) {
	case noop.TracerProvider, *noop.TracerProvider:
		return true
	}
	return false
}
