package contention

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
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

// claims lets no two attempts at a time hold the same key. A claim gets all of its keys at once, or waits: so claims cannot
// wait for each other in a circle. The older one goes first, but one whose keys are free need not wait for an older one that
// waits for another key, up to a number of times, after which that is firm, and nobody overtakes it.
//
// An attempt that holds keys already may ask for more.
type claims[K cmp.Ordered] struct {
	mu      sync.Mutex
	queues  map[K]*claimQueue[K] // of the keys that somebody holds or waits for
	waiting int
	enough  time.Duration // after which a key is taken from its holder by who waits for it
}

type claimQueue[K cmp.Ordered] struct {
	holder  *claim[K]
	waiting []*claim[K] // by age
	firm    int         // of these, those that are firm
}

// claim is what one attempt wants, or has.
type claim[K cmp.Ordered] struct {
	seq       uint64
	keys      []K // each once
	owner     *owner[K]
	granted   bool
	gone      bool // released, or its time was over
	overtaken int
	since     time.Time     // when it was granted
	turn      chan struct{} // closed when it is granted; nil where there was nothing to wait for
}

// owner is who makes claims: an attempt.
type owner[K cmp.Ordered] struct {
	held  []*claim[K]
	waits *claim[K] // for this one, while it holds others; nil while it does not
}

func (c *claim[K]) firm() bool { return c.overtaken >= maxOvertaken }

// ErrCircle says that somebody cannot be waited for, who waits for the waiter.
var ErrCircle = errors.New("who is waited for waits for the waiter")

// hold waits until all keys are free for o. seq is its age: the lower, the older. An owner that holds keys already keeps them
// meanwhile, and goes before all that hold nothing; where it would wait in a circle, it does not, and the error is ErrCircle.
func (k *claims[K]) hold(ctx context.Context, o *owner[K], keys []K, seq uint64) (waited time.Duration, err error) {
	c := &claim[K]{seq: seq, keys: once(keys), owner: o}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(o.held) > 0 {
		if k.circularLocked(c, o) {
			return 0, ErrCircle
		}
		c.seq = 0
	}
	if !k.listLocked(c) {
		if len(o.held) > 0 {
			o.waits = c
		}
		began, enough := time.Now(), k.enough
		k.mu.Unlock()
		err = k.await(ctx, c, enough)
		k.mu.Lock()
		o.waits, waited = nil, time.Since(began)
	}
	if err == nil {
		o.held = append(o.held, c)
	}
	return waited, err
}

// tryLocked is hold where nothing is waited for.
func (k *claims[K]) tryLocked(o *owner[K], keys []K, seq uint64) bool {
	if len(o.held) > 0 {
		seq = 0
	}
	c := &claim[K]{seq: seq, keys: once(keys), owner: o}
	if !k.listLocked(c) {
		k.removeLocked(c)
		return false
	}
	o.held = append(o.held, c)
	return true
}

// circularLocked reports whether c, were it to wait, would wait for o.
func (k *claims[K]) circularLocked(c *claim[K], o *owner[K]) bool {
	for _, key := range c.keys {
		holder := k.holderLocked(key)
		if holder == nil {
			continue
		}
		if holder.owner == o {
			return true
		}
		if w := holder.owner.waits; w != nil && !w.granted && !w.gone && k.circularLocked(w, o) {
			return true
		}
	}
	return false
}

// holderLocked returns who holds a key, or nil.
func (k *claims[K]) holderLocked(key K) *claim[K] {
	if q := k.queues[key]; q != nil {
		return q.holder
	}
	return nil
}

// drop gives all that an owner holds to those who wait for it.
func (k *claims[K]) drop(o *owner[K]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked(o)
}

func (k *claims[K]) dropLocked(o *owner[K]) {
	for _, c := range o.held {
		k.removeLocked(c)
	}
	o.held = nil
}

// listLocked puts a claim into the queues, and grants it if it may have its keys now.
func (k *claims[K]) listLocked(c *claim[K]) (granted bool) {
	for _, key := range c.keys {
		q := k.queues[key]
		if q == nil {
			q = new(claimQueue[K])
			k.queues[key] = q
		}
		i := len(q.waiting)
		for i > 0 && q.waiting[i-1].seq > c.seq {
			i--
		}
		q.waiting = slices.Insert(q.waiting, i, c)
	}
	k.waiting++
	if k.mayHaveLocked(c) {
		k.grantLocked(c)
		return true
	}
	c.turn = make(chan struct{})
	return false
}

func (k *claims[K]) await(ctx context.Context, c *claim[K], enough time.Duration) error {
	timer := time.NewTimer(enough)
	defer timer.Stop()
	for {
		select {
		case <-c.turn:
			return nil
		case <-ctx.Done():
			k.mu.Lock()
			defer k.mu.Unlock()
			k.removeLocked(c)
			return ctx.Err()
		case <-timer.C:
			timer.Reset(k.expire(c))
		}
	}
}

// expire takes their keys from those whom c waits for and who have had them for too long. It returns when to look again.
func (k *claims[K]) expire(c *claim[K]) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	again := k.enough
	for _, key := range c.keys {
		q := k.queues[key]
		if c.granted || q == nil || q.holder == nil {
			continue
		}
		if left := k.enough - time.Since(q.holder.since); left > 0 {
			again = min(again, left)
			continue
		}
		k.removeLocked(q.holder)
	}
	return again
}

func (k *claims[K]) removeLocked(c *claim[K]) {
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
func (k *claims[K]) unlistLocked(c *claim[K]) {
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
func (k *claims[K]) offerLocked(key K) {
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
func (k *claims[K]) mayHaveLocked(c *claim[K]) bool {
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
func (k *claims[K]) grantLocked(c *claim[K]) {
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

// once returns a copy of the keys, each once.
func once[K cmp.Ordered](keys []K) []K {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	return slices.Compact(keys)
}

// waitingNow returns how many claims wait.
func (k *claims[K]) waitingNow() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.waiting
}
