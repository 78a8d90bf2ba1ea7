package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is what was logged. It is safe for concurrent use.
type lines struct {
	mu   sync.Mutex
	text []string
	some chan struct{} // closed at the first line
}

func newLines() *lines { return &lines{some: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text = append(l.text, string(p)); len(l.text) == 1 {
		close(l.some)
	}
	return len(p), nil
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.text...)
}

func TestACollectorThatIsAwayIsToldOfInOneLineAndHoldsUpNothing(t *testing.T) {
	for _, away := range []struct {
		name   string
		listen bool // and take connections, but never answer
	}{{"refuses", false}, {"is silent", true}} {
		t.Run(away.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer func() { _ = ln.Close() }()
			if !away.listen {
				require.NoError(t, ln.Close())
			}
			log := newLines()
			e, err := Start(t.Context(), Options{Endpoint: ln.Addr().String(), Service: "test", Interval: 10 * time.Millisecond, Log: log})
			require.NoError(t, err)
			counter, err := e.meters.Meter("test").Int64Counter("test")
			require.NoError(t, err)
			counter.Add(t.Context(), 1)
			<-log.some
			began := time.Now()
			for range 10_000 {
				_, span := e.traces.Tracer("test").Start(t.Context(), "test")
				span.End()
				counter.Add(t.Context(), 1)
			}
			e.Close()
			require.Less(t, time.Since(began), 10*closeTimeout)
			require.Len(t, log.all(), 1)
			require.Contains(t, log.all()[0], "telemetry cannot be sent to http://"+ln.Addr().String()+",")
			require.Equal(t, 1, strings.Count(log.all()[0], "\n"))
		})
	}
}

func TestSpansThatCannotBeSentTakeNoMoreThanABoundedAmountOfMemory(t *testing.T) {
	e, err := Start(t.Context(), Options{Endpoint: "127.0.0.1:1", Service: "test"})
	require.NoError(t, err)
	defer e.Close()
	tracer := e.traces.Tracer("test")
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const spans, mebibyte = 200_000, 1 << 20
	for range spans {
		_, span := tracer.Start(t.Context(), "a span with a name of usual length")
		span.End()
	}
	require.Less(t, heap(), before+16*mebibyte) // some 700 bytes for each span kept
}

func TestOneLineAMinuteTellsOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newLines()
		log := newFailureLog(out, "http://collector:4317")
		for range 61 {
			log.Handle(errors.New("refused"))
			time.Sleep(time.Second)
		}
		require.Equal(t, []string{
			"telemetry cannot be sent to http://collector:4317, and the load goes on without it; look whether a collector listens there: refused\n",
			"telemetry cannot be sent to http://collector:4317, and the load goes on without it; look whether a collector listens there (and 59 failures before): refused\n",
		}, out.all())
		log.close()
		time.Sleep(time.Hour)
		log.Handle(errors.New("too late"))
		require.Len(t, out.all(), 2)
	})
}

func TestAnExportThatTheEndCallsOffIsNotToldOf(t *testing.T) {
	out := newLines()
	log := newFailureLog(out, "http://collector:4317")
	log.Handle(fmt.Errorf("failed to upload metrics: %w", context.Canceled))
	require.Empty(t, out.all())
	log.Handle(errors.New("refused"))
	require.Len(t, out.all(), 1, "nor does it count as a failure of this minute")
}

func TestEndpointsAreURLsOrHostAndPort(t *testing.T) {
	for given, want := range map[string]string{
		"127.0.0.1:4317":          "http://127.0.0.1:4317",
		"collector:4317":          "http://collector:4317",
		"[::1]:4317":              "http://[::1]:4317",
		"http://collector:4317/":  "http://collector:4317",
		"https://collector:14317": "https://collector:14317",
	} {
		got, err := ParseEndpoint(given)
		require.NoError(t, err, given)
		require.Equal(t, want, got)
	}
	for given, says := range map[string]string{
		"":                              "no host and port",
		"collector":                     "no host and port",
		":4317":                         "no host and port",
		"collector:port":                "not a URL",
		"collector:0":                   "1 to 65535",
		"collector:70000":               "1 to 65535",
		"grpc://collector:4317":         "give http or https",
		"http://collector:4317/v1":      "more than a host and a port",
		"http://collector:4317?a=b":     "more than a host and a port",
		"http://app:hunter2@colle:4317": "more than a host and a port",
	} {
		_, err := ParseEndpoint(given)
		require.ErrorContains(t, err, says, given)
		require.NotContains(t, err.Error(), "hunter2")
	}
	_, err := Start(context.Background(), Options{Endpoint: "collector"})
	require.ErrorContains(t, err, "no host and port")
}
