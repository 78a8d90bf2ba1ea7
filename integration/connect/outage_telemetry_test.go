package connect_test

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// TestCallersThatWereServedByTheProbeOfAnotherAreLinkedToIt: their own spans show a wait, and that one what was waited for.
func TestCallersThatWereServedByTheProbeOfAnotherAreLinkedToIt(t *testing.T) {
	const callers = 4
	d := newDatabase(t)
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			r, w := newTracer(t), newWatch()
			starting := p.OnMessages(10_000, authentication, refusing("57P03", "the database system is starting up"))
			ping, _ := handle(t, through(p, d), "4", r.option(), w.option())
			tree := r.trace(t, func(ctx context.Context) {
				var pings sync.WaitGroup
				call := func() { require.NoError(t, ping(ctx)) }
				pings.Go(call)
				require.NoError(t, w.down(ctx))
				for range callers - 1 {
					pings.Go(call)
				}
				all := 0 // waits of the prober when all callers were there
				require.NoError(t, w.until(ctx, func() bool {
					if all == 0 && r.began("retrypg.connect") == callers {
						all = len(w.backoffs)
					}
					return all > 0 && len(w.backoffs) >= all+2
				}))
				starting.Remove()
				pings.Wait()
			})
			var finder trace.SpanID
			linked := 0
			connects := tree.all("retrypg.connect")
			require.Len(t, connects, callers, "%v", tree)
			for _, op := range connects {
				if len(op.Links()) == 0 {
					require.NotEmpty(t, op.Events(), "who was served by nobody looked for the server: %v", tree)
					finder = op.SpanContext().SpanID()
					continue
				}
				linked++
			}
			require.Equal(t, callers-1, linked, "%v", tree)
			for _, op := range connects {
				for _, link := range op.Links() {
					require.Equal(t, finder, link.SpanContext.SpanID())
				}
			}
		})
	}
}

// TestAnOutageCanBeReadFromTheMetrics: whether the server is there, how long it was not, and what that cost the callers.
func TestAnOutageCanBeReadFromTheMetrics(t *testing.T) {
	const callers = 3
	d := newDatabase(t)
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			m, w := newMeter(t), newWatch()
			ping, closing := handle(t, through(p, d), "3", m.option(), w.option())
			ctx := within(t)
			require.NoError(t, ping(ctx))
			require.EqualValues(t, 1, m.value(t, "retry.server.up"))
			require.Empty(t, m.read(t, "retry.connect_wait_duration"), "nobody has waited")
			p.CutAll(pgtest.Both, pgtest.FIN)
			starting := p.OnMessages(10_000, authentication, refusing("57P03", "the database system is starting up"))
			var pings, begun sync.WaitGroup
			begun.Add(callers)
			for range callers {
				pings.Go(func() {
					begun.Done()
					require.NoError(t, ping(ctx))
				})
			}
			require.NoError(t, w.down(ctx))
			require.Zero(t, m.value(t, "retry.server.up"))
			require.Empty(t, m.read(t, "retry.outage_duration"), "it is not over")
			begun.Wait()
			all := 0 // waits of whoever looks for the server, when all callers had begun
			require.NoError(t, w.until(ctx, func() bool {
				if all == 0 {
					all = len(w.backoffs)
				}
				return all > 0 && len(w.backoffs) >= all+3
			}))
			starting.Remove()
			pings.Wait()
			require.EqualValues(t, 1, m.value(t, "retry.server.up"))
			outages := m.read(t, "retry.outage_duration")
			require.Len(t, outages, 1)
			require.EqualValues(t, 1, outages[0].count)
			waits := m.read(t, "retry.connect_wait_duration")
			require.Len(t, waits, 1)
			require.EqualValues(t, callers, waits[0].count)
			require.GreaterOrEqual(t, waits[0].value, outages[0].value, "all waited, and one for all of the outage")
			require.Positive(t, m.value(t, "retry.lost_duration", "retry.operation", "connect"))
			closing()
			require.Empty(t, m.read(t, "retry.server.up"), "read after Close")
		})
	}
}

// TestWhatATransactionLostToItsRetriesIsRecorded: from its beginning to that of the attempt that was the last one.
func TestWhatATransactionLostToItsRetriesIsRecorded(t *testing.T) {
	d, p := newProxied(t)
	m := newMeter(t)
	db := open(t, through(p, d), m.option())
	run := func(failures int) error {
		return retrypg.WithTx(within(t), db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			if retrypg.AttemptFromContext(ctx) > failures {
				return nil
			}
			_, err := tx.ExecContext(ctx, "do $$ begin raise exception 'x' using errcode = '40001'; end $$")
			return err
		})
	}
	require.NoError(t, run(0))
	require.Empty(t, m.read(t, "retry.lost_duration"))
	require.NoError(t, run(2))
	lost := m.value(t, "retry.lost_duration", "retry.operation", "transaction")
	require.Positive(t, lost)
	require.Less(t, lost, m.value(t, "retry.operation_duration", "retry.operation", "transaction"))
}

