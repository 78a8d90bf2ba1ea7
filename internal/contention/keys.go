package contention

import (
	"context"
	"sync/atomic"
	"time"
)

// keyTable holds the keys that callers name, while transactions with keys conflict.
type keyTable struct {
	watch // guarded by the lock of claims
	claims[string]
}

func (k *keyTable) init(active *atomic.Int32) {
	k.watch = watch{active: active}
	k.queues, k.enough = make(map[string]*claimQueue[string]), patience
}

// ask returns the phase that holds for an attempt. With forced it is contended.
func (k *keyTable) ask(forced bool) phase {
	if !forced && k.phase() == calm {
		return calm
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.waiting > 0 {
		k.stir()
	}
	k.quiet++
	k.settle()
	if forced && k.phase() != contended {
		k.become(contended)
	}
	return k.phase()
}

// hold is that of claims, and notes that somebody had to wait.
func (k *keyTable) hold(ctx context.Context, o *owner[string], keys []string, seq uint64) (waited time.Duration, err error) {
	waited, err = k.claims.hold(ctx, o, keys, seq)
	if waited > 0 {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.stir()
	}
	return waited, err
}

func (k *keyTable) alarm(o Outcome) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watch.alarm(o)
}

func (k *keyTable) saw(o Outcome) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watch.saw(o)
}

func (k *keyTable) add(s *State) {
	if k.phase() != contended {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Contended++
	s.Waiting += k.waiting
}
