package connect_test

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
)

// writers are the ways to write an entry.
func writers(db *sql.DB, pool *retrypg.Pool) map[string]func(ctx context.Context, id string) error {
	return map[string]func(ctx context.Context, id string) error{
		"WithTx": func(ctx context.Context, id string) error {
			return audit.ExecTx(ctx, db, retrypg.TxOptions{}, audit.Insert, id)
		},
		"WithPgxTx": func(ctx context.Context, id string) error {
			return audit.ExecPgxTx(ctx, pool, retrypg.TxOptions{}, audit.Insert, id)
		},
		"db.Exec": func(ctx context.Context, id string) error {
			_, err := db.ExecContext(ctx, audit.Insert, id)
			return err
		},
		"db.Exec without arguments": func(ctx context.Context, id string) error {
			_, err := db.ExecContext(ctx, fmt.Sprintf("insert into entry values ('%s')", id))
			return err
		},
		"pool.Exec": func(ctx context.Context, id string) error {
			_, err := pool.Exec(ctx, audit.Insert, id)
			return err
		},
	}
}
