//go:build ha && linux

package ha_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// meter takes note of the times without a success.
type meter struct {
	mu      sync.Mutex
	n       int
	last    success
	longest gap
	long    []gap         // those of noticeable length and more
	changed chan struct{} // closed and replaced at each success
}

// noticeable is far longer than a write takes while all is well.
const noticeable = 500 * time.Millisecond

type success struct {
	at    time.Time
	where string
}

type gap struct{ from, to success }

func (g gap) String() string {
	s := fmt.Sprintf("%v until %s", g.length().Round(time.Millisecond), g.to.at.Format("05.000"))
	if g.from.where != g.to.where {
		s += fmt.Sprintf(", from %s to %s", g.from.where, g.to.where)
	}
	return s
}

func (g gap) length() time.Duration { return g.to.at.Sub(g.from.at) }

func newMeter() *meter { return &meter{changed: make(chan struct{})} }

// note takes note of a success, and of where it was.
func (m *meter) note(where string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := success{time.Now(), where}
	if g := (gap{m.last, now}); m.n > 0 {
		if g.length() > m.longest.length() {
			m.longest = g
		}
		if g.length() >= noticeable {
			m.long = append(m.long, g)
		}
	}
	m.n++
	m.last = now
	close(m.changed)
	m.changed = make(chan struct{})
}

// reset forgets what was longest so far.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.longest, m.long = gap{}, nil
}

// gap returns the longest time without a success since reset; one that goes on is not in it.
func (m *meter) gap() gap {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.longest
}

// story lists the noticeable times without a success since reset.
func (m *meter) story() []gap {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.long)
}

// until waits for the nth further success for which the condition on its place holds.
func (m *meter) until(ctx context.Context, n int, condition func(where string) bool) error {
	m.mu.Lock()
	seen := m.n
	for n > 0 {
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d more successes: %w", n, context.Cause(ctx))
		}
		m.mu.Lock()
		if condition(m.last.where) {
			n -= m.n - seen
		}
		seen = m.n
	}
	m.mu.Unlock()
	return nil
}

func anywhere(string) bool { return true }

const (
	// probeEvery is how often a probe tries to write: the accuracy of what it measures.
	probeEvery = 5 * time.Millisecond
	// redialEvery is how often it tries to connect: a standby keeps its connections when it becomes the primary, and each
	// attempt at a server that starts costs it a process.
	redialEvery = 4 * probeEvery
	// probeLimit ends a write or a connection attempt of a probe that gets no answer. It is long enough for a COMMIT that
	// waits until a standby follows the new primary, and nothing depends on it where a server stands still: each server has
	// a probe of its own.
	probeLimit = time.Second
)

// probe writes to an address, over a connection of its own that it replaces at once when it is lost, and takes note of each
// success. It knows nothing of the library, and so shows what the server at that address allows for.
func probe(ctx context.Context, where, addr string, m *meter) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var conn *pgconn.PgConn
	defer func() {
		if conn != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeLimit)
			defer cancel()
			_ = conn.Close(ctx) // it may be lost
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if conn == nil || conn.IsClosed() {
			attempt, cancel := context.WithTimeout(ctx, probeLimit)
			next, err := pgconn.Connect(attempt, pgtest.DSN([]string{addr}))
			cancel()
			if err != nil {
				tick.Reset(redialEvery)
				continue
			}
			tick.Reset(probeEvery)
			conn = next
		}
		attempt, cancel := context.WithTimeout(ctx, probeLimit)
		if writes(attempt, conn, where) {
			m.note(where)
		}
		cancel()
	}
}

// writes asks first, so that standbys do not log an error every few milliseconds.
func writes(ctx context.Context, conn *pgconn.PgConn, where string) bool {
	results, err := conn.Exec(ctx, "select pg_is_in_recovery()").ReadAll()
	if err != nil || string(results[0].Rows[0][0]) != "f" {
		return false
	}
	_, err = conn.Exec(ctx, "insert into probe values ('"+where+"')").ReadAll()
	return err == nil
}

// probes are those of every server, with one meter for the cluster, and those of HAProxy and of PgBouncer before it.
type probes struct {
	cluster *meter
	ways    map[string]*meter
	stop    func()
}

func (c *cluster) probes(ctx context.Context) *probes {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	p := &probes{cluster: newMeter(), ways: map[string]*meter{viaHAProxy: newMeter(), viaPgBouncer: newMeter()}}
	p.ways[direct] = p.cluster
	for _, n := range c.nodes {
		wg.Go(func() { probe(ctx, n.name, n.addr(), p.cluster) })
	}
	wg.Go(func() { probe(ctx, viaHAProxy, loopback(c.haproxyPort), p.ways[viaHAProxy]) })
	wg.Go(func() { probe(ctx, viaPgBouncer, loopback(c.pgbouncerPort), p.ways[viaPgBouncer]) })
	p.stop = func() {
		cancel()
		wg.Wait()
	}
	return p
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
