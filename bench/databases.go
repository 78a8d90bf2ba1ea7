package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/XSAM/otelsql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/ngrok/sqlmw"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/retrypg/retrypg"
)

// database is a handle of database/sql that reaches the server in one way.
type database struct {
	name string
	side side
	db   *sql.DB
}

// Names of contenders: pgxName is what all layers are compared with, ownName retrypg as it is without any provider.
const (
	pgxName = "pgx stdlib"
	ownName = "retrypg, no provider"
)

// databases are all ways to one server.
type databases []database

// openDatabases opens a handle of every kind to the server of dsn, each with one connection. dial replaces pgx's own if it is
// not nil.
func openDatabases(ctx context.Context, dsn string, dial pgconn.DialFunc) (databases, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("parse the DSN: %w", err)
	}
	if dial != nil {
		cfg.DialFunc = dial
		cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	}
	var meters meters
	list := databases{
		{name: pgxName, side: peer, db: stdlib.OpenDB(*cfg)},
		{name: "ngrok/sqlmw, null interceptor", side: peer, db: openSQLMW(cfg)},
		{name: "otelsql, no-op providers", side: peer, db: otelsql.OpenDB(stdlib.GetConnector(*cfg),
			otelsql.WithMeterProvider(metricnoop.NewMeterProvider()), otelsql.WithTracerProvider(tracenoop.NewTracerProvider()))},
		{name: "otelsql, SDK metrics and spans", side: peer, db: otelsql.OpenDB(stdlib.GetConnector(*cfg),
			otelsql.WithMeterProvider(meters.provider()), otelsql.WithTracerProvider(tracerProvider(sdktrace.AlwaysSample())))},
	}
	for _, own := range []struct {
		name    string
		options []retrypg.Option
	}{
		{ownName, nil},
		{"retrypg, SDK metrics", []retrypg.Option{retrypg.WithMeterProvider(meters.provider())}},
		{"retrypg, SDK metrics, those of otelsql too", []retrypg.Option{
			retrypg.WithMeterProvider(meters.provider()), retrypg.WithOTelSQLUse(retrypg.OTelSQLAlways),
		}},
		{"retrypg, SDK metrics, no span sampled", []retrypg.Option{
			retrypg.WithMeterProvider(meters.provider()), retrypg.WithTracerProvider(tracerProvider(sdktrace.NeverSample())),
		}},
		{"retrypg, SDK metrics, all spans", []retrypg.Option{
			retrypg.WithMeterProvider(meters.provider()), retrypg.WithTracerProvider(tracerProvider(sdktrace.AlwaysSample())),
		}},
	} {
		options := own.options
		if dial != nil {
			options = append(options, retrypg.WithConnConfig(func(c *pgx.ConnConfig) error {
				c.DialFunc, c.LookupFunc = cfg.DialFunc, cfg.LookupFunc
				return nil
			}))
		}
		db, err := retrypg.OpenDB(dsn, options...)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", own.name, err), list.close())
		}
		list = append(list, database{name: own.name, side: ours, db: db})
	}
	for _, d := range list {
		d.db.SetMaxOpenConns(1)
		if err := d.db.PingContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", d.name, err), list.close())
		}
	}
	if err := meters.read(ctx); err != nil {
		return nil, errors.Join(err, list.close())
	}
	return list, nil
}

// openSQLMW opens pgx's driver behind an interceptor that does nothing.
func openSQLMW(cfg *pgx.ConnConfig) *sql.DB {
	return sql.OpenDB(dsnConnector{driver: sqlmw.Driver(stdlib.GetDefaultDriver(), sqlmw.NullInterceptor{}), dsn: stdlib.RegisterConnConfig(cfg)})
}

// meters makes providers whose metrics are recorded.
type meters struct{ readers []sdkmetric.Reader }

func (m *meters) provider() *sdkmetric.MeterProvider {
	reader := sdkmetric.NewManualReader()
	m.readers = append(m.readers, reader)
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
}

// read reads the metrics, as a program's reader does every minute or so.
func (m *meters) read(ctx context.Context) error {
	for _, reader := range m.readers {
		if err := reader.Collect(ctx, &metricdata.ResourceMetrics{}); err != nil {
			return fmt.Errorf("read the metrics: %w", err)
		}
	}
	return nil
}

// tracerProvider returns one whose spans go nowhere.
func tracerProvider(s sdktrace.Sampler) *sdktrace.TracerProvider {
	return sdktrace.NewTracerProvider(sdktrace.WithSampler(s), sdktrace.WithSpanProcessor(nowhere{}))
}

// nowhere is a span processor that drops everything: an exporter has a cost of its own.
type nowhere struct{}

func (nowhere) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (nowhere) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (nowhere) Shutdown(context.Context) error                  { return nil }
func (nowhere) ForceFlush(context.Context) error                { return nil }

func (l databases) close() error {
	errs := make([]error, len(l))
	for i, d := range l {
		errs[i] = d.db.Close()
	}
	return errors.Join(errs...)
}

// reconnect closes the idle connection of a handle. The next statement opens another one.
func reconnect(db *sql.DB) {
	db.SetMaxIdleConns(0)
	db.SetMaxIdleConns(1)
}

// named returns the handle of a name that is in the list.
func (l databases) named(name string) *sql.DB {
	for _, d := range l {
		if d.name == name {
			return d.db
		}
	}
	return nil
}

// contenders returns one for each database that does work once.
func (l databases) contenders(work func(db *sql.DB) error) []contender {
	list := make([]contender, len(l))
	for i, d := range l {
		list[i] = contender{name: d.name, side: d.side, renew: func() { reconnect(d.db) }, run: func(n int) error {
			for range n {
				if err := work(d.db); err != nil {
					return err
				}
			}
			return nil
		}}
	}
	return list
}
