package endpoint

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

var (
	errAway     = errors.New("the server is away")
	errPassword = errors.New("wrong password")
)

// away is what the tests take for healable.
func away(err error) bool { return errors.Is(err, errAway) }

// every is a backoff without growth or jitter.
type every time.Duration

func (d every) Next(policy.Attempt) (time.Duration, bool) { return time.Duration(d), true }

// server is what attempts meet: it answers after latency, and is away between the times of each outage. Times are those
// of the bubble, counted from when it was made.
type server struct {
	gate    *gate
	latency time.Duration
	start   time.Time
	outages [][2]time.Duration

	mu      sync.Mutex
	entered []entry // in the order of their beginning
	probing int     // attempts in flight that began while the gate was down
	overlap bool    // two of them were in flight at once
}

// entry is one attempt.
type entry struct {
	at   time.Duration
	name string
}

type nameKey struct{}

// named makes attempts with ctx known as name.
func named(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, nameKey{}, name)
}

// setup is what a test wants of its gate.
type setup struct {
	Healable func(error) bool
	Backoff  policy.Policy
	OnWait   func(context.Context, policy.Attempt, time.Duration)
	OnDown   func(error)
	OnUp     func(time.Duration, int)
}

// gate is a Gate all of whose calls take the same for healable.
type gate struct {
	*Gate
	healable func(error) bool
}

func newGate(o setup) *gate {
	g := New(Options{Backoff: o.Backoff, OnWait: o.OnWait})
	g.Observe(Observer{Down: o.OnDown, Up: o.OnUp})
	return &gate{g, o.Healable}
}

func (g *gate) Do(ctx context.Context, limit time.Duration, attempt func(context.Context) error) error {
	return g.Gate.Do(ctx, Call{Healable: g.healable, Limit: limit}, attempt)
}

func newServer(o setup, latency time.Duration, outages ...[2]time.Duration) *server {
	if o.Healable == nil {
		o.Healable = away
	}
	if o.Backoff == nil {
		o.Backoff = every(100 * time.Millisecond)
	}
	return &server{gate: newGate(o), latency: latency, start: time.Now(), outages: outages}
}

func (s *server) now() time.Duration { return time.Since(s.start) }

func (s *server) up() bool {
	now := s.now()
	for _, o := range s.outages {
		if now >= o[0] && now < o[1] {
			return false
		}
	}
	return true
}

// attempt is one attempt to connect; the state of the server counts when it ends.
func (s *server) attempt(ctx context.Context) error {
	return s.track(ctx, func(ctx context.Context) error {
		if err := pass(ctx, s.latency); err != nil {
			return err
		}
		if !s.up() {
			return errAway
		}
		return nil
	})
}

// track runs an attempt and watches out for others.
func (s *server) track(ctx context.Context, attempt func(context.Context) error) error {
	_, down := s.gate.Down()
	name, _ := ctx.Value(nameKey{}).(string)
	s.mu.Lock()
	s.entered = append(s.entered, entry{s.now(), name})
	if down {
		s.probing++
		s.overlap = s.overlap || s.probing > 1
	}
	s.mu.Unlock()
	defer func() {
		if down {
			s.mu.Lock()
			s.probing--
			s.mu.Unlock()
		}
	}()
	return attempt(ctx)
}

func (s *server) do(ctx context.Context) error { return s.gate.Do(ctx, 0, s.attempt) }

func (s *server) entries() []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]entry(nil), s.entered...)
}

// pass waits for d or the end of ctx.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// within returns a context that ends after d and with the test.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// requireIdle checks that nobody probes or waits once all calls have returned: what is left there would be waited for in
// vain by the calls to come.
func requireIdle(t *testing.T, g *Gate) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	require.Empty(t, g.waiters, "a caller that returned still waits")
	require.False(t, g.probing, "a caller that returned still probes")
}

func exhausted(t *testing.T, err error) *policy.ExhaustedError {
	t.Helper()
	var e *policy.ExhaustedError
	require.ErrorAs(t, err, &e)
	return e
}
