package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/cockroach-go/v2/crdb"
	crdbpgx "github.com/cockroachdb/cockroach-go/v2/crdb/crdbpgxv5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// oneWay is how long a byte takes from the client to the server, and back: that of servers in one region.
const oneWay = time.Millisecond

// latencyGroup is a transaction with one statement on a server that is some way off. There, round trips are all that counts.
func latencyGroup(ctx context.Context, c *pgtest.Cluster) (g group, done func(), err error) {
	proxy, err := pgtest.NewProxy(c.Addr())
	if err != nil {
		return group{}, nil, fmt.Errorf("start a proxy: %w", err)
	}
	proxy.SetFaults(pgtest.Faults{DelayUp: oneWay, DelayDown: oneWay}, pgtest.All)
	contenders, closeAll, err := latencyContenders(ctx, proxy.DSN("pool_max_conns=1"), proxy.DSN())
	if err != nil {
		return group{}, nil, errors.Join(err, proxy.Close())
	}
	return group{
		title: "transaction, 1 ms each way",
		work: fmt.Sprintf("BEGIN, an INSERT with one argument into an unlogged table, COMMIT on PostgreSQL %s, through a proxy that delivers each byte "+
			"%v later, in both directions. Round trips are counted by the proxy: what a client sends after it has been sent something.",
			c.Installation().Version, oneWay),
		aim: "at most 0.70 of pgx's own driver.",
		note: "cockroach-go adds a SAVEPOINT and its RELEASE. \"By hand\" sends all three in one batch, which no interface with a BEGIN of its own " +
			"can: the answer of each is not known before the next is sent.",
		base: pgxName, contenders: contenders,
		trips: func() int { return proxy.Stats().Flights },
	}, func() { closeAll(); _ = proxy.Close() }, nil
}

const insertItem = "insert into item (note) values ($1)"

// latencyContenders are the ways to run the transaction, each with one connection.
func latencyContenders(ctx context.Context, poolDSN, dsn string) (list []contender, done func(), err error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, nil, fmt.Errorf("parse the DSN: %w", err)
	}
	plainPool, err := pgxpool.New(ctx, poolDSN)
	if err != nil {
		return nil, nil, fmt.Errorf("open pgxpool: %w", err)
	}
	ownPool, err := retrypg.NewPool(ctx, poolDSN)
	if err != nil {
		plainPool.Close()
		return nil, nil, fmt.Errorf("open a pool: %w", err)
	}
	own, err := retrypg.OpenDB(dsn)
	if err != nil {
		plainPool.Close()
		ownPool.Close()
		return nil, nil, fmt.Errorf("open a handle: %w", err)
	}
	plain := stdlib.OpenDB(*cfg)
	done = func() {
		plainPool.Close()
		ownPool.Close()
		_ = own.Close()
		_ = plain.Close()
	}
	plain.SetMaxOpenConns(1)
	own.SetMaxOpenConns(1)
	insert := func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, insertItem, 1)
		return err
	}
	insertPgx := func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insertItem, 1)
		return err
	}
	once := func(name string, side side, work func() error) {
		list = append(list, contender{name: name, side: side, run: func(n int) error {
			for range n {
				if err := work(); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	once("by hand: one batch", floor, func() error {
		var b pgx.Batch
		b.Queue("begin")
		b.Queue(insertItem, 1)
		b.Queue("commit")
		return plainPool.SendBatch(ctx, &b).Close()
	})
	once(pgxName, peer, func() error { return transact(ctx, plain, insert) })
	once("pgxpool", peer, func() error { return transactPgx(ctx, plainPool, insertPgx) })
	once("cockroach-go ExecuteTx over pgx stdlib", peer, func() error { return crdb.ExecuteTx(ctx, plain, nil, insert) })
	once("cockroach-go ExecuteTx over pgxpool", peer, func() error { return crdbpgx.ExecuteTx(ctx, plainPool, pgx.TxOptions{}, insertPgx) })
	once("retrypg BeginTx", ours, func() error { return transact(ctx, own, insert) })
	once("retrypg WithTx", ours, func() error {
		return retrypg.WithTx(ctx, own, retrypg.TxOptions{}, func(_ context.Context, tx *sql.Tx) error { return insert(tx) })
	})
	once("retrypg Pool.BeginTx", ours, func() error { return transactPgx(ctx, ownPool, insertPgx) })
	once("retrypg WithPgxTx", ours, func() error {
		return retrypg.WithPgxTx(ctx, ownPool, retrypg.TxOptions{}, func(_ context.Context, tx pgx.Tx) error { return insertPgx(tx) })
	})
	return list, done, nil
}

// transact runs work in a transaction of database/sql, as one does by hand.
func transact(ctx context.Context, db *sql.DB, work func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := work(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// transactPgx is transact for a pool of pgx.
func transactPgx(ctx context.Context, pool interface {
	BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
}, work func(tx pgx.Tx) error,
) error {
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{})
	if err != nil {
		return err
	}
	if err := work(tx); err != nil {
		return errors.Join(err, tx.Rollback(ctx))
	}
	return tx.Commit(ctx)
}
