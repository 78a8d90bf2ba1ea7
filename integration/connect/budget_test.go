package connect_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/policy"
)

// losing runs a transaction whose connection is lost in every attempt, and returns how many attempts there were.
func losing(t *testing.T, p *pgtest.Proxy, db *sql.DB) (runs int, err error) {
	t.Helper()
	defer p.OnMessages(1000, pgtest.Sending("select 'lost'"), pgtest.CutBefore(pgtest.Both, pgtest.FIN)).Remove()
	err = retrypg.WithTx(within(t), db, retrypg.TxOptions{MaxAttempts: 6}, func(ctx context.Context, tx *sql.Tx) error {
		runs++
		_, err := tx.ExecContext(ctx, "select 'lost'")
		return err
	})
	require.Error(t, err)
	return runs, err
}

func TestBudgetBoundsTheAttemptsOfALostConnection(t *testing.T) {
	d, p := newProxied(t)
	budget := policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: 2, NoMinimum: true}))
	db := open(t, through(p, d), retrypg.WithBudget(budget))
	runs, err := losing(t, p, db)
	require.Equal(t, 3, runs, "the first attempt, and the two that the budget had")
	e := exhausted(t, err)
	require.Equal(t, policy.StopBudget, e.Reason)
	require.ErrorIs(t, err, policy.ErrBudgetExhausted)

	// An empty budget stops re-runs, not work.
	require.NoError(t, db.PingContext(within(t)))
	runs, err = losing(t, p, db)
	require.Equal(t, 1, runs)
	require.ErrorIs(t, err, policy.ErrBudgetExhausted)
}

func TestWithoutABudgetTheAttemptsAreTheBound(t *testing.T) {
	d, p := newProxied(t)
	empty := policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: 1, NoMinimum: true}))
	require.True(t, empty.Withdraw())
	for name, db := range map[string]*sql.DB{
		"key":    open(t, through(p, d, "retry_budget=off")),
		"option": open(t, through(p, d), retrypg.WithBudget(empty), retrypg.WithoutBudget()),
	} {
		runs, err := losing(t, p, db)
		require.Equal(t, 6, runs, name)
		require.Equal(t, policy.StopMaxAttempts, exhausted(t, err).Reason, name)
	}
}

// TestConflictsAreNotChargedToTheBudget: they say nothing about the health of the server.
func TestConflictsAreNotChargedToTheBudget(t *testing.T) {
	d, p := newProxied(t)
	empty := policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: 1, NoMinimum: true}))
	require.True(t, empty.Withdraw())
	db := open(t, through(p, d), retrypg.WithBudget(empty))
	require.NoError(t, retrypg.WithTx(within(t), db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
		if retrypg.AttemptFromContext(ctx) > 3 {
			return nil
		}
		_, err := tx.ExecContext(ctx, "do $$ begin raise exception 'conflict' using errcode = '40001'; end $$")
		return err
	}))
}

// TestBudgetIsSharedBetweenHandles: one budget for all that a process asks of one cluster.
func TestBudgetIsSharedBetweenHandles(t *testing.T) {
	d, p := newProxied(t)
	budget := policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: 3, NoMinimum: true}))
	one, other := open(t, through(p, d), retrypg.WithBudget(budget)), open(t, through(p, d), retrypg.WithBudget(budget))
	runs, err := losing(t, p, one)
	require.ErrorIs(t, err, policy.ErrBudgetExhausted)
	require.Equal(t, 4, runs)
	runs, err = losing(t, p, other)
	require.ErrorIs(t, err, policy.ErrBudgetExhausted)
	require.Equal(t, 1, runs)
}

// TestConnectingIsNotChargedToTheBudget: one caller asks, at a bounded rate, whatever the number of those who wait.
func TestConnectingIsNotChargedToTheBudget(t *testing.T) {
	d, p := newProxied(t)
	empty := policy.Must(policy.NewBudget(policy.BudgetOptions{Burst: 1, NoMinimum: true}))
	require.True(t, empty.Withdraw())
	w := newWatch()
	db := open(t, through(p, d), retrypg.WithBudget(empty), w.option())
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	waiting := later(func() error { return db.PingContext(within(t)) })
	require.NoError(t, w.waits(within(t), 4))
	require.NoError(t, p.SetAccept(pgtest.AcceptForward))
	require.NoError(t, done(t, waiting))
}
