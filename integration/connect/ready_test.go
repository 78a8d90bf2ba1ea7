package connect_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // plain pgx, for comparison
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
	"github.com/retrypg/retrypg/policy"
)

// TestProgressTellsEachChangeOfStateOnceAndInOrder: the server gets on by one step whenever a state was told.
func TestProgressTellsEachChangeOfStateOnceAndInOrder(t *testing.T) {
	d := newDatabase(t)
	waits := map[string]func(t *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error{
		"WaitReady": func(_ *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
			return retrypg.WaitReady(ctx, dsn, opts...)
		},
		"WaitReadyDB": func(t *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
			db, err := sql.Open("pgx", dsn)
			require.NoError(t, err)
			defer func() { _ = db.Close() }()
			return retrypg.WaitReadyDB(ctx, db, opts...)
		},
		"WaitReadyPool": func(t *testing.T, ctx context.Context, dsn string, opts ...retrypg.Option) error {
			pool, err := pgxpool.New(ctx, dsn)
			require.NoError(t, err)
			defer pool.Close()
			return retrypg.WaitReadyPool(ctx, pool, opts...)
		},
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
			var rule *pgtest.Rule
			say := func(code, message string) func() {
				return func() {
					if rule != nil {
						rule.Remove()
					}
					rule = p.OnMessages(1000, authentication, refusing(code, message))
				}
			}
			steps := []func(){
				func() { require.NoError(t, p.SetAccept(pgtest.AcceptClose)) },
				func() {
					say("57P03", "the database system is starting up")()
					require.NoError(t, p.SetAccept(pgtest.AcceptForward))
				},
				say("57P03", "the database system is in recovery mode"),
				say("53300", "sorry, too many clients already"),
				func() { rule.Remove() },
			}
			var events []retrypg.ReadyEvent
			var lines strings.Builder
			err := wait(t, within(t), through(p, d),
				retrypg.WithLogger(slog.New(slog.NewTextHandler(&lines, nil))),
				retrypg.WithReadyProgress(func(e retrypg.ReadyEvent) {
					if len(events) < len(steps) {
						steps[len(events)]()
					}
					events = append(events, e)
				}))
			require.NoError(t, err)
			var states []string
			for i, e := range events {
				states = append(states, e.State)
				last := i == len(events)-1
				require.Equal(t, last, e.Ready)
				require.Equal(t, last, e.Err == nil)
				require.Equal(t, last, e.Class == retrypg.Class{})
				if !last {
					harmless(t, e.Err)
				}
				require.Greater(t, e.Attempts, i, "an attempt shows one state")
				if i > 0 {
					require.Greater(t, e.Elapsed, events[i-1].Elapsed)
				}
			}
			require.Equal(t, []string{
				"connection refused", "connection lost", "the database system is starting up",
				"the database system is in recovery mode", "sorry, too many clients already", "ready",
			}, states)
			require.Equal(t, "57P03", events[2].Class.SQLState)
			for _, state := range states {
				require.Contains(t, lines.String(), state)
			}
			require.NotContains(t, lines.String(), password)
		})
	}
}

// TestWaitReadyWaitsForARealServer: from nothing, through its start, to the wanted role.
func TestWaitReadyWaitsForARealServer(t *testing.T) {
	primary := newCluster(t, pgtest.Options{})
	standby := pgt.Standby(t, primary, pgtest.Options{})
	ctx := within(t)
	require.NoError(t, standby.StopFast(ctx))
	steps := map[string]func() error{
		"connection refused": standby.StartAsync,
		"server is read-only": func() error {
			go func() { _ = standby.Promote(ctx) }() // the wait goes on meanwhile
			return nil
		},
	}
	var states []string
	require.NoError(t, retrypg.WaitReady(ctx, standby.DSN("target_session_attrs=read-write"), retrypg.WithReadyProgress(func(e retrypg.ReadyEvent) {
		states = append(states, e.State)
		if step, ok := steps[e.State]; ok {
			delete(steps, e.State)
			require.NoError(t, step())
		}
	})))
	require.Empty(t, steps, "%v", states)
	require.Equal(t, "ready", states[len(states)-1])
}

// TestWaitReadyWorksThroughOurOwnHandles: which wait by themselves.
func TestWaitReadyWorksThroughOurOwnHandles(t *testing.T) {
	d := newDatabase(t)
	for name, wait := range map[string]func(t *testing.T, dsn string, w *watch) error{
		"db": func(t *testing.T, dsn string, w *watch) error {
			return retrypg.WaitReadyDB(within(t), open(t, dsn, w.option()))
		},
		"pool": func(t *testing.T, dsn string, w *watch) error {
			return retrypg.WaitReadyPool(within(t), newPool(t, dsn, w.option()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
			w := newWatch()
			waiting := later(func() error { return wait(t, through(p, d), w) })
			require.NoError(t, w.waits(within(t), 3))
			require.NoError(t, p.SetAccept(pgtest.AcceptForward))
			require.NoError(t, done(t, waiting))
		})
	}
}

// TestWaitReadyAsksForAnAnswerToAStatement: a server that lets connections in and answers nothing is not ready.
func TestWaitReadyAsksForAnAnswerToAStatement(t *testing.T) {
	d, p := newProxied(t)
	cut := p.OnMessages(2, pgtest.Sending("-- ping"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.NoError(t, retrypg.WaitReady(within(t), through(p, d)))
	require.Equal(t, 2, cut.Fired())
}

func TestWaitReadyEndsWithItsDeadlineAndTellsTheState(t *testing.T) {
	d, p := newProxied(t)
	defer answering("57P03", "the database system is starting up")(p)()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := retrypg.WaitReady(ctx, through(p, d))
	e := exhausted(t, err)
	require.Equal(t, policy.StopDeadline, e.Reason)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "not ready")
	require.ErrorContains(t, err, "starting up")
}

func TestWaitReadyRefusesBadInput(t *testing.T) {
	leak.Check(t)
	ctx := within(t)
	require.ErrorIs(t, retrypg.WaitReadyDB(ctx, nil), retrypg.ErrNilDB)
	require.ErrorIs(t, retrypg.WaitReadyDB(ctx, (*sql.DB)(nil)), retrypg.ErrNilDB)
	require.ErrorIs(t, retrypg.WaitReadyPool(ctx, nil), retrypg.ErrNilDB)
	require.ErrorIs(t, retrypg.WaitReadyPool(ctx, (*pgx.Conn)(nil)), retrypg.ErrNilDB)
	for _, dsn := range []string{"postgres://x:" + password + "@h/d?retry_max_atempts=1", "postgres://x:" + password + "@h:port/d"} {
		err := retrypg.WaitReady(ctx, dsn)
		harmless(t, err)
		var wrong *retrypg.DSNError
		require.True(t, errors.As(err, &wrong), "%v", err)
	}
	harmless(t, retrypg.WaitReady(ctx, "postgres://x@h/d", retrypg.WithConnectMaxElapsed(-time.Second)))

	db, err := sql.Open("pgx", "postgres://x@127.0.0.1:1/d")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	err = retrypg.WaitReadyDB(ctx, db)
	require.ErrorContains(t, err, "database is closed")
	require.NoError(t, ctx.Err(), "a closed handle was waited for")
}
