package main

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	crdbpgx "github.com/cockroachdb/cockroach-go/v2/crdb/crdbpgxv5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg"
)

// contender is one way to run the transactions of a scenario.
type contender struct {
	name string
	// processes is false of what works in one process only.
	processes bool
	// open returns what runs one transaction, and what ends it.
	open func(ctx context.Context, dsn string, workers int, sc scenario) (call, func(), error)
}

// call runs one transfer until it has committed or failed for good. Each run of its closure calls attempt.
type call func(ctx context.Context, from, to int, attempt func()) error

const (
	plainName     = "pgxpool without retry"
	cockroachName = "cockroach-go"
	handName      = "loop by hand, base "
	limitName     = "limit"
	ownName       = "retrypg"
	keysName      = "retrypg, Keys"
	advisoryName  = keysName + ", advisory"
)

// unchecked leaves the check of commits out, which the others do not have either.
var unchecked = retrypg.WithCommitCheck(retrypg.NoCheck)

// advisory lets processes exclude each other.
var advisory = retrypg.WithContentionControl(retrypg.ContentionOptions{AdvisoryLocks: true})

// handBases are the first waits of the loops by hand. The best of them is what retrypg is compared with.
var handBases = []time.Duration{0, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond}

func contenders() []contender {
	list := []contender{
		{name: plainName, processes: true, open: pooled(func(pool *pgxpool.Pool, sc scenario) call {
			return func(ctx context.Context, from, to int, attempt func()) error {
				return once(ctx, pool, sc, from, to, attempt)
			}
		})},
		{name: cockroachName, processes: true, open: pooled(func(pool *pgxpool.Pool, sc scenario) call {
			return func(ctx context.Context, from, to int, attempt func()) error {
				return crdbpgx.ExecuteTx(ctx, pool, pgx.TxOptions{IsoLevel: sc.isolation}, func(tx pgx.Tx) error {
					attempt()
					return sc.transfer(ctx, tx, from, to)
				})
			}
		})},
	}
	for _, base := range handBases {
		list = append(list, contender{name: handName + base.String(), processes: true, open: pooled(func(pool *pgxpool.Pool, sc scenario) call {
			return byHand(pool, sc, base)
		})})
	}
	return append(list,
		contender{name: limitName, open: pooled(inOrder)},
		contender{name: ownName, processes: true, open: own(false)},
		contender{name: ownName + ", NoCheck", processes: true, open: own(false, unchecked)},
		contender{name: keysName, processes: true, open: own(true)},
		contender{name: keysName + ", NoCheck", processes: true, open: own(true, unchecked)},
		contender{name: advisoryName, processes: true, open: own(true, advisory)},
	)
}

func contenderNamed(name string) (contender, bool) {
	for _, c := range contenders() {
		if c.name == name {
			return c, true
		}
	}
	return contender{}, false
}

func isByHand(name string) bool { return strings.HasPrefix(name, handName) }

// pooled is a contender over a pool of pgxpool.
func pooled(use func(pool *pgxpool.Pool, sc scenario) call) func(context.Context, string, int, scenario) (call, func(), error) {
	return func(ctx context.Context, dsn string, workers int, sc scenario) (call, func(), error) {
		cfg, err := pgxpool.ParseConfig(dsn)
		if err != nil {
			return nil, nil, err
		}
		cfg.MaxConns = int32(workers)
		pool, err := pgxpool.NewWithConfig(ctx, cfg)
		if err != nil {
			return nil, nil, err
		}
		return use(pool, sc), pool.Close, nil
	}
}

// once runs a transaction once.
func once(ctx context.Context, pool *pgxpool.Pool, sc scenario, from, to int, attempt func()) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: sc.isolation}, func(tx pgx.Tx) error {
		attempt()
		return sc.transfer(ctx, tx, from, to)
	})
}

// byHand is the loop that a careful program has: conflicts are tried again until the context ends, after a wait with full
// jitter that doubles from base to 1 s.
func byHand(pool *pgxpool.Pool, sc scenario, base time.Duration) call {
	return func(ctx context.Context, from, to int, attempt func()) error {
		for ceiling := base; ; ceiling = min(2*ceiling, time.Second) {
			err := once(ctx, pool, sc, from, to, attempt)
			var pgErr *pgconn.PgError
			if err == nil || !errors.As(err, &pgErr) || pgErr.Code != "40001" && pgErr.Code != "40P01" {
				return err
			}
			if ceiling == 0 {
				continue
			}
			select {
			case <-time.After(rand.N(ceiling)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// inOrder is what no client can beat: it knows the accounts, and locks them in the process, in one order. Its transactions
// never meet a conflict.
func inOrder(pool *pgxpool.Pool, sc scenario) call {
	var mu sync.Mutex
	locks := make(map[int]*sync.Mutex)
	lockOf := func(id int) *sync.Mutex {
		mu.Lock()
		defer mu.Unlock()
		if locks[id] == nil {
			locks[id] = new(sync.Mutex)
		}
		return locks[id]
	}
	return func(ctx context.Context, from, to int, attempt func()) error {
		first, second := lockOf(min(from, to)), lockOf(max(from, to))
		first.Lock()
		defer first.Unlock()
		second.Lock()
		defer second.Unlock()
		return once(ctx, pool, sc, from, to, attempt)
	}
}

// own is retrypg.
func own(keys bool, more ...retrypg.Option) func(context.Context, string, int, scenario) (call, func(), error) {
	return func(ctx context.Context, dsn string, workers int, sc scenario) (call, func(), error) {
		cfg, err := pgxpool.ParseConfig(dsn)
		if err != nil {
			return nil, nil, err
		}
		cfg.MaxConns = int32(workers)
		pool, err := retrypg.NewPoolWithConfig(ctx, cfg, more...)
		if err != nil {
			return nil, nil, err
		}
		opts := retrypg.TxOptions{Name: "transfer", Isolation: sql.LevelSerializable}
		if sc.isolation == pgx.ReadCommitted {
			opts.Isolation = sql.LevelReadCommitted
		}
		return func(ctx context.Context, from, to int, attempt func()) error {
			opts := opts
			if keys {
				opts.Keys = []string{strconv.Itoa(from), strconv.Itoa(to)}
			}
			return retrypg.WithPgxTx(ctx, pool, opts, func(ctx context.Context, tx pgx.Tx) error {
				attempt()
				return sc.transfer(ctx, tx, from, to)
			})
		}, pool.Close, nil
	}
}
