package load

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/retrypg/retrypg"
)

const (
	// transferTimeout is what a patient caller allows: longer than each fault, so that transfers do not fail.
	transferTimeout = 30 * time.Second
	// lookupTimeout is what an impatient one allows.
	lookupTimeout = 2 * time.Second
	// thinkTime is the mean pause of a worker between two calls: it leaves a small machine some room.
	thinkTime = 50 * time.Millisecond
	// errorPause is the pause after an error instead, as an open breaker answers at once.
	errorPause = 200 * time.Millisecond
	// hotAccounts are those that all transfers use while conflicts are wanted.
	hotAccounts = 8
)

// transfer moves money until ctx is done.
func (r *running) transfer(ctx context.Context) {
	for ctx.Err() == nil {
		m := r.nextMove()
		err := r.move(ctx, m)
		if ctx.Err() != nil {
			return // ended with the load: not counted
		}
		r.counts.transfer(err)
		switch {
		case errors.Is(err, retrypg.ErrCommitUnknown):
			r.opts.Log.Warn("it is not known whether a transfer was done", "id", m.id, "error", err.Error())
		case err != nil:
			r.opts.Log.Warn("a transfer failed", "id", m.id, "error", err.Error())
		}
		rest(ctx, err)
	}
}

func (r *running) move(ctx context.Context, m move) error {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	return retrypg.WithTx(ctx, r.transfers, retrypg.TxOptions{Isolation: m.isolation, Name: "transfer"}, m.in)
}

// nextMove makes up a transfer. Some are SERIALIZABLE and meet a conflict once in a while, in the best of times too.
func (r *running) nextMove() move {
	among, serializable := accounts, rand.N(8) == 0
	if r.conflicts.Load() {
		among, serializable = hotAccounts, true
	}
	m := move{id: r.nextID.Add(1), from: rand.N(among), to: rand.N(among - 1), amount: 1 + rand.N(int64(100))}
	if m.to >= m.from {
		m.to++
	}
	if m.from > m.to { // in the order of their numbers, or they would deadlock, which takes the server a second to see
		m.from, m.to, m.amount = m.to, m.from, -m.amount
	}
	if serializable {
		m.isolation = sql.LevelSerializable
	}
	return m
}

// lookUp reads balances until ctx is done.
func (r *running) lookUp(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.balance(ctx, rand.N(accounts))
		if ctx.Err() != nil {
			return
		}
		r.counts.lookup(err)
		rest(ctx, err)
	}
}

func (r *running) balance(ctx context.Context, account int) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var balance int64
	return r.lookups.QueryRowContext(ctx, "select balance from accounts where id = $1", account).Scan(&balance)
}

// rest is a worker's pause after a call that returned err.
func rest(ctx context.Context, err error) {
	pause := thinkTime/2 + rand.N(thinkTime)
	if err != nil {
		pause = errorPause
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// counts are what the callers were told.
type counts struct {
	transferred, notTransferred, unknown atomic.Int64
	found, notFound                      atomic.Int64
}

func (c *counts) transfer(err error) {
	switch {
	case err == nil:
		c.transferred.Add(1)
	case errors.Is(err, retrypg.ErrCommitUnknown):
		c.unknown.Add(1)
	default:
		c.notTransferred.Add(1)
	}
}

func (c *counts) lookup(err error) {
	if err == nil {
		c.found.Add(1)
	} else {
		c.notFound.Add(1)
	}
}

// fields are the counts as attributes of a log line.
func (c *counts) fields() []any {
	return []any{
		"transfers_ok", c.transferred.Load(), "transfers_failed", c.notTransferred.Load(), "transfers_unknown", c.unknown.Load(),
		"lookups_ok", c.found.Load(), "lookups_failed", c.notFound.Load(),
	}
}
