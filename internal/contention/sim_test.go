package contention

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// simServer is a database in virtual time. A statement takes the way there and back, and work on one of its processors. Its
// transactions have snapshots: who changes an account that somebody else has changed since is rolled back, and who changes
// one that somebody is changing waits for what becomes of that (PostgreSQL at REPEATABLE READ and above).
type simServer struct {
	way        time.Duration
	work       time.Duration
	processors chan struct{}
	deadlocks  time.Duration // after which a wait is looked at; 0: snapshots, else READ COMMITTED with locks

	mu      sync.Mutex
	commits int         // how many there were
	changed map[int]int // by account, the number of the commit that changed it last
	writers map[int]*simTx
}

type simTx struct {
	snapshot int // 0: not taken
	held     []int
	over     chan struct{}
	waits    *simTx // guarded by the server's lock
}

var errConflict = errors.New("conflict")

func newSimServer(way, work time.Duration, processors int) *simServer {
	return &simServer{
		way: way, work: work, processors: make(chan struct{}, processors),
		changed: make(map[int]int), writers: make(map[int]*simTx),
	}
}

func (s *simServer) statement() {
	// Spread a little, or everything would happen in step.
	time.Sleep(s.way + rand.N(s.way/4+1))
	s.processors <- struct{}{}
	time.Sleep(s.work + rand.N(s.work/4+1))
	<-s.processors
}

func (s *simServer) begin() *simTx { s.statement(); return &simTx{over: make(chan struct{})} }

func (s *simServer) read(tx *simTx) {
	s.statement()
	s.mu.Lock()
	defer s.mu.Unlock()
	if tx.snapshot == 0 {
		tx.snapshot = s.commits + 1
	}
}

// write changes an account, or locks it.
func (s *simServer) write(tx *simTx, account int) error {
	s.statement()
	for {
		s.mu.Lock()
		other := s.writers[account]
		if other == nil || other == tx {
			if s.deadlocks == 0 && s.changed[account] >= tx.snapshot {
				s.mu.Unlock()
				return errConflict
			}
			s.writers[account] = tx
			if other == nil {
				tx.held = append(tx.held, account)
			}
			s.mu.Unlock()
			return nil
		}
		tx.waits = other
		s.mu.Unlock()
		var look <-chan time.Time
		if s.deadlocks > 0 {
			look = time.After(s.deadlocks)
		}
		select {
		case <-other.over:
		case <-look:
			if s.circle(tx) {
				return errConflict
			}
			<-other.over
		}
		s.mu.Lock()
		tx.waits = nil
		s.mu.Unlock()
	}
}

func (s *simServer) circle(tx *simTx) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for o, n := tx.waits, 0; o != nil && n < 100; o, n = o.waits, n+1 {
		if o == tx {
			tx.waits = nil
			return true
		}
	}
	return false
}

func (s *simServer) end(tx *simTx, commit bool) {
	s.statement()
	s.ended(tx, commit)
}

func (s *simServer) ended(tx *simTx, commit bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if commit {
		s.commits++
	}
	for _, account := range tx.held {
		if commit {
			s.changed[account] = s.commits
		}
		delete(s.writers, account)
	}
	close(tx.over)
}

// transfer is one attempt.
func (s *simServer) transfer(a, b int, f *Footprint) error {
	if s.deadlocks == 0 {
		a, b = min(a, b), max(a, b)
	}
	tx := s.begin()
	var err error
	var seen []int
	for _, account := range []int{a, b} {
		// The account, and the tenant, which is everybody's.
		if !f.Touch([]Mark{{1, uint64(1000 + account)}, {2, 2000}}) {
			if tx, err = s.wait(tx, f, seen); err != nil {
				break
			}
		}
		if s.deadlocks == 0 {
			s.read(tx)
		} else if err = s.write(tx, account); err != nil {
			break
		}
		seen = append(seen, account)
	}
	for _, account := range []int{a, b} {
		if err != nil {
			break
		}
		// The amount, which says nothing, and the account and the tenant in another statement.
		if !f.Touch([]Mark{{3, 3000 + rand.Uint64N(10)}, {4, uint64(4000 + account)}, {5, 5000}}) {
			if _, err = f.Await(context.Background()); err != nil {
				break
			}
		}
		err = s.write(tx, account)
	}
	s.end(tx, err == nil)
	return err
}

// wait waits for what the footprint says. A snapshot is taken anew then, and what was seen in the old one is looked at again.
func (s *simServer) wait(tx *simTx, f *Footprint, seen []int) (*simTx, error) {
	if s.deadlocks > 0 {
		_, err := f.Await(context.Background())
		return tx, err
	}
	s.ended(tx, false)
	_, err := f.Await(context.Background())
	again := &simTx{over: make(chan struct{})} // ROLLBACK and BEGIN travel with the first statement
	for _, account := range seen {
		s.read(again)
		s.mu.Lock()
		if s.changed[account] >= tx.snapshot && err == nil {
			err = errConflict
		}
		s.mu.Unlock()
	}
	return again, err
}

// simResult is what came of a load.
type simResult struct {
	commits, attempts int
	times             []time.Duration
}

func (r simResult) perCommit() float64 { return float64(r.attempts) / float64(max(r.commits, 1)) }
func (r simResult) quantile(q float64) time.Duration {
	return r.times[min(len(r.times)-1, int(q*float64(len(r.times))))]
}