// TestTheConnectionsOfAHandleCanBeReadUntilItIsClosed: otelsql tells of those of database/sql, and we of those of a Pool.
func TestTheConnectionsOfAHandleCanBeReadUntilItIsClosed(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	t.Run("OpenDB", func(t *testing.T) {
		m := newMeter(t)
		db := open(t, through(p, d), m.option())
		db.SetMaxOpenConns(7)
		conn, err := db.Conn(ctx)
		require.NoError(t, err)
		require.EqualValues(t, 1, m.value(t, "db.sql.connection.open", "status", "inuse"))
		require.NoError(t, conn.Close())
		require.EqualValues(t, 1, m.value(t, "db.sql.connection.open", "status", "idle"))
		require.EqualValues(t, 7, m.value(t, "db.sql.connection.max_open"))
		require.NoError(t, db.Close())
		require.Empty(t, m.read(t, "db.sql.connection.open"))
	})
	t.Run("Pool", func(t *testing.T) {
		m := newMeter(t)
		pool := newPool(t, through(p, d, "pool_max_conns=7"), m.option())
		name := p.Addr()
		conn, err := pool.Acquire(ctx)
		require.NoError(t, err)
		const pooled, state = "db.client.connection.pool.name", "db.client.connection.state"
		require.EqualValues(t, 1, m.value(t, "db.client.connection.count", pooled, name, state, "used"))
		require.Zero(t, m.value(t, "db.client.connection.count", pooled, name, state, "idle"))
		conn.Release()
		require.EqualValues(t, 1, m.value(t, "db.client.connection.count", pooled, name, state, "idle"))
		require.EqualValues(t, 7, m.value(t, "db.client.connection.max", pooled, name))
		pool.Close()
		require.Empty(t, m.read(t, "db.client.connection.count"))
	})
	t.Run("without telemetry", func(t *testing.T) {
		m := newMeter(t)
		require.NoError(t, open(t, through(p, d), m.option(), retrypg.WithoutTelemetry()).PingContext(ctx))
		require.Empty(t, m.read(t, "db.sql.connection.open"))
	})
}

// TestAFailoverIsToldOnce: by a hook and a line of the log, whichever way leads to the new primary.
func TestAFailoverIsToldOnce(t *testing.T) {
	primary, standby := newPair(t, false)
	p := pgt.Proxy(t, primary.Addr())
	ctx := within(t)
	type told struct {
		mu   sync.Mutex
		list []retrypg.FailoverInfo
		log  bytes.Buffer
	}
	ways := map[string]string{
		"two hosts":   pgtest.DSN([]string{primary.Addr(), standby.Addr()}, "target_session_attrs=read-write"),
		"one address": p.DSN(),
	}
	failovers := make(map[string]*told)
	pings := make(map[string]pinger)
	for way, dsn := range ways {
		for api, handle := range handles {
			f := &told{}
			failovers[way+"/"+api] = f
			pings[way+"/"+api], _ = handle(t, dsn, "2", retrypg.WithLogger(slog.New(slog.NewTextHandler(&f.log, nil))),
				retrypg.WithHooks(retrypg.Hooks{Failover: func(i retrypg.FailoverInfo) {
					f.mu.Lock()
					defer f.mu.Unlock()
					f.list = append(f.list, i)
				}}))
		}
	}
	for _, ping := range pings {
		require.NoError(t, ping(ctx))
	}
	require.NoError(t, primary.Kill(ctx))
	require.NoError(t, standby.Promote(ctx))
	p.SetUpstream(standby.Addr())
	for _, ping := range pings {
		require.NoError(t, ping(ctx))
		require.NoError(t, ping(ctx))
	}
	for name, f := range failovers {
		f.mu.Lock()
		require.Len(t, f.list, 1, name)
		got := f.list[0]
		f.mu.Unlock()
		if from, to := primary.Addr(), standby.Addr(); name[:3] == "two" {
			require.Equal(t, retrypg.FailoverInfo{From: from, To: to, Timeline: 2}, got, name)
		} else {
			require.Equal(t, retrypg.FailoverInfo{From: p.Addr(), To: p.Addr(), Timeline: 2}, got, name)
		}
		require.Equal(t, 1, bytes.Count(f.log.Bytes(), []byte(`msg="postgres failover"`)), "%s: %s", name, &f.log)
	}
}
