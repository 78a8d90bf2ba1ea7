package retrypg

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// TestOTelSQLIsInThePathWhereSpansAreRecordedOrWhereItIsAskedFor: it shows by its spans, by its metrics, and by what wraps the connection.
func TestOTelSQLIsInThePathWhereSpansAreRecordedOrWhereItIsAskedFor(t *testing.T) {
	const calls = "db.client.operation.duration"
	for name, tt := range map[string]struct {
		opts    []Option
		spans   bool // a provider makes some
		traced  bool // otelsql is in the path
		nothing bool // is recorded
	}{
		"metrics alone":              {},
		"metrics and no-op spans":    {opts: []Option{WithTracerProvider(tracenoop.NewTracerProvider())}},
		"metrics and spans":          {spans: true, traced: true},
		"always":                     {opts: []Option{WithOTelSQLUse(OTelSQLAlways)}, traced: true},
		"always, with spans":         {opts: []Option{WithOTelSQLUse(OTelSQLAlways)}, spans: true, traced: true},
		"never, with spans":          {opts: []Option{WithOTelSQLUse(OTelSQLNever)}, spans: true},
		"always, but no telemetry":   {opts: []Option{WithOTelSQLUse(OTelSQLAlways), WithoutTelemetry()}, nothing: true},
		"spans, of two the later":    {opts: []Option{WithOTelSQLUse(OTelSQLAlways), WithOTelSQLUse(OTelSQLForSpans)}},
		"spans, which are not there": {opts: []Option{WithOTelSQLUse(OTelSQLForSpans)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				recorder := tracetest.NewSpanRecorder()
				if tt.spans {
					tt.opts = append(tt.opts, WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))))
				}
				db, read := metered(t, answering(), tt.opts...)
				_, err := db.ExecContext(endless, "insert into t values (1)")
				require.NoError(t, err)
				conn, err := db.Conn(endless)
				require.NoError(t, err)
				require.NoError(t, conn.Raw(func(c any) error {
					require.Equal(t, tt.traced, c.(*Conn).traced != nil)
					return nil
				}))
				require.NoError(t, conn.Close())

				names := read()
				if tt.nothing {
					require.Empty(t, names)
					return
				}
				require.Contains(t, names, "retry.attempts")
				require.Contains(t, names, "retry.successes")
				if tt.traced {
					require.NotZero(t, names[calls])
				} else {
					require.NotContains(t, names, calls)
				}
				var spans []string
				for _, s := range recorder.Ended() {
					spans = append(spans, s.Name())
				}
				switch {
				case tt.spans && tt.traced:
					require.Contains(t, spans, "sql.conn.exec")
				case tt.spans:
					require.ElementsMatch(t, []string{"retrypg.attempt", "retrypg.connect", "retrypg.attempt", "retrypg.statement"}, spans)
				default:
					require.Empty(t, spans)
				}
			})
		})
	}
}

func TestOTelSQLMeasuresEachStatementWhereItIsInThePathWithoutSpans(t *testing.T) {
	const calls = "db.client.operation.duration"
	synctest.Test(t, func(t *testing.T) {
		db, read := metered(t, answering(), WithOTelSQLUse(OTelSQLAlways))
		conn, err := db.Conn(endless) // else what is measured of the pool would be in between
		require.NoError(t, err)
		before := read()[calls]
		_, err = conn.ExecContext(endless, "insert into t values (1)")
		require.NoError(t, err)
		afterExec := read()[calls]
		require.Equal(t, before+1, afterExec)
		var n int
		require.NoError(t, conn.QueryRowContext(endless, "select 1").Scan(&n))
		require.Greater(t, read()[calls], afterExec, "the query, and its rows")
		require.NoError(t, conn.Close())
	})
}
