package cost_test

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// BenchmarkWaitingCallers measures what 1,000 callers cost that wait for a server which is away: bytes of heap and stacks for each.
func BenchmarkWaitingCallers(b *testing.B) {
	const callers = 1000
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	dsn := "postgres://app@" + listener.Addr().String() + "/app?sslmode=disable"
	require.NoError(b, listener.Close()) // nobody is there
	for name, open := range map[string]func(b *testing.B) (wait func(ctx context.Context) error, closing func()){
		"database/sql": func(b *testing.B) (func(context.Context) error, func()) {
			db, err := retrypg.OpenDB(dsn)
			require.NoError(b, err)
			return db.PingContext, func() { _ = db.Close() }
		},
		"Pool": func(b *testing.B) (func(context.Context) error, func()) {
			pool, err := retrypg.NewPool(b.Context(), dsn+"&pool_max_conns=1000")
			require.NoError(b, err)
			return pool.Ping, pool.Close
		},
		"a goroutine that waits for a channel": func(*testing.B) (func(context.Context) error, func()) {
			return func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, func() {}
		},
	} {
		b.Run(name, func(b *testing.B) {
			var sum float64
			for b.Loop() {
				wait, closing := open(b)
				ctx, cancel := context.WithCancel(b.Context())
				before := inUse()
				var waiting sync.WaitGroup
				for range callers {
					waiting.Go(func() { _ = wait(ctx) })
				}
				time.Sleep(2 * time.Second) // until all of them wait
				sum += float64(inUse()-before) / callers
				cancel()
				waiting.Wait()
				closing()
			}
			b.ReportMetric(sum/float64(b.N), "B/caller")
			b.ReportMetric(0, "ns/op") // of no interest
		})
	}
}

// inUse returns the bytes of the heap and of stacks that are in use.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
