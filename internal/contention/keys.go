package contention

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// patience is how long somebody waits while nothing moves. Chosen: many times what a transaction takes that others queue for.
	patience = time.Second
	// maxOvertaken is how many claims on one of its keys may be granted before a claim that is older: those that fit into the
	// gaps, while it waits for another of its keys. Chosen: it is about what keeps all keys in use.
	maxOvertaken = 8
	// maxLooked bounds how many waiting claims of a key are looked at when it is free.
	maxLooked = 64
)

// keyTable lets no two attempts at a time hold the same key. A claim gets all of its keys at once, or waits: so claims cannot
// wait for each other in a circle. The older one goes first, but one whose keys are free need not wait for an older one that
// waits for another key, up to a number of times, after which that is firm, and nobody overtakes it.
type keyTable struct {
	watch

	mu      sync.Mutex
	queues  map[string]*keyQueue // of the keys that somebody holds or waits for
	waiting int
}

type keyQueue struct {
	holder  *claim
	waiting []*claim // by age
	firm    int      // of these, those that are firm
}

// claim is what one attempt wants, or has.
type claim struct {
	seq       uint64
	keys      []string // each once
	granted   bool
	gone      bool // released, or its time was over
	overtaken int
	since     time.Time     // when it was granted
	turn      chan struct{} // closed when it is granted; nil where there was nothing to wait for
}

func (c *claim) firm() bool { return c.overtaken >= maxOvertaken }

func (k *keyTable) init(active *atomic.Int32) {
	k.watch = watch{active: active}
	k.queues = make(map[string]*keyQueue)
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

// hold waits until all keys are free for it. seq is its age: the lower, the older.
func (k *keyTable) hold(ctx context.Context, keys []string, seq uint64) (_ *claim, waited time.Duration, err error) {
	c := &claim{seq: seq, keys: once(keys)}
	k.mu.Lock()
	for _, key := range c.keys {
		q := k.queues[key]
		if q == nil {
			q = new(keyQueue)
			k.queues[key] = q
		}
		i := len(q.waiting)
		for i > 0 && q.waiting[i-1].seq > seq {
			i--
		}
		q.waiting = slices.Insert(q.waiting, i, c)
	}
	k.waiting++
	if k.mayHaveLocked(c) {
		k.grantLocked(c)
		k.mu.Unlock()
		return c, 0, nil
	}
	c.turn = make(chan struct{})
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
	for _, key := range c.keys {
		q := k.queues[key]
		if c.granted || q == nil || q.holder == nil {
			continue
		}
		if left := patience - time.Since(q.holder.since); left > 0 {
			again = min(again, left)
			continue
		}
		k.removeLocked(q.holder)
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
		k.unlistLocked(c)
	} else {
		for _, key := range c.keys {
			k.queues[key].holder = nil
		}
	}
	for _, key := range c.keys {
		k.offerLocked(key)
	}
	for _, key := range c.keys {
		if q := k.queues[key]; q != nil && q.holder == nil && len(q.waiting) == 0 {
			delete(k.queues, key)
		}
	}
}

// unlistLocked takes a claim out of the queues.
func (k *keyTable) unlistLocked(c *claim) {
	k.waiting--
	for _, key := range c.keys {
		q := k.queues[key]
		if i := slices.Index(q.waiting, c); i >= 0 {
			q.waiting = slices.Delete(q.waiting, i, i+1)
		}
		if c.firm() {
			q.firm--
		}
	}
}

// offerLocked grants the oldest claim that may have a key, if it is free.
func (k *keyTable) offerLocked(key string) {
	q := k.queues[key]
	for i := 0; i < len(q.waiting) && i < maxLooked && q.holder == nil; i++ {
		c := q.waiting[i]
		if k.mayHaveLocked(c) {
			k.grantLocked(c)
			return
		}
		if c.firm() {
			return
		}
	}
}

// mayHaveLocked reports whether all keys of a claim are free, and none is that of an older one that is firm.
func (k *keyTable) mayHaveLocked(c *claim) bool {
	for _, key := range c.keys {
		q := k.queues[key]
		if q.holder != nil {
			return false
		}
		for i := 0; q.firm > 0 && q.waiting[i] != c; i++ {
			if q.waiting[i].firm() {
				return false
			}
		}
	}
	return true
}

// grantLocked gives a claim its keys.
func (k *keyTable) grantLocked(c *claim) {
	k.unlistLocked(c)
	for _, key := range c.keys {
		q := k.queues[key]
		q.holder = c
		for _, older := range q.waiting {
			if older.seq > c.seq {
				break
			}
			if older.overtaken++; older.overtaken == maxOvertaken {
				for _, key := range older.keys {
					k.queues[key].firm++
				}
			}
		}
	}
	c.granted, c.since = true, time.Now()
	if c.turn != nil {
		close(c.turn)
	}
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
