package retrypg

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// metered is scripted with metrics that are recorded. read returns those that there are: of a counter the sum over all
// attributes, of a histogram of numbers too, and of one of durations how often one was recorded.
func metered(t *testing.T, s *script.Server, opts ...Option) (_ *sql.DB, read func() map[string]int64) {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	opts = append([]Option{WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))}, opts...)
	return scripted(t, s, opts...), func() map[string]int64 {
		var data metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(t.Context(), &data))
		values := make(map[string]int64)
		for _, scope := range data.ScopeMetrics {
			for _, m := range scope.Metrics {
				values[m.Name] = 0
				switch data := m.Data.(type) {
				case metricdata.Sum[int64]:
					for _, p := range data.DataPoints {
						values[m.Name] += p.Value
					}
				case metricdata.Histogram[float64]:
					for _, p := range data.DataPoints {
						values[m.Name] += int64(p.Count)
					}
				case metricdata.Histogram[int64]:
					for _, p := range data.DataPoints {
						values[m.Name] += p.Sum
					}
				}
			}
		}
		return values
	}
}

// TestAStatementIsCountedAlikeWhoeverReadsTheMetricsAndWhen: the same, whether a first attempt was told of by itself or with
// all others, and kept for the reader or not.
func TestAStatementIsCountedAlikeWhoeverReadsTheMetricsAndWhen(t *testing.T) {
	for name, opts := range map[string][]Option{
		"metrics alone":             nil,
		"a breaker":                 {WithBreaker(breaker.Options{})},
		"spans":                     {WithTracerProvider(sdktrace.NewTracerProvider())},
		"spans, but not of otelsql": {WithTracerProvider(sdktrace.NewTracerProvider()), WithOTelSQLUse(OTelSQLNever)},
	} {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, read early: %v", name, early), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					conflicts := failing("update", 2, conflictError())
					db, read := metered(t, script.New(script.Accept(func(s *script.Session, sql string) script.Result {
						time.Sleep(time.Millisecond)
						return conflicts(s, sql)
					})), opts...)
					conn, err := db.Conn(endless)
					require.NoError(t, err)
					if early {
						read()
					}
					exec := func(text string) error {
						_, err := conn.ExecContext(endless, text)
						return err
					}
					require.NoError(t, exec("insert into t values (1)"))
					require.NoError(t, exec("update t set a = 1"))
					require.NoError(t, exec("insert into t values (2)"))

					got := read()
					require.EqualValues(t, 1+1+3+1, got["retry.attempts"], "the connection, and three statements")
					require.EqualValues(t, 1+3, got["retry.successes"])
					require.NotContains(t, got, "retry.failures")
					require.EqualValues(t, 3, got["retry.operation_attempts"], "one took more than one")
					require.EqualValues(t, 1, got["retry.lost_duration"])
					require.EqualValues(t, 2, got["retry.backoff_duration"])
					require.GreaterOrEqual(t, got["retry.operation_duration"], int64(3))
				})
			})
		}
	}
}

// panicking is an argument whose encoding panics.
type panicking struct{}

func (panicking) Value() (driver.Value, error) { panic("no value") }

// TestAStatementThatPanicsIsAFailureAlsoWhereOnlyMetricsAreRecorded: by the code of an argument, as here, or of a tracer.
func TestAStatementThatPanicsIsAFailureAlsoWhereOnlyMetricsAreRecorded(t *testing.T) {
	for name, run := range map[string]func(conn *sql.Conn){
		"exec": func(conn *sql.Conn) { _, _ = conn.ExecContext(endless, "insert into t values ($1)", panicking{}) },
		"query": func(conn *sql.Conn) {
			var n int
			_ = conn.QueryRowContext(endless, "select $1", panicking{}).Scan(&n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, read := metered(t, answering())
				conn, err := db.Conn(endless)
				require.NoError(t, err)
				require.NotContains(t, read(), "retry.failures")
				require.Panics(t, func() { run(conn) })
				require.Contains(t, read(), "retry.failures")
			})
		})
	}
}
