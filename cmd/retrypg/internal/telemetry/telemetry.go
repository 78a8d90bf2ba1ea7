// Package telemetry sends the metrics and spans of the tool's loads to an OpenTelemetry collector over OTLP/gRPC.
//
// A collector that is away must not be felt by the load: what cannot be sent waits in the SDK's bounded queue or is
// dropped, and metrics are sums, which the next export carries again.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/retrypg/retrypg"
)

// DefaultInterval is how often metrics are exported where Options do not say it. The SDK's own default of a minute would
// show a demo of half a minute as one point.
const DefaultInterval = 5 * time.Second

const (
	// exportTimeout bounds one export: not longer than it is worth waiting for a collector next door.
	exportTimeout = 5 * time.Second
	// closeTimeout bounds the last export, so that a collector that is away does not hold up the end of the program.
	closeTimeout = 3 * time.Second
)

// Options say where telemetry goes and what it is called.
type Options struct {
	Endpoint string        // as ParseEndpoint takes it
	Service  string        // service.name, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has one
	Version  string        // service.version; empty: none
	Interval time.Duration // between two exports of metrics; 0: DefaultInterval
	Log      io.Writer     // gets a line when telemetry cannot be sent, at most one a minute; nil: nothing does
}

// Exporters are a meter provider and a tracer provider that export over OTLP/gRPC. Close must be called.
type Exporters struct {
	meters *sdkmetric.MeterProvider
	traces *sdktrace.TracerProvider
	spans  sdktrace.SpanExporter
	log    *failureLog
}

// Start makes the exporters. It does not wait for the collector, which may come later or never. Beside Options, the
// variables OTEL_* that the SDK knows hold, such as OTEL_TRACES_SAMPLER and OTEL_EXPORTER_OTLP_HEADERS. Start replaces
// OpenTelemetry's global error handler, through which the SDK reports what could not be sent.
func Start(ctx context.Context, opts Options) (*Exporters, error) {
	endpoint, err := ParseEndpoint(opts.Endpoint)
	if err != nil {
		return nil, err
	}
	if opts.Interval == 0 {
		opts.Interval = DefaultInterval
	}
	if opts.Log == nil {
		opts.Log = io.Discard
	}
	about, err := describe(ctx, opts)
	if err != nil {
		return nil, err
	}
	metrics, err := otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpointURL(endpoint), otlpmetricgrpc.WithTimeout(exportTimeout),
		// The next export has the same sums and comes sooner than a retry would be given up.
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: false}))
	if err != nil {
		return nil, fmt.Errorf("export metrics to %s: %w", endpoint, err)
	}
	spans, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(endpoint), otlptracegrpc.WithTimeout(exportTimeout))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("export traces to %s: %w", endpoint, err), metrics.Shutdown(ctx))
	}
	e := &Exporters{
		meters: sdkmetric.NewMeterProvider(sdkmetric.WithResource(about),
			sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics, sdkmetric.WithInterval(opts.Interval), sdkmetric.WithTimeout(exportTimeout)))),
		// The batcher keeps 2,048 spans at most and drops those beyond, without blocking who ended them.
		traces: sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithBatcher(spans)),
		spans:  spans,
		log:    newFailureLog(opts.Log, endpoint),
	}
	otel.SetErrorHandler(e.log)
	return e, nil
}

// Options make a handle of retrypg report to the exporters.
func (e *Exporters) Options() []retrypg.Option {
	return []retrypg.Option{retrypg.WithMeterProvider(e.meters), retrypg.WithTracerProvider(e.traces)}
}

// Close sends what is left, for closeTimeout at most, and ends the exporters. What could not be sent is in the log.
func (e *Exporters) Close() {
	// Not the caller's context: a signal has ended it, and what was measured until then is wanted all the same.
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- e.meters.Shutdown(ctx) }()
	go func() { ended <- e.traces.Shutdown(ctx) }()
	if err := errors.Join(<-ended, <-ended); err != nil {
		e.log.Handle(err)
		_ = e.spans.Shutdown(ctx) // or what is left in the queue would be tried in the background; its error is the same
	}
	e.log.close()
}

// describe returns the resource: who reports. The instance tells two processes of a service apart, whose sums would
// otherwise overwrite each other.
func describe(ctx context.Context, opts Options) (*resource.Resource, error) {
	attributes := []attribute.KeyValue{attribute.String("service.name", opts.Service)}
	if opts.Version != "" {
		attributes = append(attributes, attribute.String("service.version", opts.Version))
	}
	if host, err := os.Hostname(); err == nil {
		attributes = append(attributes, attribute.String("service.instance.id", host+":"+strconv.Itoa(os.Getpid())))
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attributes...), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("read the resource attributes of OTEL_*: %w", err)
	}
	return about, nil
}

// ParseEndpoint returns the URL of a collector's OTLP/gRPC receiver, which is given as host:port, for a connection
// without TLS, or as a URL of the scheme http or https.
func ParseEndpoint(endpoint string) (string, error) {
	text := endpoint
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	// The text itself is not in the errors: a URL may hold a password.
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.New("the OTLP endpoint is not a URL: give host:port, http://host:port or https://host:port")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("the scheme of the OTLP endpoint is %q: give http or https", u.Scheme)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return "", errors.New("the OTLP endpoint has more than a host and a port: OTLP over gRPC knows no more")
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil || host == "" {
		return "", fmt.Errorf("the OTLP endpoint %q has no host and port: give host:port, such as 127.0.0.1:4317", u.Host)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("the port of the OTLP endpoint is %q: give 1 to 65535", port)
	}
	return u.Scheme + "://" + u.Host, nil
}
