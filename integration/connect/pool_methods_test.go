package connect_test

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg"
)

// poolMethods are all ways to use a pool, each of which needs one connection, gives it back, and works on a table
// "item (id int)".
var poolMethods = map[string]func(ctx context.Context, pool *retrypg.Pool) error{
	"Ping": func(ctx context.Context, pool *retrypg.Pool) error { return pool.Ping(ctx) },
	"Acquire": func(ctx context.Context, pool *retrypg.Pool) error {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		return conn.Ping(ctx)
	},
	"AcquireFunc": func(ctx context.Context, pool *retrypg.Pool) error {
		return pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error { return conn.Ping(ctx) })
	},
	"Exec": func(ctx context.Context, pool *retrypg.Pool) error {
		_, err := pool.Exec(ctx, "insert into item values ($1)", 1)
		return err
	},
	"Query": func(ctx context.Context, pool *retrypg.Pool) error {
		rows, err := pool.Query(ctx, "select generate_series(1, 3)")
		if err != nil {
			return err
		}
		_, err = pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	},
	"QueryRow": func(ctx context.Context, pool *retrypg.Pool) error {
		var n int
		return pool.QueryRow(ctx, "select count(*) from item").Scan(&n)
	},
	"SendBatch": func(ctx context.Context, pool *retrypg.Pool) error {
		var b pgx.Batch
		b.Queue("insert into item values ($1)", 1)
		b.Queue("select count(*) from item")
		results := pool.SendBatch(ctx, &b)
		_, err := results.Exec()
		return errors.Join(err, results.Close())
	},
	"CopyFrom": func(ctx context.Context, pool *retrypg.Pool) error {
		_, err := pool.CopyFrom(ctx, pgx.Identifier{"item"}, []string{"id"}, pgx.CopyFromRows([][]any{{1}, {2}}))
		return err
	},
	"Begin": func(ctx context.Context, pool *retrypg.Pool) error {
		tx, err := pool.Begin(ctx)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "insert into item values (1)")
		return errors.Join(err, tx.Commit(ctx))
	},
	"BeginTx": func(ctx context.Context, pool *retrypg.Pool) error {
		tx, err := pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly})
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "select count(*) from item")
		return errors.Join(err, tx.Rollback(ctx))
	},
	"WithPgxTx": func(ctx context.Context, pool *retrypg.Pool) error {
		return retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into item values (1)")
			return err
		})
	},
}
