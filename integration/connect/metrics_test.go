package connect_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/policy"
)

// meter records the metrics of one test.
type meter struct {
	reader   *sdkmetric.ManualReader
	provider *sdkmetric.MeterProvider
}

func newMeter(t *testing.T) *meter {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return &meter{reader: reader, provider: provider}
}

func (m *meter) option() retrypg.Option { return retrypg.WithMeterProvider(m.provider) }

// point is one combination of attributes of one instrument.
type point struct {
	attributes map[string]string
	value      float64 // of a histogram the sum
	count      uint64  // of a histogram
}

// read returns the points of an instrument.
func (m *meter) read(t *testing.T, name string) []point {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, m.reader.Collect(t.Context(), &all))
	var points []point
	add := func(set attribute.Set, value float64, count uint64) {
		got := values(set.ToSlice())
		require.Equal(t, "postgresql", got["db.system.name"], name)
		require.Equal(t, "127.0.0.1", got["server.address"], name)
		require.NotEmpty(t, got["server.port"], name)
		for _, v := range got {
			require.NotContains(t, v, secret)
			require.NotContains(t, v, password)
		}
		for _, key := range []string{"db.system.name", "server.address", "server.port"} {
			delete(got, key)
		}
		points = append(points, point{got, value, count})
	}
	for _, scope := range all.ScopeMetrics {
		for _, metric := range scope.Metrics {
			if metric.Name != name {
				continue
			}
			switch data := metric.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Value), 0)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Value), 0)
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, p.Value, 0)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, p.Sum, p.Count)
				}
			case metricdata.Histogram[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Sum), p.Count)
				}
			default:
				require.Fail(t, "unknown kind of metric", "%s: %T", name, data)
			}
		}
	}
	return points
}

// value returns the value of the one point whose attributes are those given, as pairs, and 0 if there is none.
func (m *meter) value(t *testing.T, name string, pairs ...string) float64 {
	t.Helper()
	want := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		want[pairs[i]] = pairs[i+1]
	}
	for _, p := range m.read(t, name) {
		if len(p.attributes) == len(want) && subset(want, p.attributes) {
			return p.value
		}
	}
	return 0
}

func subset(want, have map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

func TestStatementsAndConnectionsAreCounted(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	for name, run := range map[string]func(dsn string, opts ...retrypg.Option) error{
		"db": func(dsn string, opts ...retrypg.Option) error {
			db := open(t, dsn, opts...)
			for range 3 {
				if _, err := db.ExecContext(ctx, "select 1"); err != nil {
					return err
				}
			}
			_, err := db.ExecContext(ctx, "select 1 from "+secret)
			require.Equal(t, "42P01", retrypg.SQLState(err))
			return nil
		},
		"pool": func(dsn string, opts ...retrypg.Option) error {
			pool := newPool(t, dsn, opts...)
			for range 3 {
				if _, err := pool.Exec(ctx, "select 1"); err != nil {
					return err
				}
			}
			_, err := pool.Exec(ctx, "select 1 from "+secret)
			require.Equal(t, "42P01", retrypg.SQLState(err))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMeter(t)
			p.OnMessages(2, authentication, refusing("57P03", "the database system is starting up"))
			require.NoError(t, run(through(p, d), m.option()))
			const op, code, reason = "retry.operation", "db.response.status_code", "retry.stop_reason"
			require.EqualValues(t, 1, m.value(t, "retry.attempts", op, "connect"))
			require.EqualValues(t, 2, m.value(t, "retry.attempts", op, "connect", code, "57P03"))
			require.EqualValues(t, 1, m.value(t, "retry.successes", op, "connect"))
			require.EqualValues(t, 3, m.value(t, "retry.attempts", op, "statement"))
			require.EqualValues(t, 1, m.value(t, "retry.attempts", op, "statement", code, "42P01"))
			require.EqualValues(t, 3, m.value(t, "retry.successes", op, "statement"))
			require.EqualValues(t, 1, m.value(t, "retry.failures", op, "statement", reason, "not_retryable", code, "42P01"))
			require.Positive(t, m.value(t, "retry.backoff_duration", op, "connect", code, "57P03"))
			require.EqualValues(t, 3, m.value(t, "retry.operation_attempts", op, "connect"))
			require.Positive(t, m.value(t, "retry.operation_duration", op, "statement"))
			require.Equal(t, policy.DefaultBudgetBurst, int(m.value(t, "retry.budget.tokens")))
		})
	}
}

