package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/cockroachdb/cockroach-go/v2/crdb"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// serverGroups measure against a PostgreSQL server of their own, over TCP on this machine. It syncs nothing to disk: a
// slower server would hide the layers.
func serverGroups(ctx context.Context) (groups []group, done func(), err error) {
	c, err := pgtest.Start(ctx, pgtest.Options{})
	if err != nil {
		return nil, nil, err
	}
	if err := c.Exec(ctx, "create unlogged table item (note bigint)"); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make the table: %w", err), c.Close())
	}
	list, err := openDatabases(ctx, c.DSN(), nil)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	far, closeFar, err := latencyGroup(ctx, c)
	if err != nil {
		return nil, nil, errors.Join(err, list.close(), c.Close())
	}
	done = func() {
		_ = list.close()
		closeFar()
		_ = c.Close()
	}
	where := fmt.Sprintf(" on PostgreSQL %s over TCP on this machine, with a context that has a deadline.", c.Installation().Version)
	const aim = "at most 1.02 of pgx's own driver while no provider is installed, 1.05 with metrics."
	return []group{
		{
			title: "real server, query", work: "A QueryRowContext with one argument and one row" + where, aim: aim, base: pgxName,
			contenders: list.contenders(queryOnce(ctx)),
		},
		{
			title: "real server, exec", work: "An INSERT with one argument into an unlogged table" + where, aim: aim, base: pgxName,
			contenders: list.contenders(execOnce(ctx)),
		},
		{
			title: "real server, transaction", work: "BEGIN, an INSERT with one argument into an unlogged table, COMMIT" + where, base: pgxName,
			aim: "none was set; make bench-commit compares the ways to settle a lost COMMIT, on a server that syncs.",
			note: "cockroach-go adds a SAVEPOINT and its RELEASE. retrypg reads the transaction's id with BEGIN, with which it can ask what became of a " +
				"COMMIT whose answer was lost.",
			contenders: transactionContenders(ctx, list),
		},
		far,
	}, done, nil
}

// transactionContenders are the ways to run a transaction with one statement.
func transactionContenders(ctx context.Context, list databases) []contender {
	insert := func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "insert into item (note) values ($1)", 1)
		return err
	}
	contenders := list.contenders(func(db *sql.DB) error { return transact(ctx, db, insert) })
	pgx, own := list.named(pgxName), list.named(ownName)
	return append(contenders,
		contender{name: "cockroach-go ExecuteTx over pgx stdlib", side: peer, run: func(n int) error {
			for range n {
				if err := crdb.ExecuteTx(ctx, pgx, nil, insert); err != nil {
					return err
				}
			}
			return nil
		}},
		contender{name: "retrypg WithTx, no provider", side: ours, run: func(n int) error {
			for range n {
				err := retrypg.WithTx(ctx, own, retrypg.TxOptions{}, func(_ context.Context, tx *sql.Tx) error { return insert(tx) })
				if err != nil {
					return err
				}
			}
			return nil
		}},
	)
}
