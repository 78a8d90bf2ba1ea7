package load

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) { pgt.Main(m) }

// text is what a log or a server wrote. It is safe for concurrent use.
type text struct {
	mu      sync.Mutex
	b       strings.Builder
	changed chan struct{}
}

func newText() *text { return &text{changed: make(chan struct{}, 1)} }

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case t.changed <- struct{}{}:
	default:
	}
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// wait waits until the text contains s.
func (t *text) wait(tb testing.TB, s string) {
	tb.Helper()
	limit := time.After(pgt.Timeout)
	for !strings.Contains(t.String(), s) {
		select {
		case <-t.changed:
		case <-limit:
			require.Fail(tb, "it was not written", "%q in:\n%s", s, t)
		}
	}
}

// keepUp starts the server again whenever it has ended, as a container's restart policy does.
func keepUp(t *testing.T, c *pgtest.Cluster) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = c.StartAsync() // said by the load, which would not come back
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond): // the end of a server sends no event
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func TestTheLoadCausesEachFaultAndComesThroughAllOfThem(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // after the server has ended
	server, log := newText(), newText()
	c := pgt.New(t, pgtest.Options{Fsync: true, Log: server})
	keepUp(t, c)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{DSN: c.DSN(), Workers: 4, FaultEvery: MinFaultInterval, Log: slog.New(slog.NewTextHandler(log, nil))})
	}()
	for _, f := range faults {
		log.wait(t, "fault: "+f.name)
	}
	for _, s := range []string{
		"terminating connection due to administrator command", // terminated connections
		"was terminated by signal 9",                          // crash
		"received immediate shutdown request",                 // restart
		"could not serialize access",                          // conflicts
	} {
		server.wait(t, s)
	}
	// The balances are looked at again after the last fault, which a second terminated connection follows.
	turns := len(faults) + 1
	for count := 0; count < turns; count = strings.Count(log.String(), "fault: ") {
		<-log.changed
	}
	require.NoError(t, c.WaitReady(t.Context()))
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.NotContains(t, log.String(), "could not be caused")
	require.NotContains(t, log.String(), "could not be dropped")
	require.NotContains(t, log.String(), "transfers_ok=0")
	left, err := c.Value(t.Context(), fmt.Sprintf("select count(*) from pg_namespace where nspname = '%s'", schemaName))
	require.NoError(t, err)
	require.Equal(t, "0", left)
}

func TestALoadWithADurationEndsByItself(t *testing.T) {
	log := newText()
	err := Run(t.Context(), Options{DSN: pgt.Shared(t).DSN(), Workers: 1, Duration: time.Second, Log: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	require.Contains(t, log.String(), "the load has ended")
	require.NotContains(t, log.String(), "fault")
}

func TestMoneyThatIsMadeEndsTheLoad(t *testing.T) {
	c := pgt.New(t, pgtest.Options{})
	ctx, stop := context.WithTimeout(t.Context(), pgt.Timeout)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		// The balances are looked at before each fault.
		ended <- Run(ctx, Options{DSN: c.DSN(), Workers: 1, FaultEvery: MinFaultInterval})
	}()
	require.NoError(t, makeMoney(ctx, c))
	require.ErrorIs(t, <-ended, ErrUnbalanced)
}

// makeMoney adds to a balance once there is one.
func makeMoney(ctx context.Context, c *pgtest.Cluster) error {
	for {
		err := c.Exec(ctx, "update "+schemaName+".accounts set balance = balance + 1 where id = 0")
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

func TestOptionsOutOfBoundsAreRefused(t *testing.T) {
	require.NoError(t, Options{}.Validate())
	require.NoError(t, Options{Workers: MaxWorkers, FaultEvery: MinFaultInterval, Duration: 1}.Validate())
	require.ErrorContains(t, Options{Workers: MaxWorkers + 1}.Validate(), "33 workers")
	require.ErrorContains(t, Options{Workers: -1}.Validate(), "-1 workers")
	require.ErrorContains(t, Options{FaultEvery: MinFaultInterval - 1}.Validate(), "too often")
	require.ErrorContains(t, Options{Duration: -1}.Validate(), "positive")
	require.ErrorContains(t, Run(t.Context(), Options{Workers: -1}), "-1 workers")
}
