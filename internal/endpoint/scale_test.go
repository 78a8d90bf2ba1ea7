package endpoint

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

// The simulation of docs/scale.md: many clients of one server that was away, in virtual time, with the real gate and the real
// policies. Only the server and the network are made up.

var writeScale = flag.Bool("scale.write", false, "simulate the 10,000 clients of docs/scale.md, and write its table anew")

// crowd is who comes back to the server.
type crowd struct {
	processes, callers int           // callers of each process
	outage             time.Duration // from when all of them lose their connections
}

// What the server and the network take. Chosen: a server with 16 processors, each of which is busy for 5 ms with a new connection,
// which is what one costs with TLS and SCRAM; and pgx's and our own bound on one attempt.
const (
	scaleProcessors = 16
	scaleService    = 5 * time.Millisecond
	scaleRefusal    = time.Millisecond // a round trip
	scaleTimeout    = 5 * time.Second
	scaleNoticed    = 50 * time.Millisecond // in which all have noticed that their connections are gone
)

// scaleServer is the server: away, and then as fast as its processors are.
type scaleServer struct {
	back       time.Time
	processors chan struct{}

	mu     sync.Mutex
	came   []time.Time // each attempt
	served []time.Time
}

func (s *scaleServer) connect(ctx context.Context) error {
	s.mu.Lock()
	s.came = append(s.came, time.Now())
	s.mu.Unlock()
	if time.Now().Before(s.back) {
		time.Sleep(scaleRefusal)
		return errAway
	}
	timeout := time.NewTimer(scaleTimeout)
	defer timeout.Stop()
	select {
	case s.processors <- struct{}{}:
	case <-timeout.C:
		return errAway
	case <-ctx.Done():
		return ctx.Err()
	}
	time.Sleep(scaleService)
	<-s.processors
	s.mu.Lock()
	s.served = append(s.served, time.Now())
	s.mu.Unlock()
	return nil
}

// scaleWay is how the callers of one process come back.
type scaleWay struct {
	name string
	// process returns what each of its callers does until it is served.
	process func() func(ctx context.Context, connect func(context.Context) error) error
}

// alone is a caller that has nothing to do with the others.
func alone(name string, p policy.Policy) scaleWay {
	return scaleWay{name, func() func(context.Context, func(context.Context) error) error {
		return func(ctx context.Context, connect func(context.Context) error) error {
			var a policy.Attempt
			began := time.Now()
			for {
				a.Err = connect(ctx)
				if a.Err == nil || !errors.Is(a.Err, errAway) {
					return a.Err
				}
				a.Number++
				a.Elapsed = time.Since(began)
				a.Wait, _ = p.Next(a)
				time.Sleep(a.Wait)
			}
		}
	}}
}

// gated is our own way.
func gated(name string, backoff policy.Policy) scaleWay {
	return scaleWay{name, func() func(context.Context, func(context.Context) error) error {
		g := New(Options{Backoff: backoff})
		return func(ctx context.Context, connect func(context.Context) error) error {
			return g.Do(ctx, Call{Healable: away}, connect)
		}
	}}
}

// stampede is one prober for each process whose success lets all others go at once.
func stampede(name string, backoff policy.Policy) scaleWay {
	return scaleWay{name, func() func(context.Context, func(context.Context) error) error {
		back := make(chan struct{})
		probe := make(chan struct{}, 1)
		one := alone("", backoff).process()
		return func(ctx context.Context, connect func(context.Context) error) error {
			if connect(ctx) == nil {
				return nil
			}
			select {
			case probe <- struct{}{}:
				err := one(ctx, connect)
				close(back)
				return err
			case <-back:
			}
			return one(ctx, connect)
		}
	}}
}

func scaleWays() []scaleWay {
	exponential := func(j policy.Jitter) policy.Policy {
		return policy.Must(policy.Exponential(10*time.Millisecond, time.Second, 2, j))
	}
	probing := policy.Must(policy.Exponential(10*time.Millisecond, 100*time.Millisecond, 2, policy.EqualJitter))
	return []scaleWay{
		alone("no jitter", exponential(policy.NoJitter)),
		alone("equal jitter", exponential(policy.EqualJitter)),
		alone("full jitter", exponential(policy.FullJitter)),
		alone("decorrelated jitter", exponential(policy.DecorrelatedJitter)),
		stampede("one prober for each process", probing),
		gated("and bounded admission (retrypg)", probing),
	}
}

