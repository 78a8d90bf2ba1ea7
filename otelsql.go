package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"

	"github.com/XSAM/otelsql"
	"go.opentelemetry.io/otel/attribute"

	"github.com/retrypg/retrypg/metrics"
)

// attemptDriver hands a connector to otelsql, which wraps drivers only.
type attemptDriver struct{ connector *attemptConnector }

func (d attemptDriver) Open(string) (driver.Conn, error) {
	return d.connector.Connect(context.Background())
}

func (d attemptDriver) OpenConnector(string) (driver.Connector, error) { return d.connector, nil }

// otelConnector puts otelsql around a connector.
func otelConnector(c driver.Connector, s settings) (driver.Connector, error) {
	return otelsql.WrapDriver(c.Driver(), otelOptions(s)...).(driver.DriverContext).OpenConnector("")
}

// otelOptions are the options of everything that otelsql records for a handle.
func otelOptions(s settings) []otelsql.Option {
	opts := []otelsql.Option{
		otelsql.WithSpanOptions(otelsql.SpanOptions{
			DisableQuery: true, DisableErrSkip: true, OmitConnResetSession: true,
			// otelsql records the text of errors, which holds names and values of the user. The SQLSTATE is recorded
			// instead, and what failed in the end is an Error of the span above.
			RecordError: func(error) bool { return false },
		}),
		otelsql.WithSpanErrorAttributesGetter(errorAttributes),
	}
	if s.meterProvider != nil {
		opts = append(opts, otelsql.WithMeterProvider(s.meterProvider))
	}
	if s.tracerProvider != nil {
		opts = append(opts, otelsql.WithTracerProvider(s.tracerProvider))
	}
	opts = append(opts, otelsql.WithAttributes(metrics.AttrDBSystem.String("postgresql")), otelsql.WithAttributes(s.attributes...))
	return append(opts, s.otelsql...)
}

// errorAttributes tells spans which error it was, without its text.
func errorAttributes(err error) []attribute.KeyValue {
	code := SQLState(err)
	if code == "" {
		return nil
	}
	return []attribute.KeyValue{metrics.AttrStatusCode.String(code), metrics.AttrErrorType.String(code)}
}

// observeDB lets the statistics of the pool of a *sql.DB be read as metrics, by otelsql, until close.
func (c *core) observeDB(db *sql.DB) error {
	if c.set.telemetryOff {
		return nil
	}
	opts := append([]otelsql.Option{otelsql.WithAttributes(c.server...)}, otelOptions(c.set)...)
	registration, err := otelsql.RegisterDBStatsMetrics(db, opts...)
	if err != nil {
		return fmt.Errorf("retrypg: telemetry: register the statistics of the pool: %w", err)
	}
	c.poolStats = registration
	return nil
}
