package soak_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
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

// verdicts of what a caller was told.
const (
	ok         = "ok"
	notApplied = "not applied"
	unknown    = "unknown"
)

// history is what was told about each write, and what was read.
type history struct {
	mu     sync.Mutex
	told   map[string]string // by the id of a transfer, or of an append
	why    []string          // of errors
	reads  map[int][]string  // of a list: the longest read, joined
	counts map[string]int
	checks map[string]int // by outcome
	wrong  []string
	more   chan struct{} // closed, and replaced, when another write was told ok
}

func newHistory() *history {
	return &history{told: map[string]string{}, reads: map[int][]string{}, counts: map[string]int{}, checks: map[string]int{}, more: make(chan struct{})}
}

// note notes what was told. allowed says whether an unknown is one that the contract allows.
func (h *history) note(id string, err error, allowed func(*retrypg.CommitUnknownError) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	word := ok
	var lost *retrypg.CommitUnknownError
	switch {
	case err == nil:
		close(h.more)
		h.more = make(chan struct{})
	case errors.As(err, &lost):
		word = unknown
		h.why = append(h.why, id+": "+err.Error())
		if !allowed(lost) {
			h.wrong = append(h.wrong, id+" is unknown for no reason that the contract has: "+err.Error())
		}
	default:
		word = notApplied
		h.why = append(h.why, id+": "+err.Error())
	}
	h.told[id] = word
	h.counts[word]++
}

func (h *history) check(outcome string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks[outcome]++
}

// applied returns how many writes were told ok, and what is closed when there is another one.
func (h *history) applied() (n int, more <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[ok], h.more
}

// read notes what a transaction that committed has read of a list.
func (h *history) read(key int, values []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads[key] = append(h.reads[key], strings.Join(values, ","))
}

// audit compares what was told with what is there.
func (h *history) audit(ctx context.Context, t *testing.T, conn *pgx.Conn) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	there := map[string]int{}
	final := map[int][]string{}
	count := func(sql string, key bool) {
		rows, err := conn.Query(ctx, sql)
		require.NoError(t, err)
		var k int
		var id string
		_, err = pgx.ForEachRow(rows, []any{&k, &id}, func() error {
			there[id]++
			if key {
				final[k] = append(final[k], id)
			}
			return nil
		})
		require.NoError(t, err)
	}
	count("select 0, id from transfer", false)
	count("select key, val from list order by key, pos", true)
	unknownThere := 0
	for id, word := range h.told {
		switch n := there[id]; {
		case n > 1:
			h.wrong = append(h.wrong, fmt.Sprintf("%s was told %s and is there %d times", id, word, n))
		case word == ok && n == 0:
			h.wrong = append(h.wrong, id+" was told ok and is not there")
		case word == notApplied && n > 0:
			h.wrong = append(h.wrong, id+" was told not applied and is there")
		case word == unknown:
			unknownThere += n
		}
		delete(there, id)
	}
	for id := range there {
		h.wrong = append(h.wrong, id+" is there and nobody was told")
	}
	for key, reads := range h.reads {
		whole := strings.Join(final[key], ",")
		for _, read := range reads {
			if !strings.HasPrefix(whole+",", read+",") && read != "" {
				h.wrong = append(h.wrong, fmt.Sprintf("list %d: what was read is no prefix of what it became: %s", key, read))
			}
		}
	}
	var sum int
	require.NoError(t, conn.QueryRow(ctx, "select sum(amount) from account").Scan(&sum))
	if sum != accounts*balance {
		h.wrong = append(h.wrong, fmt.Sprintf("the accounts hold %d in place of %d", sum, accounts*balance))
	}
	t.Logf("told: %d ok, %d not applied, %d unknown (of which %d are there)", h.counts[ok], h.counts[notApplied], h.counts[unknown], unknownThere)
	if len(h.wrong) > 0 {
		for _, why := range h.why[:min(len(h.why), 50)] {
			t.Log(why)
		}
		slices.Sort(h.wrong)
		t.Errorf("%d things are not as told:\n%s", len(h.wrong), strings.Join(h.wrong[:min(len(h.wrong), 30)], "\n"))
	}
}
