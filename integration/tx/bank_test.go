package tx_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// What a caller of WithTx was told about a transfer.
type told uint8

const (
	toldApplied told = iota
	toldNotApplied
	toldUnknown
)

// bankBalance is what each account has at the beginning.
const bankBalance = 1000

// bankSchema has no unique constraint on the transfers: one that is applied twice must be seen, not prevented.
const bankSchema = `create table balance (id int primary key, amount int not null);
	create table transfer (id text not null);`

// bank runs transfers and writes down what was told about each.
type bank struct {
	accounts int // the fewer, the more often transfers meet

	mu      sync.Mutex // guards the fields below
	told    map[string]told
	errors  []error
	applied int
	target  int           // number of applied transfers at which reached is closed
	reached chan struct{} // nil while nobody waits
}

func newBank(accounts int) *bank { return &bank{accounts: accounts, told: make(map[string]told)} }

func (b *bank) note(id string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.told[id] = toldApplied
		b.applied++
		if b.reached != nil && b.applied >= b.target {
			close(b.reached)
			b.reached = nil
		}
		return
	case errors.Is(err, retrypg.ErrCommitUnknown):
		b.told[id] = toldUnknown
	default:
		b.told[id] = toldNotApplied
	}
	b.errors = append(b.errors, fmt.Errorf("%s: %w", id, err))
}

// more returns a channel that is closed when n more transfers were applied. One caller at a time.
func (b *bank) more(n int) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.target, b.reached = b.applied+n, make(chan struct{})
	return b.reached
}

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
	b.note(id, err)
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
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx := context.WithoutCancel(t.Context())
	rows, err := conn.Query(ctx, "select id, count(*)::int from transfer group by id")
	require.NoError(t, err)
	there := make(map[string]int)
	var id string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error { there[id] = n; return nil })
	require.NoError(t, err)

	var wrong []string
	count := map[told]int{}
	unknownApplied := 0
	for id, told := range b.told {
		count[told]++
		switch n := there[id]; {
		case n > 1:
			wrong = append(wrong, fmt.Sprintf("%s was applied %d times", id, n))
		case told == toldApplied && n == 0:
			wrong = append(wrong, id+" was lost")
		case told == toldNotApplied && n > 0:
			wrong = append(wrong, id+" was applied, and said not to be")
		case told == toldUnknown:
			unknownApplied += n
		}
		delete(there, id)
	}
	t.Logf("%d transfers: %d applied, %d not applied, %d unknown (of which %d are there)",
		len(b.told), count[toldApplied], count[toldNotApplied], count[toldUnknown], unknownApplied)
	if len(wrong) > 0 {
		for _, err := range b.errors {
			t.Log(err)
		}
		t.Errorf("%d transfers are not as told:\n%s", len(wrong), strings.Join(wrong, "\n"))
	}
	require.Empty(t, there, "nobody has asked for these transfers")
	var sum int
	require.NoError(t, conn.QueryRow(ctx, "select sum(amount) from balance").Scan(&sum))
	require.Equal(t, b.accounts*bankBalance, sum, "money was made or lost")
	return count[toldUnknown]
}
