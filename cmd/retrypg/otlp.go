package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/telemetry"
)

// shortestInterval keeps a mistyped --otlp-interval from being an export without pause.
const shortestInterval = 100 * time.Millisecond

// otlp holds the flags of the commands that can send telemetry.
type otlp struct {
	endpoint string
	interval time.Duration
}

func (o *otlp) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.endpoint, "otlp", "", "send metrics and spans over OTLP/gRPC to this collector: host:port, or a URL with http or https")
	flags.DurationVar(&o.interval, "otlp-interval", telemetry.DefaultInterval, "how often metrics are sent")
}

// validate reports wrong usage.
func (o *otlp) validate() error {
	if o.interval < shortestInterval {
		return fmt.Errorf("--otlp-interval %v is too short: give at least %v", o.interval, shortestInterval)
	}
	if o.endpoint == "" {
		return nil
	}
	if _, err := telemetry.ParseEndpoint(o.endpoint); err != nil {
		return fmt.Errorf("--otlp: %w", err)
	}
	return nil
}

// start returns what makes a handle of retrypg report to the collector, and what sends the rest. Without an endpoint
// both do nothing. Lines about telemetry that cannot be sent go to stderr.
func (o *otlp) start(ctx context.Context, service string, stderr io.Writer) (options []retrypg.Option, stop func(), err error) {
	if o.endpoint == "" {
		return nil, func() {}, nil
	}
	exporters, err := telemetry.Start(ctx, telemetry.Options{
		Endpoint: o.endpoint, Service: service, Version: version(), Interval: o.interval, Log: stderr,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("start the telemetry: %w", err)
	}
	return exporters.Options(), exporters.Close, nil
}
