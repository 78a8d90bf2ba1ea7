package retrypg

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/contention"
	"github.com/retrypg/retrypg/internal/outcome"
)

// AdvisoryKey returns the key of the PostgreSQL advisory lock that stands for one of TxOptions.Keys, for programs that want
// to be excluded too: the first eight bytes, big-endian, of the SHA-256 of "retrypg:key:" and the key. In SQL:
//
//	select ('x' || encode(substr(sha256('retrypg:key:account:3'), 1, 8), 'hex'))::bit(64)::bigint
//
// For a transaction without keys it is that of "retrypg:name:" and TxOptions.Name.
func AdvisoryKey(key string) int64 { return advisoryKey("key", key) }

func advisoryKey(kind, name string) int64 {
	sum := sha256.Sum256([]byte("retrypg:" + kind + ":" + name))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// maxLocks is of how many keys a transaction takes the locks, which have a place in the memory that all sessions of the server
// share: 64 for each of its max_connections, by default. Chosen.
const maxLocks = 64

// advisoryLocks are those that an attempt is to hold.
type advisoryLocks struct {
	keys   []int64         // in the order in which everybody takes them
	until  time.Time       // when the wait for them ends, with errLocksLate; zero: with its context only
	ctx    context.Context // of the transaction, with which the wait for them ends; nil before its BEGIN
	waited time.Duration   // how long they took, where one was not to be had at once; else 0
}

// locksOf returns the locks that the next attempt of a transaction is to hold: nil, unless such locks were asked for, and it is
// to run alone or others elsewhere are in the way of those that have their keys here.
func (c *core) locksOf(opts TxOptions, turn *contention.Call) *advisoryLocks {
	if !c.set.advisoryLocks || len(opts.Keys) > maxLocks || !turn.Elsewhere() {
		return nil
	}
	locks := &advisoryLocks{until: turn.Until}
	if len(opts.Keys) == 0 {
		locks.keys = []int64{advisoryKey("name", opts.Name)}
		return locks
	}
	locks.keys = make([]int64, len(opts.Keys))
	for i, key := range opts.Keys {
		locks.keys[i] = AdvisoryKey(key)
	}
	slices.Sort(locks.keys)
	locks.keys = slices.Compact(locks.keys)
	return locks
}

// tell tells of an attempt that had to wait for its locks. It works on nil, for one that has none.
func (a *advisoryLocks) tell(ctx context.Context, op *operation, turn *contention.Call) {
	if a != nil && a.waited > 0 {
		op.admitted(ctx, op.attempts, a.waited)
		turn.WaitedElsewhere()
	}
}

// beginLocked begins a transaction that holds advisory locks to its end, where its wishes name some. When it returns no error, the
// session has no such lock but those of the transaction, or they travel with its first statement; when it returns one, and a lock
// may be left, the connection is closed.
//
// A statement that waits for a lock has its snapshot already. In a transaction that keeps its first snapshot, that would be
// one from before the wait, and what the holder of the lock changes a conflict for certain. So there the lock is waited for
// outside of the transaction, as one of the session, and taken over by the first statement in it.
func (c *core) beginLocked(ctx context.Context, conn *pgx.Conn, l *link, o pgx.TxOptions, w txWishes) error {
	if w.locks == nil {
		return c.beginTx(ctx, conn, l, o, w)
	}
	if w.locks.ctx == nil { // else it begins on another connection, with its first statement
		w.locks.ctx = ctx
	}
	bounded, cancel := c.bounded(ctx)
	err := l.identify(bounded, conn)
	release(cancel)
	if err != nil {
		return timedOut(bounded, err)
	}
	pooled := l.pooled || c.lockPooled.Load()
	latest := o.IsoLevel == outcome.ReadCommitted || o.IsoLevel == outcome.ReadUncommitted // each statement has a snapshot of its own
	switch {
	case !pooled && c.waitsForFirst(l, o, w):
		if err := c.beginTx(ctx, conn, l, o, w); err != nil {
			return err
		}
		return w.locks.travel(c, conn, l, latest)
	case latest:
		if err := c.beginTx(ctx, conn, l, o, w); err != nil {
			return err
		}
		return w.locks.take(conn, l, takeForTransaction) // a BEGIN that waits for the first statement goes with it
	case pooled: // the next message may go to another session, which would not have the lock, and this one keep it
		return c.beginTx(ctx, conn, l, o, w)
	}
	if err := w.locks.take(conn, l, takeForSession); err != nil {
		return err
	}
	if err := c.beginTx(ctx, conn, l, o, w); err != nil {
		closeNow(conn)
		return err
	}
	if err = w.locks.takeOver(ctx, conn, l); errors.Is(err, errOtherSession) {
		c.lockPooled.Store(true)
	}
	return err
}
