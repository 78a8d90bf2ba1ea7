package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// The table is large, so that accounts are found over its index, as in any table of that kind: a sequential scan would make
// SERIALIZABLE lock the whole relation. The hot accounts are on pages of the heap and of the index that they share with none
// of the others, and the pages have room for the next version of a row.
const (
	accounts     = 200_000
	hotAccounts  = 8
	firstBalance = 1_000_000
)

// hotAccount returns the id of one of n accounts that are far from each other.
func accountID(i, n int) int { return 1 + i*(accounts/n) }

// server is the database of one run.
type server struct {
	*pgtest.Cluster
	version string
}

func startServer(ctx context.Context, fsync bool) (*server, error) {
	c, err := pgtest.Start(ctx, pgtest.Options{Fsync: fsync, Settings: map[string]string{
		"max_connections":  "1000",
		"shared_buffers":   "256MB",
		"deadlock_timeout": "50ms", // as tuned for a load like this one; with the default of 1 s a deadlock costs twenty times as much
		"max_wal_size":     "4GB",
	}})
	if err != nil {
		return nil, err
	}
	for _, text := range []string{
		"create table account (id int primary key, balance bigint not null) with (fillfactor = 50)",
		fmt.Sprintf("insert into account select i, %d from generate_series(1, %d) i", firstBalance, accounts),
		"vacuum analyze account",
	} {
		if err := c.Exec(ctx, text); err != nil {
			return nil, errors.Join(fmt.Errorf("make the table: %w", err), c.Close())
		}
	}
	return &server{Cluster: c, version: fmt.Sprint(c.Installation().Version)}, nil
}

// audit compares the sum of all balances with what it was: money is moved and must not be made.
func (s *server) audit(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var sum int64
	if err := conn.QueryRow(ctx, "select sum(balance)::bigint from account").Scan(&sum); err != nil {
		return fmt.Errorf("add the balances: %w", err)
	}
	if sum != accounts*firstBalance {
		return fmt.Errorf("the balances add up to %d, not %d: a transfer was applied twice or by half", sum, accounts*firstBalance)
	}
	return nil
}
