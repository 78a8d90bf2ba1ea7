package contention

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// limiter admits the transactions of one name: while they are contended, as many at a time as climb says, in the order of
// their arrival.
type limiter struct {
	watch
	took atomic.Int64 // moving average of the time of attempts that committed, in nanoseconds; 0: not known

	mu      sync.Mutex
	climb   climb
	running int // admitted or watched, and not done
	alone   int // of these, those that have all to themselves
	queue   []*waiter
	moved   time.Time // when somebody was admitted or left last
	away    float64   // how much those conflict that run elsewhere: see pause
	prints  *footprints
}

// pass is the admission of one attempt.
type pass struct{ alone bool }

// waiter is somebody in the queue.
type waiter struct {
	seq     uint64
	alone   bool
	granted bool          // guarded by the limiter's lock
	turn    chan struct{} // closed when granted
}

func newLimiter(active *atomic.Int32) *limiter {
	return &limiter{watch: watch{active: active}, prints: newFootprints()}
}

// duration returns the moving average of the time of attempts that committed.
func (l *limiter) duration() time.Duration { return time.Duration(l.took.Load()) }

// alarm is told of a conflict that was met in the calm.
func (l *limiter) alarm(o Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch.alarm(o) {
		l.contendLocked()
	}
}

// enter admits an attempt, with alone one that shall have all to itself. seq is its place in the queue.
func (l *limiter) enter(ctx context.Context, seq uint64, alone bool) (p pass, waited time.Duration, err error) {
	p.alone = alone
	l.mu.Lock()
	if len(l.queue) > 0 {
		l.stir()
	}
	l.settle()
	if alone && l.phase() != contended { // or the others would not notice
		l.contendLocked()
	}
	if (len(l.queue) == 0 || seq < l.queue[0].seq) && l.admits(alone) {
		l.admitLocked(alone)
		l.mu.Unlock()
		return p, 0, nil
	}
	w := &waiter{seq: seq, alone: alone, turn: make(chan struct{})}
	i, _ := slices.BinarySearchFunc(l.queue, seq, func(w *waiter, seq uint64) int {
		if w.seq < seq {
			return -1
		}
		return 1
	})
	l.queue = slices.Insert(l.queue, i, w)
	l.stir()
	began := time.Now()
	l.mu.Unlock()
	err = l.await(ctx, w)
	return p, time.Since(began), err
}

// await waits for the turn of w.
func (l *limiter) await(ctx context.Context, w *waiter) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-w.turn:
			return nil
		case <-ctx.Done():
			l.giveUp(w)
			return ctx.Err()
		case <-timer.C:
			timer.Reset(l.push(w))
		}
	}
}

// giveUp takes w out of the queue, or ends its admission, which came too late.
func (l *limiter) giveUp(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.granted {
		l.leaveLocked(w.alone)
	} else {
		l.queue = slices.DeleteFunc(l.queue, func(o *waiter) bool { return o == w })
	}
	l.grantLocked() // those behind it may have waited for nothing else
}

// push admits w, if it is the first and nothing has moved for long. It returns when to look again.
func (l *limiter) push(w *waiter) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	idle := time.Since(l.moved)
	if idle < patience {
		return patience - idle
	}
	if len(l.queue) > 0 && l.queue[0] == w {
		l.grantNextLocked()
	}
	return patience
}

// admits reports whether one more may run now.
func (l *limiter) admits(alone bool) bool {
	switch {
	case l.phase() != contended:
		return true
	case l.alone > 0:
		return false
	case alone:
		return l.running == 0
	}
	return l.running < l.limit()
}

// limit is how many may run now.
func (l *limiter) limit() int {
	if l.prints.learning() {
		return max(l.climb.limit, learnAt)
	}
	return l.climb.limit
}

func (l *limiter) admitLocked(alone bool) {
	l.running++
	if alone {
		l.alone++
	}
	l.moved = time.Now()
}

// grantLocked admits those whose turn it is.
func (l *limiter) grantLocked() {
	for len(l.queue) > 0 && l.admits(l.queue[0].alone) {
		l.grantNextLocked()
	}
}

// grantNextLocked admits the first of the queue.
func (l *limiter) grantNextLocked() {
	w := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	l.admitLocked(w.alone)
	w.granted = true
	close(w.turn)
}

// leave ends an attempt.
func (l *limiter) leave(p pass, f *Footprint, o Outcome, took time.Duration) {
	taught := l.prints.end(f, o, took)
	// The other one of the deadlock is of another process then, and waits for this one and for all that wait here for it: so one at a time.
	elsewhere := o == Deadlock && !l.prints.learning() && f.alone()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveLocked(p.alone)
	if o == Committed {
		l.learn(took)
	}
	l.noteAway(o, l.running == 0)
	switch l.phase() {
	case watching:
		if l.saw(o) {
			l.contendLocked()
		}
	case contended:
		l.quiet++
		if o.conflict() || len(l.queue) > 0 || f != nil && f.waited {
			l.stir()
		}
		switch {
		case elsewhere:
			l.climb.start(1)
		case taught:
			l.climb.start(l.prints.atOnce())
		case !l.prints.learning():
			l.climb.saw(o, l.running, len(l.queue) > 0)
		}
		l.settle()
	}
	l.grantLocked()
}

func (l *limiter) leaveLocked(alone bool) {
	l.running--
	if alone {
		l.alone--
	}
	l.moved = time.Now()
}

// contendLocked begins to admit.
func (l *limiter) contendLocked() {
	if l.phase() != contended {
		l.become(contended)
	}
	l.climb.start(1)
}

// Conflicts of an attempt that was the only one of its name come from elsewhere: from other processes, mostly. These cannot be
// told to wait, but be left alone for a while, as on a wire that many share.
const (
	// perCommit is what an attempt that commits takes from away, to which each conflict adds one: the pauses grow while more
	// than one in maxConflicts conflicts.
	perCommit = 1.0 / (maxConflicts - 1)
	// mostAway bounds the pauses: to four times what an attempt takes. Chosen.
	mostAway = 2
)

// noteAway is told of an attempt that ended.
func (l *limiter) noteAway(o Outcome, only bool) {
	switch {
	case o == Committed:
		l.away = max(0, l.away-perCommit)
	case o.conflict() && only:
		l.away = min(mostAway, l.away+1)
	}
}

// pause is how long an attempt waits, after it was admitted, whose transaction has conflicted with others elsewhere. Nobody
// of this process runs meanwhile, where the limit is one.
func (l *limiter) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	took := l.duration()
	if l.away == 0 || took == 0 || l.phase() != contended || l.running > 1 {
		return 0
	}
	return rand.N(time.Duration(float64(took)*math.Exp2(l.away)) + 1)
}

// learn takes the time of an attempt that committed into the average.
func (l *limiter) learn(took time.Duration) {
	const weight = 8
	was := l.took.Load()
	if was == 0 {
		was = int64(took)
	}
	l.took.Store(max(1, was+(int64(took)-was)/weight))
}

// add adds what the limiter does to s.
func (l *limiter) add(s *State) {
	if l.phase() != contended {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Contended++
	s.Waiting += len(l.queue) + l.prints.waitingNow()
	if s.Limit == 0 || l.climb.limit < s.Limit {
		s.Limit = l.climb.limit
	}
}
