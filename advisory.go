package retrypg

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

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

// locksOf returns the advisory locks that the next attempt of a transaction is to take, in the order in which everybody takes
// them: none, unless it is to run alone and such locks were asked for.
func (c *core) locksOf(opts TxOptions, turn *contention.Call) []int64 {
	if !c.set.advisoryLocks || turn.Escalated() < 0 {
		return nil
	}
	if len(opts.Keys) == 0 {
		return []int64{advisoryKey("name", opts.Name)}
	}
	locks := make([]int64, len(opts.Keys))
	for i, key := range opts.Keys {
		locks[i] = AdvisoryKey(key)
	}
	slices.Sort(locks)
	return slices.Compact(locks)
}

// beginLocked begins a transaction that holds advisory locks to its end, where its wishes name some.
//
// A statement that waits for a lock has its snapshot already. In a transaction that keeps its first snapshot, that would be
// one from before the wait, and what the holder of the lock changes a conflict for certain. So there the lock is waited for
// outside of the transaction, as one of the session, and taken over by the first statement in it.
func (c *core) beginLocked(ctx context.Context, conn *pgx.Conn, l *link, o pgx.TxOptions, w txWishes) error {
	locks := w.locks
	if len(locks) == 0 {
		return c.beginTx(ctx, conn, l, o, w)
	}
	within := o.IsoLevel == outcome.ReadCommitted || o.IsoLevel == outcome.ReadUncommitted
	if !within {
		if l.pooled { // the next message may go to another session, which would not have the lock, and this one keep it
			return c.beginTx(ctx, conn, l, o, w)
		}
		if err := advise(ctx, conn, calls("pg_advisory_lock", locks)); err != nil {
			return err
		}
	}
	if err := c.beginTx(ctx, conn, l, o, w); err != nil {
		if !within {
			closeNow(conn)
		}
		return err
	}
	takes := calls("pg_advisory_xact_lock", locks)
	if !within {
		takes = append(takes, calls("pg_advisory_unlock", locks)...)
	}
	return advise(ctx, conn, takes)
}

// calls returns a call of a function for each lock.
func calls(function string, locks []int64) []string {
	list := make([]string, len(locks))
	for i, lock := range locks {
		list[i] = function + "(" + strconv.FormatInt(lock, 10) + ")"
	}
	return list
}

// advise sends calls of lock functions, in their order. If that fails, the connection is closed: nobody knows which locks its
// session has, and the next user of the connection must not have any.
func advise(ctx context.Context, conn *pgx.Conn, calls []string) error {
	_, err := conn.PgConn().Exec(ctx, "select "+strings.Join(calls, ", ")).ReadAll()
	if err != nil {
		closeNow(conn)
	}
	return err
}
