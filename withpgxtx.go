package retrypg

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// PgxTxBeginner is a pool or a connection of pgx: *Pool, *pgxpool.Pool, *pgxpool.Conn, *pgx.Conn. A type of the user's
// that embeds one of them, or stands in for it in a test, is called as it is, with whatever its BeginTx adds.
type PgxTxBeginner interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
}

// WithPgxTx is WithTx for pgx: db is a pool of NewPool, a pool with ConfigurePool, any other pool, or a connection. All that
// is said of WithTx holds. On connections that were not dialled by us it is not known what was sent, so that more is asked of
// the server, and pgx's requests to cancel are not held back.
func WithPgxTx(ctx context.Context, db PgxTxBeginner, opts TxOptions, fn func(ctx context.Context, tx pgx.Tx) error) error {
	if fn == nil {
		return ErrNilFunc
	}
	if isNil(db) {
		return ErrNilDB
	}
	core, err := pgxCoreOf(ctx, db)
	if err != nil {
		return err
	}
	return core.transact(ctx, db, opts, beginPgx(core, db, opts, fn))
}

// WithPgxTxResult is WithPgxTx for a closure with a result, which is that of the attempt that committed. With an error
// the result is the zero value.
func WithPgxTxResult[T any](ctx context.Context, db PgxTxBeginner, opts TxOptions, fn func(ctx context.Context, tx pgx.Tx) (T, error)) (T, error) {
	var result, zero T
	var failed error
	if fn == nil {
		return zero, ErrNilFunc
	}
	err := WithPgxTx(ctx, db, opts, func(ctx context.Context, tx pgx.Tx) error {
		result, failed = fn(ctx, tx)
		return failed
	})
	if err == nil {
		err = resultOf(failed)
	}
	if err != nil {
		return zero, err
	}
	return result, nil
}

// pgxCoreOf returns the core of the pool behind db, or that of foreign databases.
func pgxCoreOf(ctx context.Context, db any) (*core, error) {
	switch db := db.(type) {
	case interface{ retrypgCore() *core }: // *Pool and what embeds it
		return db.retrypgCore(), nil
	case *pgxpool.Pool:
		return foreignPool(ctx, db)
	case *pgxpool.Conn:
		if l := linkOf(db.Conn().PgConn()); l != nil && l.core != nil {
			return l.core, nil
		}
	}
	return sharedForeignCore()
}

func beginPgx(c *core, db PgxTxBeginner, opts TxOptions, fn func(context.Context, pgx.Tx) error) begin {
	return func(ctx context.Context, scope *txScope) (transaction, error) {
		if outer, ok := scope.tx.(*pgxTx); ok {
			return &pgxNested{pgxTx: outer, fn: fn}, nil
		}
		o, err := pgxTxOptions(opts.Isolation, opts.ReadOnly)
		if err != nil {
			return nil, err
		}
		if opts.Deferrable {
			o.DeferrableMode = pgx.Deferrable
		}
		t := &pgxTx{core: c, fn: fn, wishes: opts.wishes()}
		t.wishes.locks, t.wishes.print = scope.locks, scope.print
		if err := t.begin(ctx, db, o); err != nil {
			return nil, err
		}
		return t, nil
	}
}
