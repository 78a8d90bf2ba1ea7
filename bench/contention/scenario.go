package main

import (
	"context"
	"math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5"
)

// scenario is a kind of transaction, and how the accounts of each are chosen.
type scenario struct {
	name, title, work string
	aim               string
	isolation         pgx.TxIsoLevel
	alone             bool // each worker has accounts of its own
	transfer          func(ctx context.Context, tx pgx.Tx, from, to int) error
}

var scenarios = []scenario{
	{
		name: "serializable", title: "SERIALIZABLE read-modify-write",
		work: "Each transaction reads two of eight accounts, one after the other, and writes both: five round trips and COMMIT.",
		aim: "with a key at least 0.85 of the limit, without one at least 1.2 of the best loop by hand, at most 1.2 attempts per commit, " +
			"p99 at most 100 ms, none over 1 s, no failure.",
		isolation: pgx.Serializable, transfer: readModifyWrite,
	},
	{
		name: "deadlock", title: "Deadlocks",
		work: "READ COMMITTED: each transaction locks two of eight accounts with `for update`, in either order, and writes both. " +
			"The server looks for a deadlock after a wait of 50 ms (deadlock_timeout); with its default of 1 s all but the limit and Keys stand still.",
		aim:       "with a key at least 0.85 of the limit.",
		isolation: pgx.ReadCommitted, transfer: lockBoth,
	},
	{
		name: "apart", title: "Without conflicts",
		work:  "The same SERIALIZABLE transactions, but each worker has two accounts of its own.",
		aim:   "no slower than plain pgxpool but for the check of commits, which `NoCheck` leaves out.",
		alone: true, isolation: pgx.Serializable, transfer: readModifyWrite,
	},
}

func selected(only string) (list []scenario) {
	for _, s := range scenarios {
		if strings.Contains(s.name, only) {
			list = append(list, s)
		}
	}
	return list
}

// accountsOf chooses the accounts of the next transaction of a worker, which is one of workers.
func (s scenario) accountsOf(r *rand.Rand, worker, workers int) (from, to int) {
	if s.alone {
		return accountID(2*worker, 2*workers), accountID(2*worker+1, 2*workers)
	}
	i := r.IntN(hotAccounts)
	j := (i + 1 + r.IntN(hotAccounts-1)) % hotAccounts
	return accountID(i, hotAccounts), accountID(j, hotAccounts)
}

// readModifyWrite is a transfer as careful programs have it: the new balances are worked out by the program, and the rows
// are written in one order, so that what happens is a serialization failure and never a deadlock.
func readModifyWrite(ctx context.Context, tx pgx.Tx, from, to int) error {
	return transfer(ctx, tx, "select balance from account where id = $1", min(from, to), max(from, to))
}

// lockBoth locks them in the order of the transfer.
func lockBoth(ctx context.Context, tx pgx.Tx, from, to int) error {
	return transfer(ctx, tx, "select balance from account where id = $1 for update", from, to)
}

func transfer(ctx context.Context, tx pgx.Tx, read string, from, to int) error {
	var a, b int64
	if err := tx.QueryRow(ctx, read, from).Scan(&a); err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, read, to).Scan(&b); err != nil {
		return err
	}
	const write = "update account set balance = $1 where id = $2"
	if _, err := tx.Exec(ctx, write, a-1, from); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, write, b+1, to)
	return err
}
