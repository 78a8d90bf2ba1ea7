//go:build ha && linux

package ha_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// TestNewConnectionThatAnswersNothingIsReplaced: a pooler takes a client in while it has no server for it, so that the first
// question of the library, who the server is, waits. When connect_timeout has passed nothing was sent that could have had an
// effect, and the caller has time left.
func TestNewConnectionThatAnswersNothingIsReplaced(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server := pgt.New(t, pgtest.Options{})
	require.NoError(t, server.Exec(ctx, "create table entry (id int not null)"))
	for _, api := range []string{"WithTx", "WithPgxTx"} {
		t.Run(api, func(t *testing.T) {
			leak.Check(t)
			proxy := pgt.Proxy(t, server.Addr())
			proxy.DropCancels(true)
			silence := proxy.OnMessage(func(m pgtest.Message) bool { return strings.Contains(m.SQL, "pg_control_system") }, pgtest.BlackHoleBefore())
			dsn := proxy.DSN("connect_timeout=1")
			runs := 0
			const insert = "insert into entry values (1)"
			if api == "WithTx" {
				db, err := retrypg.OpenDB(dsn)
				require.NoError(t, err)
				defer func() { _ = db.Close() }()
				require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
					runs++
					_, err := tx.ExecContext(ctx, insert)
					return err
				}))
			} else {
				pool, err := retrypg.NewPool(ctx, dsn+"&pool_max_conns=1")
				require.NoError(t, err)
				defer pool.Close()
				require.NoError(t, retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
					runs++
					_, err := tx.Exec(ctx, insert)
					return err
				}))
			}
			require.Equal(t, 1, silence.Fired())
			require.Equal(t, 1, runs)
		})
	}
}
