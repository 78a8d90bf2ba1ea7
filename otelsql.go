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

// OTelSQLUse says when otelsql is in the path of a connection of database/sql. It is found out when the connection is made.
type OTelSQLUse uint8

const (
	// OTelSQLForSpans uses it where a provider that makes spans is installed then. It is the default: metrics alone are recorded
	// by this package, for a fraction of the cost.
	OTelSQLForSpans OTelSQLUse = iota + 1
	// OTelSQLAlways uses it for every connection, for otelsql's metrics of each call (db.client.operation.duration).
	OTelSQLAlways
	// OTelSQLNever does not use it: attempts have no spans of their statements below them.
	OTelSQLNever
)

// String returns the word for u in a DSN: "spans", "always", "never".
func (u OTelSQLUse) String() string {
	switch u {
	case OTelSQLForSpans:
		return "spans"
	case OTelSQLAlways:
		return "always"
	case OTelSQLNever:
		return "never"
	}
	return "default"
}

// WithOTelSQLUse sets when otelsql is in the path of a connection: OTelSQLForSpans, which is the default, OTelSQLAlways or
// OTelSQLNever. It has no effect on a Pool, nor on otelsql's statistics of the pool of database/sql (db.sql.connection.*),
// which OpenDB registers in any case.
func WithOTelSQLUse(u OTelSQLUse) Option {
	return optionFunc(func(s *settings) {
		if u < OTelSQLForSpans || u > OTelSQLNever {
			s.errs = append(s.errs, fmt.Errorf("WithOTelSQLUse(%d): OTelSQLForSpans, OTelSQLAlways or OTelSQLNever is needed", u))
			return
		}
		s.otelsqlUse = u
	})
}

func setOTelSQLUse(s *settings, v string) bool {
	for _, u := range []OTelSQLUse{OTelSQLForSpans, OTelSQLAlways, OTelSQLNever} {
		if v == u.String() {
			s.otelsqlUse = u
			return true
		}
	}
	return false
}

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
