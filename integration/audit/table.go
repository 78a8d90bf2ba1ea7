package audit

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg"
)

// A table of entries that every user may write to, its name, and the statement that adds an entry to it.
const (
	Schema = "create table entry (id text not null); grant select, insert on entry to public"
	Table  = "entry"
	Insert = "insert into entry values ($1)"
)

// ExecTx runs one statement in a transaction of WithTx.
func ExecTx(ctx context.Context, db retrypg.TxBeginner, opts retrypg.TxOptions, statement string, args ...any) error {
	return retrypg.WithTx(ctx, db, opts, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
}

// ExecPgxTx is ExecTx over pgx.
func ExecPgxTx(ctx context.Context, db retrypg.PgxTxBeginner, opts retrypg.TxOptions, statement string, args ...any) error {
	return retrypg.WithPgxTx(ctx, db, opts, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, statement, args...)
		return err
	})
}
