package soak_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
)

const (
	accounts = 40
	balance  = 1000
	lists    = 8
)

// schema has no unique constraint on what is written: what is applied twice must be seen, not prevented.
const schema = `
	create table account (id int primary key, amount int not null);
	create table transfer (id text not null);
	create table list (key int not null, pos bigint generated always as identity, val text not null);
	create index on list (key);`

// history is what was told about each write, by the id of a transfer or of an append, and what was read.
type history struct {
	*audit.Record
	mu     sync.Mutex
	reads  map[int][]string // of a list, joined
	checks map[string]int   // by outcome
}

func newHistory() *history {
	return &history{Record: audit.New(audit.OfTransaction), reads: map[int][]string{}, checks: map[string]int{}}
}

func (h *history) check(outcome string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks[outcome]++
}

// read notes what a transaction that committed has read of a list.
func (h *history) read(key int, values []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads[key] = append(h.reads[key], strings.Join(values, ","))
}

// audit compares what was told with what is there. allowed says whether an unknown is one that the contract allows.
func (h *history) audit(ctx context.Context, t *testing.T, conn *pgx.Conn, allowed func(*retrypg.CommitUnknownError) bool) *audit.Report {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	there, err := audit.Count(ctx, conn, "(select id from transfer union all select val from list) as written")
	require.NoError(t, err)
	report := h.Compare(there)
	report.Check(t)
	var wrong []string
	for _, e := range report.Of(audit.Unknown) {
		var lost *retrypg.CommitUnknownError
		require.ErrorAs(t, e.Err, &lost)
		if !allowed(lost) {
			wrong = append(wrong, e.ID+" is unknown for no reason that the contract has: "+e.Err.Error())
		}
	}
	final := map[int][]string{}
	rows, err := conn.Query(ctx, "select key, val from list order by key, pos")
	require.NoError(t, err)
	var key int
	var val string
	_, err = pgx.ForEachRow(rows, []any{&key, &val}, func() error { final[key] = append(final[key], val); return nil })
	require.NoError(t, err)
	for key, reads := range h.reads {
		whole := strings.Join(final[key], ",")
		for _, read := range reads {
			if !strings.HasPrefix(whole+",", read+",") && read != "" {
				wrong = append(wrong, fmt.Sprintf("list %d: what was read is no prefix of what it became: %s", key, read))
			}
		}
	}
	var sum int
	require.NoError(t, conn.QueryRow(ctx, "select sum(amount) from account").Scan(&sum))
	if sum != accounts*balance {
		wrong = append(wrong, fmt.Sprintf("the accounts hold %d in place of %d", sum, accounts*balance))
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		t.Errorf("%d things are not as they should be:\n%s", len(wrong), strings.Join(wrong[:min(len(wrong), 30)], "\n"))
	}
	return report
}
