package soak_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// statements is what the load needs of a transaction.
type statements interface {
	exec(ctx context.Context, query string, args ...any) error
	values(ctx context.Context, query string, args ...any) ([]string, error)
}

// runner runs a transaction. again: it is run again until it commits.
type runner struct {
	name string
	run  func(ctx context.Context, serializable bool, fn func(context.Context, statements) error) error
}

// runners open the ways to run a transaction over one handle of each kind.
func runners(t *testing.T, dsn string, opts ...retrypg.Option) []runner {
	t.Helper()
	opts = append(opts, retrypg.WithoutBudget(), retrypg.WithMaxAttempts(1000))
	db, err := retrypg.OpenDB(dsn, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(6)
	db.SetMaxIdleConns(6)
	pool, err := retrypg.NewPool(t.Context(), dsn+"&pool_max_conns=6", opts...)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return []runner{
		{"WithTx", func(ctx context.Context, serializable bool, fn func(context.Context, statements) error) error {
			return retrypg.WithTx(ctx, db, retrypg.TxOptions{Isolation: isolation(serializable)}, func(ctx context.Context, tx *sql.Tx) error {
				return fn(ctx, sqlStatements{tx})
			})
		}},
		{"WithPgxTx", func(ctx context.Context, serializable bool, fn func(context.Context, statements) error) error {
			return retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{Isolation: isolation(serializable)}, func(ctx context.Context, tx pgx.Tx) error {
				return fn(ctx, pgxStatements{tx})
			})
		}},
		{"Commit", func(ctx context.Context, serializable bool, fn func(context.Context, statements) error) error {
			tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: isolation(serializable)})
			if err != nil {
				return err
			}
			if err := fn(ctx, sqlStatements{tx}); err != nil {
				_ = tx.Rollback() // the error of the statement says why
				return err
			}
			return tx.Commit()
		}},
	}
}

func isolation(serializable bool) sql.IsolationLevel {
	if serializable {
		return sql.LevelSerializable
	}
	return sql.LevelDefault
}

type sqlStatements struct{ tx *sql.Tx }

func (s sqlStatements) exec(ctx context.Context, query string, args ...any) error {
	_, err := s.tx.ExecContext(ctx, query, args...)
	return err
}

func (s sqlStatements) values(ctx context.Context, query string, args ...any) (values []string, err error) {
	rows, err := s.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, rows.Err()
}

type pgxStatements struct{ tx pgx.Tx }

func (s pgxStatements) exec(ctx context.Context, query string, args ...any) error {
	_, err := s.tx.Exec(ctx, query, args...)
	return err
}

func (s pgxStatements) values(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := s.tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// transfer moves money between two accounts that rnd chooses, in the order in which they come up, so that deadlocks happen.
func transfer(ctx context.Context, r runner, rnd *rand.Rand, id string) error {
	from := rnd.IntN(accounts)
	to := (from + 1 + rnd.IntN(accounts-1)) % accounts
	return r.run(ctx, false, func(ctx context.Context, s statements) error {
		if err := s.exec(ctx, "update account set amount = amount - 1 where id = $1", from); err != nil {
			return err
		}
		if err := s.exec(ctx, "insert into transfer values ($1)", id); err != nil {
			return err
		}
		return s.exec(ctx, "update account set amount = amount + 1 where id = $1", to)
	})
}

// appendTo reads a list as a whole and appends to it.
func appendTo(ctx context.Context, r runner, rnd *rand.Rand, id string, h *history) error {
	key := rnd.IntN(lists)
	var read []string
	err := r.run(ctx, true, func(ctx context.Context, s statements) (err error) {
		if read, err = s.values(ctx, "select val from list where key = $1 order by pos", key); err != nil {
			return err
		}
		return s.exec(ctx, "insert into list (key, val) values ($1, $2)", key, id)
	})
	if err == nil {
		h.read(key, read)
	}
	return err
}

// work writes until stop, and notes what it is told.
func work(ctx context.Context, stop <-chan struct{}, r runner, seed uint64, name string, h *history) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		default:
		}
		id := fmt.Sprintf("%s-%s-%d", name, r.name, i)
		if rnd.IntN(4) > 0 {
			h.Note(id, transfer(ctx, r, rnd, id))
		} else {
			h.Note(id, appendTo(ctx, r, rnd, id, h))
		}
	}
}
