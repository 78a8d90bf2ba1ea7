package load

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/retrypg/retrypg"
)

const (
	accounts       = 64
	initialBalance = 1_000_000
)

const (
	// setUpTimeout bounds each statement that makes, checks or drops the bank.
	setUpTimeout = 30 * time.Second
	// dropTimeout is shorter: a server that is away at the end keeps the schema.
	dropTimeout = 2 * time.Second
)

// bank makes the tables anew, whatever an earlier load left.
const bank = `drop schema if exists ` + schemaName + ` cascade;
create schema ` + schemaName + `;
create table ` + schemaName + `.accounts (id int primary key, balance bigint not null) with (fillfactor = 50);
create table ` + schemaName + `.ledger (id bigint primary key, debit int not null, credit int not null, amount bigint not null)`

func (r *running) makeBank(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setUpTimeout)
	defer cancel()
	err := retrypg.WithTx(ctx, r.transfers, retrypg.TxOptions{Name: "make the bank"}, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, bank); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "insert into accounts select n, $1 from generate_series(0, $2) n", initialBalance, accounts-1)
		return err
	})
	if err != nil {
		return fmt.Errorf("make the schema %s: %w", schemaName, err)
	}
	return nil
}

// dropBank drops the schema at the end of the load, also of one that a signal ended. What stays is dropped by the next.
func (r *running) dropBank(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTimeout)
	defer cancel()
	if _, err := r.transfers.ExecContext(ctx, "drop schema "+schemaName+" cascade"); err != nil {
		r.opts.Log.Warn("the schema could not be dropped", "schema", schemaName, "error", err.Error())
	}
}

// audit returns ErrUnbalanced if money was made or lost, and forgets all but the newest lines of the ledger, which would
// fill the disk. A server that is away is looked at next time.
func (r *running) audit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setUpTimeout)
	defer cancel()
	newest := r.nextID.Load()
	var total, want int64
	err := retrypg.WithTx(ctx, r.transfers, retrypg.TxOptions{Name: "audit"}, func(ctx context.Context, tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, "select sum(balance), count(*) * $1::bigint from accounts", initialBalance).Scan(&total, &want)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "delete from ledger where id < $1", newest-ledgerLength)
		return err
	})
	switch {
	case err != nil && ctx.Err() == nil:
		r.opts.Log.Warn("the balances could not be looked at", "error", err.Error())
	case err == nil && total != want:
		return fmt.Errorf("%w: %d instead of %d", ErrUnbalanced, total, want)
	}
	return nil
}

// ledgerLength is how many of the newest lines of the ledger an audit leaves.
const ledgerLength = 1000

// move is one transfer.
type move struct {
	id        int64
	from, to  int
	amount    int64
	isolation sql.IsolationLevel
}

// in does the work of the transfer in an open transaction.
func (m move) in(ctx context.Context, tx *sql.Tx) error {
	const update = "update accounts set balance = balance + $1 where id = $2"
	if _, err := tx.ExecContext(ctx, update, -m.amount, m.from); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, update, m.amount, m.to); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "insert into ledger values ($1, $2, $3, $4)", m.id, m.from, m.to, m.amount)
	return err
}
