package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// auditTimeout bounds the comparison with the ledger.
const auditTimeout = 30 * time.Second

// connect opens a connection to a server itself, past the proxies.
func connect(ctx context.Context, c *pgtest.Cluster, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, c.DSN("dbname="+database, "target_session_attrs=any"))
}

// audit compares what each program told with the ledger of the server that is left.
func audit(ctx context.Context, st *stage, all programs, opts Options) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	// No transaction may be on its way any more.
	if err := all.close(); err != nil {
		return nil, err
	}
	for _, l := range st.lanes {
		l.first.CutAll(pgtest.Both, pgtest.FIN)
		l.second.CutAll(pgtest.Both, pgtest.FIN)
	}
	if err := st.standby.WaitUntil(ctx, "not exists (select from pg_stat_activity where datname like 'bank\\_%')"); err != nil {
		return nil, err
	}
	report := &Report{
		PostgreSQL: st.primary.Installation().Version, Seconds: opts.Duration.Seconds(),
		Workers: opts.Workers, Seed: opts.Seed,
	}
	for i, p := range all {
		row, err := auditProgram(ctx, st, st.lanes[i], p)
		if err != nil {
			return nil, fmt.Errorf("read the ledger of %s: %w", p.name, err)
		}
		report.Programs = append(report.Programs, row)
	}
	report.Kept = len(report.Check()) == 0
	return report, nil
}

func auditProgram(ctx context.Context, st *stage, l *lane, p *program) (row Row, err error) {
	conn, err := connect(ctx, st.standby, l.database)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	times, err := pairs(ctx, conn, "select id, count(*) from ledger group by id")
	if err != nil {
		return row, err
	}
	balances, err := pairs(ctx, conn, "select id, balance from accounts")
	if err != nil {
		return row, err
	}
	row = p.tally.compare(times, balances)
	row.Name, row.Killed, row.CutBefore, row.CutAfter = p.name, l.killed, l.cutBefore, l.cutAfter
	row.Balanced, err = balanced(ctx, conn)
	return row, err
}

// pairs returns the rows of a query with two numbers as a map.
func pairs(ctx context.Context, conn *pgx.Conn, query string) (map[int64]int64, error) {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	all := make(map[int64]int64)
	var key, value int64
	_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
		all[key] = value
		return nil
	})
	return all, err
}

// balanced reports whether no money was made or lost: the sum of all balances is what it was, and each account has what
// the ledger says.
func balanced(ctx context.Context, conn *pgx.Conn) (ok bool, err error) {
	err = conn.QueryRow(ctx, `with moves as (
	select debit as account, -amount as amount from ledger union all select credit, amount from ledger
), sums as (
	select account, sum(amount) as moved from moves group by account
)
select sum(balance) = count(*) * $1 and bool_and(balance = $1 + coalesce(moved, 0))
from accounts left join sums on account = accounts.id`, int64(initialBalance)).Scan(&ok)
	return ok, err
}

// compare makes the program's row of the report from how often each transfer is in the ledger, and the accounts.
func (t *tally) compare(times, balances map[int64]int64) Row {
	t.mu.Lock()
	defer t.mu.Unlock()
	row := Row{
		Asked: t.counts.asked, OK: t.counts.ok, Errors: t.counts.errors, Unknown: t.counts.unknown,
		LongestGap: t.gap.Seconds(), GapIn: t.gapIn,
	}
	if t.lastErr != nil {
		row.LastError = t.lastErr.Error()
	}
	believed := make(map[int64]int64, len(balances)) // what the accounts have by what was told
	for account := range balances {
		believed[account] = initialBalance
	}
	for id, told := range t.told {
		n := times[int64(id)]
		if n > 1 {
			row.Duplicated++
		}
		switch {
		case told == toldOK && n == 0:
			row.Lost++
		case told == toldError && n > 0:
			row.FalseErrors++
		case told == toldUnknown && n > 0:
			row.UnknownApplied++
		}
		// Whoever is told "unknown" looks.
		if told == toldOK || told == toldUnknown && n > 0 {
			asked := t.asked[id]
			believed[int64(asked.from)] -= asked.amount
			believed[int64(asked.to)] += asked.amount
		}
	}
	for account, balance := range balances {
		if balance != believed[account] {
			row.AccountsOff++
		}
	}
	return row
}
