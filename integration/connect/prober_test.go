package connect_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// pinger is a database handle or a pool.
type pinger func(ctx context.Context) error

// handles are the two kinds of handles that share connections between callers, each with room for n of them.
var handles = map[string]func(t *testing.T, dsn string, n string, opts ...retrypg.Option) (ping pinger, closing func()){
	"db": func(t *testing.T, dsn, _ string, opts ...retrypg.Option) (pinger, func()) {
		db := open(t, dsn, opts...)
		return db.PingContext, func() { _ = db.Close() }
	},
	"pool": func(t *testing.T, dsn, n string, opts ...retrypg.Option) (pinger, func()) {
		pool := newPool(t, dsn+"&pool_max_conns="+n, opts...)
		return pool.Ping, pool.Close
	},
}

// outage is how long the server is away where a test is about how often it is asked meanwhile.
const outage = 2 * time.Second

// TestFiftyCallersDuringAnOutageMakeTheAttemptsOfOne: one of them asks, the others wait for its success.
func TestFiftyCallersDuringAnOutageMakeTheAttemptsOfOne(t *testing.T) {
	d := newDatabase(t)
	const callers = 50
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			ctx := within(t)
			w := newWatch()
			starting := p.OnMessages(10_000, authentication, refusing("57P03", "the database system is starting up"))
			ping, _ := handle(t, through(p, d), "50", w.option())
			results := make(chan error, callers)
			call := func() { results <- ping(ctx) }
			go call()
			require.NoError(t, w.down(ctx))
			for range callers - 1 {
				go call()
			}
			time.Sleep(outage) // the number of attempts in this time is the subject
			attempts := p.Stats().Accepted
			starting.Remove()
			for range callers {
				require.NoError(t, <-results)
			}
			t.Logf("%d callers made %d attempts in %v", callers, attempts, outage)
			// Waits of 5 to 10 ms, 10 to 20 ms and so on, then of 50 to 100 ms: at most 4 + 2 s / 50 ms, the first
			// attempt, and the one under way.
			require.LessOrEqual(t, attempts, 4+40+2)
			require.GreaterOrEqual(t, attempts, 3)
			require.LessOrEqual(t, p.Stats().Accepted-attempts, callers+1)
		})
	}
}

// TestCallersThatMeetTheOutageTogetherMakeOneAttemptEach: nobody knows of it before. After that, one of them asks.
func TestCallersThatMeetTheOutageTogetherMakeOneAttemptEach(t *testing.T) {
	d := newDatabase(t)
	const callers = 50
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			ctx := within(t)
			w := newWatch()
			ping, _ := handle(t, through(p, d), "50", w.option())
			starting := p.OnMessages(10_000, authentication, refusing("57P03", "the database system is starting up"))
			results := make(chan error, callers)
			for range callers {
				go func() { results <- ping(ctx) }()
			}
			require.NoError(t, w.waits(ctx, 5))
			waits, attempts := w.counts(), p.Stats().Accepted
			starting.Remove()
			for range callers {
				require.NoError(t, <-results)
			}
			t.Logf("%d callers made %d attempts, %d waits", callers, attempts, waits)
			require.LessOrEqual(t, attempts, callers+waits+1, "one of them may be under way")
		})
	}
}

// TestAnotherCallerAsksWhenTheOneThatDidGivesUp follows three callers, of which each lives longer than the one before.
func TestAnotherCallerAsksWhenTheOneThatDidGivesUp(t *testing.T) {
	d := newDatabase(t)
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			w := newWatch()
			require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
			ping, _ := handle(t, through(p, d), "10", w.option())
			asking := func() string {
				w.mu.Lock()
				defer w.mu.Unlock()
				if len(w.callers) == 0 {
					return ""
				}
				return w.callers[len(w.callers)-1]
			}
			type caller struct {
				cancel context.CancelFunc
				result <-chan error
			}
			callers := make(map[string]caller)
			for _, name := range []string{"first", "second", "third"} {
				ctx, cancel := context.WithCancel(mark(within(t), name))
				callers[name] = caller{cancel, later(func() error { return ping(ctx) })}
			}
			for range 2 {
				before := w.counts()
				require.NoError(t, w.waits(within(t), before+1))
				// The one that asks gives up.
				now := asking()
				require.Contains(t, callers, now)
				callers[now].cancel()
				require.ErrorIs(t, done(t, callers[now].result), context.Canceled)
				delete(callers, now)
				require.NoError(t, w.until(within(t), func() bool { return w.callers[len(w.callers)-1] != now }))
			}
			require.NoError(t, p.SetAccept(pgtest.AcceptForward))
			for _, last := range callers {
				require.NoError(t, done(t, last.result))
				last.cancel()
			}
		})
	}
}

// TestCallersWithShortDeadlinesDoNotKeepTheOthersFromBeingServed: those that ask go away one after the other.
func TestCallersWithShortDeadlinesDoNotKeepTheOthersFromBeingServed(t *testing.T) {
	d, p := newProxied(t)
	w := newWatch()
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	db := open(t, through(p, d), w.option())
	patient := later(func() error { return db.PingContext(within(t)) })
	const callers = 30
	hasty := make(chan error, callers)
	for i := range callers {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(10+20*i)*time.Millisecond)
			defer cancel()
			hasty <- db.PingContext(ctx)
		}()
	}
	for range callers {
		err := <-hasty
		harmless(t, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.NoError(t, p.SetAccept(pgtest.AcceptForward))
	require.NoError(t, done(t, patient))
}

// TestWaitingCallersOfASmallPoolAreServed: with database/sql they wait for connections that one goroutine opens, with a
// context without a deadline.
func TestWaitingCallersOfASmallPoolAreServed(t *testing.T) {
	const callers = 20
	d, p := newProxied(t)
	ctx := within(t)
	w := newWatch()
	db := open(t, through(p, d), w.option())
	db.SetMaxOpenConns(2)
	require.NoError(t, p.SetAccept(pgtest.AcceptClose))
	results := make(chan error, callers)
	for range callers {
		go func() { results <- db.PingContext(ctx) }()
	}
	require.NoError(t, w.waits(ctx, 6))
	require.NoError(t, p.SetAccept(pgtest.AcceptForward))
	for range callers {
		require.NoError(t, <-results)
	}
	require.LessOrEqual(t, db.Stats().OpenConnections, 2)
}
