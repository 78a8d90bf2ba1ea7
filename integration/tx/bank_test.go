package tx_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
)

// bankBalance is what each account has at the beginning.
const bankBalance = 1000

// bankSchema has no unique constraint on the transfers: one that is applied twice must be seen, not prevented.
const bankSchema = `create table balance (id int primary key, amount int not null);
	create table transfer (id text not null);`

// bank runs transfers and writes down what was told about each.
type bank struct {
	*audit.Record
	accounts int // the fewer, the more often transfers meet
}

func newBank(accounts int) *bank { return &bank{audit.New(audit.OfTransaction), accounts} }

// transfer moves money between two accounts, in the order in which they come up, so that deadlocks happen.
func (b *bank) transfer(ctx context.Context, a adapter, db database, id string) error {
	opts := retrypg.TxOptions{Name: "transfer"}
	if !a.ours {
		// All that is not retrypg's own shares one retry budget, which other tests need. A wrong verdict shows all the
		// same: as a transfer that is there although it was said not to be.
		opts.MaxAttempts = 1
	}
	from := rand.IntN(b.accounts)
	to := (from + 1 + rand.IntN(b.accounts-1)) % b.accounts
	err := db.withTx(ctx, opts, func(ctx context.Context, w work) error {
		if err := w.exec(ctx, "update balance set amount = amount - 1 where id = $1", from); err != nil {
			return err
		}
		if err := w.exec(ctx, "insert into transfer values ($1)", id); err != nil {
			return err
		}
		return w.exec(ctx, "update balance set amount = amount + 1 where id = $1", to)
	})
	b.Note(id, err)
	return err
}

// open makes the accounts.
func (b *bank) open(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	_, err := conn.Exec(t.Context(), fmt.Sprintf("%s insert into balance select i, %d from generate_series(0, %d) i",
		bankSchema, bankBalance, b.accounts-1))
	require.NoError(t, err)
}

// audit compares what was told with what is there.
func (b *bank) audit(t *testing.T, conn *pgx.Conn) (unknown int) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	there, err := audit.Count(ctx, conn, "transfer")
	require.NoError(t, err)
	report := b.Compare(there)
	report.Check(t)
	var sum int
	require.NoError(t, conn.QueryRow(ctx, "select sum(amount) from balance").Scan(&sum))
	require.Equal(t, b.accounts*bankBalance, sum, "money was made or lost")
	return len(report.Of(audit.Unknown))
}