func TestTransactionsAreCounted(t *testing.T) {
	d, p := newProxied(t)
	m := newMeter(t)
	ctx := within(t)
	db := open(t, through(p, d), m.option())
	fail := func(attempts int) func(ctx context.Context, tx *sql.Tx) error {
		return func(ctx context.Context, tx *sql.Tx) error {
			if retrypg.AttemptFromContext(ctx) > attempts {
				return nil
			}
			_, err := tx.ExecContext(ctx, "do $$ begin raise exception '"+secret+"' using errcode = '40001'; end $$")
			return err
		}
	}
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{Name: secret}, fail(2)))
	require.Error(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{MaxAttempts: 2}, fail(9)))
	const op, code, reason = "retry.operation", "db.response.status_code", "retry.stop_reason"
	require.EqualValues(t, 1, m.value(t, "retry.attempts", op, "transaction"))
	require.EqualValues(t, 4, m.value(t, "retry.attempts", op, "transaction", code, "40001"))
	require.EqualValues(t, 1, m.value(t, "retry.successes", op, "transaction"))
	require.EqualValues(t, 1, m.value(t, "retry.failures", op, "transaction", reason, "max_attempts", code, "40001"))
	for _, p := range m.read(t, "retry.backoff_duration") {
		if p.attributes[op] == "transaction" {
			require.EqualValues(t, 3, p.count)
			require.Equal(t, "40001", p.attributes[code])
		}
	}
}

func TestLostCommitsAndEvictionsAreCountedByWhatBecameOfThem(t *testing.T) {
	d, p := newProxied(t)
	m := newMeter(t)
	ctx := within(t)
	db := open(t, through(p, d), m.option())
	require.NoError(t, db.PingContext(ctx))
	p.CutAll(pgtest.Both, pgtest.FIN)
	require.NoError(t, db.PingContext(ctx))
	require.EqualValues(t, 1, m.value(t, "retry.evictions", "retry.eviction.reason", "dead"))

	nothing := func(ctx context.Context, tx *sql.Tx) error { // but what makes it a transaction
		_, err := tx.ExecContext(ctx, "select 1")
		return err
	}
	p.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, nothing))
	require.EqualValues(t, 1, m.value(t, "retry.commit_checks", "retry.commit_outcome", "committed"))

	p.OnMessage(pgtest.Sent("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, nothing))
	require.EqualValues(t, 1, m.value(t, "retry.commit_checks", "retry.commit_outcome", "not_applied"))

	p.OnMessage(pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Client, pgtest.FIN))
	require.ErrorIs(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{Commit: retrypg.NoCheck}, nothing), retrypg.ErrCommitUnknown)
	require.EqualValues(t, 1, m.value(t, "retry.commit_checks", "retry.commit_outcome", "unknown"))

	require.Empty(t, m.read(t, "retry.commit_unreplicated"))
	p.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(&pgproto3.NoticeResponse{
		Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "57P01", Routine: "SyncRepWaitForLSN",
	}))
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, nothing), "the server has said that it committed")
	require.EqualValues(t, 1, m.value(t, "retry.commit_unreplicated"))
	require.EqualValues(t, 1, m.value(t, "retry.commit_checks", "retry.commit_outcome", "committed"), "nothing had to be asked")
}

func TestStateOfTheBreakerAndTheBudgetCanBeRead(t *testing.T) {
	d, p := newProxied(t)
	m := newMeter(t)
	ctx := within(t)
	budget := policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: 5, NoMinimum: true}))
	db := open(t, through(p, d, "breaker_failures=2", "breaker_open_for=1h"), m.option(), retrypg.WithBudget(budget))
	require.EqualValues(t, breaker.Closed, m.value(t, "retry.breaker.state"))
	require.EqualValues(t, 5, m.value(t, "retry.budget.tokens"))
	require.True(t, budget.Withdraw())
	require.EqualValues(t, 4, m.value(t, "retry.budget.tokens"))
	require.NoError(t, p.SetAccept(pgtest.AcceptReset))
	_ = refused(t, db.PingContext(ctx))
	require.EqualValues(t, breaker.Open, m.value(t, "retry.breaker.state"))
	require.EqualValues(t, 1, m.value(t, "retry.failures", "retry.operation", "connect", "retry.stop_reason", "breaker_open"), "%v", m.read(t, "retry.failures"))
	require.NoError(t, db.Close())
	require.Empty(t, m.read(t, "retry.breaker.state"), "read after Close")
}

func TestExhaustedConnectsAreCountedByTheirReason(t *testing.T) {
	d, p := newProxied(t)
	m := newMeter(t)
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	db := open(t, through(p, d, "retry_connect_max_elapsed=50ms"), m.option())
	require.Error(t, db.PingContext(context.WithoutCancel(t.Context())))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, db.PingContext(ctx))
	require.EqualValues(t, 1, m.value(t, "retry.failures", "retry.operation", "connect", "retry.stop_reason", "max_elapsed"))
	// database/sql does not ask for a connection with a context that has ended.
	require.Len(t, m.read(t, "retry.failures"), 1)
}
