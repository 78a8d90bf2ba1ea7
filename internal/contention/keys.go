package contention

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long somebody waits while nothing moves. Chosen: many times what a transaction takes that others queue for.
const patience = time.Second

// keyTable lets no two attempts at a time hold the same key. A claim is put into the queues of all of its keys at once, in the
// order of arrival, and is granted when it is the first in each: so claims cannot wait for each other in a circle, and each
// has its turn.
type keyTable struct {
	watch

	mu      sync.Mutex
	queues  map[string][]*claim // the first may be granted, the others wait
	waiting int
}

// claim is what one attempt wants, or has.
type claim struct {
	seq     uint64
	keys    []string // each once
	granted bool
	gone    bool          // released, or its time was over
	since   time.Time     // when it was granted
	turn    chan struct{} // closed when it is granted; nil where there was nothing to wait for
}

func (k *keyTable) init(active *atomic.Int32) {
	k.watch = watch{active: active}
	k.queues = make(map[string][]*claim)
}

// ask returns the phase that holds for an attempt. With forced it is contended.
func (k *keyTable) ask(forced bool) phase {
	p := k.phase()
	if p == calm && !forced {
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

func (k *keyTable) alarm() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watch.alarm()
}

func (k *keyTable) saw(o Outcome) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watch.saw(o)
}

// hold waits until all keys are free for it.
func (k *keyTable) hold(ctx context.Context, keys []string, seq uint64) (_ *claim, waited time.Duration, err error) {
	c := &claim{seq: seq, keys: once(keys)}
	k.mu.Lock()
	for _, key := range c.keys {
		queue := k.queues[key]
		i := len(queue)
		for i > 0 && !queue[i-1].granted && queue[i-1].seq > seq {
			i--
		}
		k.queues[key] = slices.Insert(queue, i, c)
	}
	if k.firstLocked(c) {
		c.granted, c.since = true, time.Now()
		k.mu.Unlock()
		return c, 0, nil
	}
	c.turn = make(chan struct{})
	k.waiting++
	k.stir()
	began := time.Now()
	k.mu.Unlock()
	if err := k.await(ctx, c); err != nil {
		return nil, time.Since(began), err
	}
	return c, time.Since(began), nil
}

func (k *keyTable) await(ctx context.Context, c *claim) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-c.turn:
			return nil
		case <-ctx.Done():
			k.release(c)
			return ctx.Err()
		case <-timer.C:
			timer.Reset(k.expire(c))
		}
	}
}

// expire takes their keys from those whom c waits for and who have had them for too long. It returns when to look again.
func (k *keyTable) expire(c *claim) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	again := patience
	var stuck []*claim
	for _, key := range c.keys {
		if first := k.queues[key][0]; first.granted {
			if left := patience - time.Since(first.since); left > 0 {
				again = min(again, left)
			} else if first != c {
				stuck = append(stuck, first)
			}
		}
	}
	for _, s := range stuck {
		k.removeLocked(s)
	}
	return again
}

// release gives the keys of a claim to those who wait for them.
func (k *keyTable) release(c *claim) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.removeLocked(c)
}

func (k *keyTable) removeLocked(c *claim) {
	if c.gone {
		return
	}
	c.gone = true
	if !c.granted {
		k.waiting--
	}
	for _, key := range c.keys {
		queue := k.queues[key]
		if i := slices.Index(queue, c); i >= 0 {
			queue = slices.Delete(queue, i, i+1)
		}
		if len(queue) == 0 {
			delete(k.queues, key)
			continue
		}
		k.queues[key] = queue
	}
	for _, key := range c.keys {
		if queue := k.queues[key]; len(queue) > 0 {
			k.grantLocked(queue[0])
		}
	}
}

// grantLocked gives a claim its keys if it is its turn.
func (k *keyTable) grantLocked(c *claim) {
	if c.granted || !k.firstLocked(c) {
		return
	}
	c.granted, c.since = true, time.Now()
	k.waiting--
	close(c.turn)
}

// firstLocked reports whether a claim is the first for all of its keys.
func (k *keyTable) firstLocked(c *claim) bool {
	for _, key := range c.keys {
		if k.queues[key][0] != c {
			return false
		}
	}
	return true
}

// once returns the keys, each once.
func once(keys []string) []string {
	if len(keys) < 2 {
		return keys
	}
	keys = slices.Clone(keys)
	slices.Sort(keys)
	return slices.Compact(keys)
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
