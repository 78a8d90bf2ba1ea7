package demo

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// transferTimeout is the deadline of each transfer, in all programs: what a patient caller of a service allows.
	transferTimeout = 15 * time.Second
	// thinkTime is the mean pause of a worker between two transfers. It leaves two cores some room, so that the
	// numbers show faults and not a machine at its limit.
	thinkTime = 25 * time.Millisecond
	// errorPause is the pause after an error instead, so that a program that fails at once does not count thousands.
	errorPause = 100 * time.Millisecond
	// hotAccounts are those that all transfers use while conflicts are wanted.
	hotAccounts = 12
)

// load is the transfers of all programs while they run.
type load struct {
	programs  programs
	conflicts atomic.Bool   // transfers seek conflicts: few accounts, no lock order, half of them SERIALIZABLE
	enough    chan struct{} // closed when no new transfer is to begin
	once      sync.Once
	began     time.Time
	ended     time.Time          // when drain was called
	cancel    context.CancelFunc // ends the transfers that are running
	workers   sync.WaitGroup
}

// startLoad starts the workers of all programs. They ask for transfers until drain or stop.
func startLoad(ctx context.Context, all programs, opts Options) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{programs: all, enough: make(chan struct{}), cancel: cancel, began: time.Now()}
	for _, p := range all {
		p.tally.begin(l.began)
		p.db.SetMaxOpenConns(opts.Workers)
		p.db.SetMaxIdleConns(opts.Workers)
		for n := range opts.Workers {
			// The same numbers for each program: they ask for the same transfers.
			rng := rand.New(rand.NewPCG(opts.Seed, uint64(n)))
			l.workers.Go(func() { l.work(ctx, p, rng) })
		}
	}
	return l
}

func (l *load) work(ctx context.Context, p *program, rng *rand.Rand) {
	for {
		rest := thinkTime/2 + time.Duration(rng.Int64N(int64(thinkTime)))
		if t := p.tally.ask(l.next(rng)); moveWithin(ctx, p, t) != nil {
			rest = errorPause
		}
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-l.enough:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// moveWithin does one transfer within its deadline.
func moveWithin(ctx context.Context, p *program, t transfer) error {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	asked := time.Now()
	err := p.move(ctx, p.db, t)
	now := time.Now()
	p.tally.tell(t.id, err, now, now.Sub(asked))
	return err
}

func (l *load) next(rng *rand.Rand) transfer {
	among, conflicts := accounts, l.conflicts.Load()
	if conflicts {
		among = hotAccounts
	}
	t := transfer{from: rng.IntN(among), to: rng.IntN(among - 1), amount: 1 + rng.Int64N(100), ordered: !conflicts}
	if t.to >= t.from {
		t.to++
	}
	if serializable := rng.IntN(2) == 0; serializable && conflicts {
		t.isolation = sql.LevelSerializable
	}
	return t
}

// enter notes the phase that begins.
func (l *load) enter(phase string) {
	for _, p := range l.programs {
		p.tally.enter(phase)
	}
}

// scores are the counts of all programs, in the order of programKinds.
type scores [len(programKinds)]counts

// snapshot returns the scores of now.
func (l *load) snapshot() (all scores) {
	for i, p := range l.programs {
		all[i] = p.tally.snapshot()
	}
	return all
}

// since returns what was added since an earlier snapshot.
func (s scores) since(before scores) scores {
	for i := range s {
		s[i] = s[i].minus(before[i])
	}
	return s
}

// drain lets the transfers that are running end, and begins no new ones.
func (l *load) drain(ctx context.Context, timeout time.Duration) error {
	l.once.Do(func() { close(l.enough) })
	l.ended = time.Now()
	for _, p := range l.programs {
		p.tally.end(l.ended)
	}
	done := make(chan struct{})
	go func() { l.workers.Wait(); close(done) }()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
		return context.Cause(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return errors.New("transfers still run long after their deadline")
	}
}

// stop ends all transfers at once and waits for the workers.
func (l *load) stop() {
	l.once.Do(func() { close(l.enough) })
	l.cancel()
	l.workers.Wait()
}
