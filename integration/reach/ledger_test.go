package reach_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// ledger is a table with what writers were told of each entry: in the end the table is compared with that. It has no unique
// key, so that a write which was applied twice is seen.
type ledger struct {
	next atomic.Int64
	mu   sync.Mutex
	told map[int64]error
}

func newLedger(ctx context.Context, t *testing.T, c *pgtest.Cluster) *ledger {
	t.Helper()
	require.NoError(t, c.Exec(ctx, "create table entry (id bigint); grant select, insert on entry to public"))
	return &ledger{told: make(map[int64]error)}
}

func (l *ledger) note(id int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told[id] = err
}

// wrong is what the table has, and should not have after what was told.
type wrong struct {
	lost       []string // told ok, and not there
	duplicated []string // there more than once, or nobody's
	falsely    []string // told "not applied", and there
}

func (w wrong) count() int { return len(w.lost) + len(w.duplicated) + len(w.falsely) }

// audit compares the table with what was told. Of what is unknown it accepts either.
func (l *ledger) audit(ctx context.Context, t *testing.T, c *pgtest.Cluster) (w wrong) {
	t.Helper()
	conn, err := pgx.Connect(ctx, c.DSN())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, "select id, count(*)::int from entry group by id")
	require.NoError(t, err)
	there := make(map[int64]int)
	var id int64
	var n int
	_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error { there[id] = n; return nil })
	require.NoError(t, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, err := range l.told {
		n := there[id]
		delete(there, id)
		what := fmt.Sprintf("entry %d is there %d times, told: %v", id, n, err)
		switch {
		case n > 1:
			w.duplicated = append(w.duplicated, what)
		case err == nil && n == 0:
			w.lost = append(w.lost, what)
		case err != nil && n == 1 && notApplied(err):
			w.falsely = append(w.falsely, what)
		}
	}
	for id, n := range there {
		w.duplicated = append(w.duplicated, fmt.Sprintf("entry %d is there %d times, and nobody wrote it", id, n))
	}
	return w
}

func notApplied(err error) bool {
	switch retrypg.Classify(err).Outcome {
	case retrypg.OutcomeNotStarted, retrypg.OutcomeRolledBack:
		return true
	default:
		return false
	}
}