// scaleResult is what came of one way.
type scaleResult struct {
	name       string
	perSecond  float64 // attempts at the server while it was away
	peak       int     // attempts within 100 ms, from when it was back
	after      float64 // attempts for each client, from when it was back
	p50, p99   time.Duration
	last, best time.Duration // best is what the server needs for that many connections
}

func (c crowd) run(t *testing.T, way scaleWay) (r scaleResult) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := &scaleServer{back: began.Add(c.outage), processors: make(chan struct{}, scaleProcessors)}
		noticed := rand.New(rand.NewPCG(1, 2))
		var callers sync.WaitGroup
		for range c.processes {
			caller := way.process()
			for range c.callers {
				after := time.Duration(noticed.Int64N(int64(scaleNoticed)))
				callers.Go(func() {
					time.Sleep(after)
					if err := caller(context.Background(), s.connect); err != nil {
						t.Error(err)
					}
				})
			}
		}
		callers.Wait()
		n := c.processes * c.callers
		if !t.Failed() && len(s.served) != n {
			t.Errorf("%d of %d were served", len(s.served), n)
		}
		slices.SortFunc(s.served, time.Time.Compare)
		r = scaleResult{name: way.name, best: time.Duration(n) * scaleService / scaleProcessors}
		for _, p := range []struct {
			to    *time.Duration
			share float64
		}{{&r.p50, 0.5}, {&r.p99, 0.99}, {&r.last, 1}} {
			*p.to = s.served[max(0, int(p.share*float64(n))-1)].Sub(s.back)
		}
		buckets := make(map[time.Duration]int)
		during, after := 0, 0
		for _, at := range s.came {
			switch since := at.Sub(s.back); {
			case since >= 0:
				after++
				bucket := since / (100 * time.Millisecond)
				buckets[bucket]++
				r.peak = max(r.peak, buckets[bucket])
			case since >= -c.outage/2: // the first attempts are another matter
				during++
			}
		}
		r.perSecond, r.after = float64(during)/(c.outage/2).Seconds(), float64(after)/float64(n)
	})
	return r
}

func (r scaleResult) row() string {
	return fmt.Sprintf("| %s | %s | %s | %.2f | %.1f s | %.1f s | %.1f s |\n", r.name, thousands(int(r.perSecond)), thousands(r.peak), r.after,
		r.p50.Seconds(), r.p99.Seconds(), r.last.Seconds())
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	if len(s) > 3 {
		s = s[:len(s)-3] + "," + s[len(s)-3:]
	}
	return s
}

// TestManyClientsComeBackToAServerWithoutAStorm simulates a tenth of the crowd of docs/scale.md.
func TestManyClientsComeBackToAServerWithoutAStorm(t *testing.T) {
	ways := scaleWays()
	c := crowd{processes: 10, callers: 100, outage: 10 * time.Second}
	ours := c.run(t, ways[len(ways)-1])
	// One prober for each process, with waits of 50 to 100 ms in the second half of the outage.
	require.LessOrEqual(t, ours.perSecond, float64(c.processes)*20)
	require.LessOrEqual(t, ours.after, 1.2, "attempts for each client once the server was back")
	require.LessOrEqual(t, ours.p99, 2*ours.best+200*time.Millisecond)
	full := c.run(t, ways[2])
	require.Greater(t, full.perSecond, 5*ours.perSecond)
	require.Greater(t, full.p99, ours.p99)
}

// TestTheTableOfTheSimulationCanBeWritten writes it with -scale.write: 10,000 clients take a while.
func TestTheTableOfTheSimulationCanBeWritten(t *testing.T) {
	if !*writeScale {
		t.Skip("the simulation of 10,000 clients is run by -scale.write")
	}
	const file = "../../docs/scale.md"
	const begin, end = "<!-- begin: simulation -->\n", "<!-- end: simulation -->\n"
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), begin)
	require.True(t, ok)
	_, after, ok := strings.Cut(rest, end)
	require.True(t, ok)
	var b strings.Builder
	b.WriteString("| way | attempts/s while it is away | most in 100 ms | attempts for each client afterwards | half served | 99 % served | all served |\n|---|---|---|---|---|---|---|\n")
	for _, way := range scaleWays() {
		r := crowd{processes: 100, callers: 100, outage: 10 * time.Second}.run(t, way)
		t.Log(r.row())
		b.WriteString(r.row())
	}
	require.NoError(t, os.WriteFile(file, []byte(before+begin+b.String()+end+after), 0o644))
}