// load lets workers run transfers for a time. client runs one until it has committed.
func load(workers, hot int, length time.Duration, client func(worker, a, b int, attempted func())) simResult {
	results := make([]simResult, workers)
	end := time.Now().Add(length)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := &results[w]
			for time.Now().Before(end) {
				began := time.Now()
				a := rand.N(hot)
				b := (a + 1 + rand.N(hot-1)) % hot
				client(w, a, b, func() { r.attempts++ })
				r.commits++
				r.times = append(r.times, time.Since(began))
			}
		})
	}
	wg.Wait()
	var all simResult
	for _, r := range results {
		all.commits += r.commits
		all.attempts += r.attempts
		all.times = append(all.times, r.times...)
	}
	slices.Sort(all.times)
	return all
}

// controlled runs transfers through a control, as the package retrypg does: an attempt that needs no queue sleeps.
func controlled(c *Control, s *simServer, keys bool) func(worker, a, b int, attempted func()) {
	return func(_, a, b int, attempted func()) {
		var k []string
		if keys {
			k = []string{strconv.Itoa(a), strconv.Itoa(b)}
		}
		t := c.Start("transfer", k)
		for n := 1; ; n++ {
			if _, err := t.Enter(context.Background()); err != nil {
				panic(err)
			}
			attempted()
			err := s.transfer(a, b, t.Footprint())
			if err == nil {
				t.Leave(Committed)
				return
			}
			if s.deadlocks > 0 && !errors.Is(err, ErrCircle) {
				t.Leave(Deadlock)
			} else {
				t.Leave(Conflict)
			}
			if !t.Queued() {
				time.Sleep(rand.N(min(time.Second, 5*time.Millisecond<<n)))
			}
		}
	}
}

func byHand(s *simServer, base time.Duration) func(worker, a, b int, attempted func()) {
	return func(_, a, b int, attempted func()) {
		for ceiling := base; ; ceiling = min(2*ceiling, time.Second) {
			attempted()
			if s.transfer(a, b, nil) == nil {
				return
			}
			time.Sleep(rand.N(ceiling + 1))
		}
	}
}

func inOrder(s *simServer) func(worker, a, b int, attempted func()) {
	locks := make([]chan struct{}, 64) // a mutex would stop virtual time
	for i := range locks {
		locks[i] = make(chan struct{}, 1)
	}
	return func(_, a, b int, attempted func()) {
		first, second := locks[min(a, b)], locks[max(a, b)]
		first <- struct{}{}
		second <- struct{}{}
		defer func() { <-first; <-second }()
		attempted()
		_ = s.transfer(a, b, nil)
	}
}

// simulate runs a load against a server of its own for ten seconds of virtual time, sixteen workers on eight accounts.
func simulate(t *testing.T, deadlocks time.Duration, client func(*simServer) func(worker, a, b int, attempted func())) (r simResult) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSimServer(20*time.Microsecond, 60*time.Microsecond, 2)
		s.deadlocks = deadlocks
		r = load(16, 8, 10*time.Second, client(s))
		t.Logf("%d commits, %.2f attempts per commit, p50 %v, p99 %v, worst %v", r.commits, r.perCommit(), r.quantile(.5), r.quantile(.99), r.quantile(1))
	})
	return r
}

func withKeys(s *simServer) func(worker, a, b int, attempted func()) {
	return controlled(New(Options{}), s, true)
}

func withoutKeys(s *simServer) func(worker, a, b int, attempted func()) {
	return controlled(New(Options{}), s, false)
}

func TestKeysAreAtLeastAsGoodAsLocksTakenInOrder(t *testing.T) {
	for name, deadlocks := range map[string]time.Duration{"snapshots": 0, "deadlocks": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			limit, own := simulate(t, deadlocks, inOrder), simulate(t, deadlocks, withKeys)
			require.Greater(t, own.commits, limit.commits)
			require.Less(t, own.perCommit(), 1.05)
			require.Less(t, own.quantile(.99), 50*time.Millisecond)
			require.Less(t, own.quantile(1), time.Second, "nobody starves")
		})
	}
}

func TestWithoutKeysFewAttemptsConflictAndNobodyStarves(t *testing.T) {
	limit, loop, own := simulate(t, 0, inOrder), simulate(t, 0, func(s *simServer) func(int, int, int, func()) { return byHand(s, 5*time.Millisecond) }), simulate(t, 0, withoutKeys)
	require.Less(t, own.perCommit(), 1.2)
	require.Greater(t, loop.perCommit(), 1.3, "the load is one in which transactions conflict")
	require.Greater(t, own.commits, limit.commits, "the statements tell which account they are about")
	require.Greater(t, own.commits, loop.commits*12/10)
	require.Less(t, own.quantile(.99), 50*time.Millisecond)
	require.Less(t, own.quantile(1), 200*time.Millisecond)
	require.Greater(t, loop.quantile(1), time.Second, "a loop that sleeps lets some starve")
}

func TestWithoutKeysDeadlocksDoNotHoldTheRestUp(t *testing.T) {
	const wait = 50 * time.Millisecond
	loop, own := simulate(t, wait, func(s *simServer) func(int, int, int, func()) { return byHand(s, 5*time.Millisecond) }), simulate(t, wait, withoutKeys)
	require.Greater(t, own.commits, 20*loop.commits)
	require.Less(t, own.perCommit(), 1.2)
	require.Less(t, own.quantile(1), time.Second)
}

// TestContentionEndsWithItsCause: the same workers go on with accounts of their own.
func TestContentionEndsWithItsCause(t *testing.T) {
	for name, keys := range map[string]bool{"keys": true, "no keys": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := newSimServer(20*time.Microsecond, 60*time.Microsecond, 2), New(Options{})
				client := controlled(c, s, keys)
				load(16, 8, time.Second, client)
				require.Equal(t, 1, c.State().Contended)
				load(16, 8, 5*time.Second, func(worker, _, _ int, attempted func()) { client(worker, 100+2*worker, 101+2*worker, attempted) })
				require.Zero(t, c.State())
				require.Zero(t, c.active.Load())
			})
		})
	}
}
