package commit_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// execution executes a statement in a transaction.
type execution func(ctx context.Context, sql string, args ...any) error

// transactions runs closures in transactions.
type transactions func(ctx context.Context, opts retrypg.TxOptions, closure func(context.Context, execution) error) error

func overSQL(db *sql.DB) transactions {
	return func(ctx context.Context, opts retrypg.TxOptions, closure func(context.Context, execution) error) error {
		return retrypg.WithTx(ctx, db, opts, func(ctx context.Context, tx *sql.Tx) error {
			return closure(ctx, func(ctx context.Context, sql string, args ...any) error {
				_, err := tx.ExecContext(ctx, sql, args...)
				return err
			})
		})
	}
}

func overPgx(pool retrypg.PgxTxBeginner) transactions {
	return func(ctx context.Context, opts retrypg.TxOptions, closure func(context.Context, execution) error) error {
		return retrypg.WithPgxTx(ctx, pool, opts, func(ctx context.Context, tx pgx.Tx) error {
			return closure(ctx, func(ctx context.Context, sql string, args ...any) error {
				_, err := tx.Exec(ctx, sql, args...)
				return err
			})
		})
	}
}

// lastWay is a way to run transactions whose last statement is marked.
type lastWay struct {
	name string
	open func(t *testing.T, dsn string, hooks retrypg.Hooks, opts ...retrypg.Option) transactions
}

var lastWays = []lastWay{
	{"WithTx", func(t *testing.T, dsn string, hooks retrypg.Hooks, opts ...retrypg.Option) transactions {
		return overSQL(openDB(t, dsn, hooks, opts...))
	}},
	{"WithPgxTx", func(t *testing.T, dsn string, hooks retrypg.Hooks, opts ...retrypg.Option) transactions {
		return overPgx(openPool(t, dsn, hooks, opts...))
	}},
	{"WithPgxTx, ConfigurePool", func(t *testing.T, dsn string, hooks retrypg.Hooks, opts ...retrypg.Option) transactions {
		t.Helper()
		cfg, err := pgxpool.ParseConfig(dsn)
		require.NoError(t, err)
		cfg.MaxConns = 1
		require.NoError(t, retrypg.ConfigurePool(cfg, append(opts, retrypg.WithHooks(hooks), retrypg.WithoutBudget())...))
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		return overPgx(pool)
	}},
}

// protocols are the ways in which pgx sends a statement.
var protocols = []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"}

// itemLast inserts an item with the last statement of a transaction.
func itemLast(id string) func(context.Context, execution) error {
	return func(ctx context.Context, exec execution) error {
		if err := exec(ctx, "select"); err != nil {
			return err
		}
		return exec(retrypg.LastStatement(ctx), insertItem, id)
	}
}

// TestNothingIsLostDuplicatedOrToldWrongWhereverACommitIsCutThatGoesWithAStatement, in each of the places where others are.
func TestNothingIsLostDuplicatedOrToldWrongWhereverACommitIsCutThatGoesWithAStatement(t *testing.T) {
	pgt.Shared(t) // its cluster outlives the test
	leak.Check(t)
	var total tally
	t.Run("cuts", func(t *testing.T) {
		for _, l := range lastWays {
			for _, protocol := range []string{"cache_statement", "simple_protocol"} {
				t.Run(l.name+", "+protocol, func(t *testing.T) {
					t.Parallel()
					s := newScene(t)
					w := way{l.name, true, func(t *testing.T, dsn string, hooks retrypg.Hooks) func(context.Context, string) error {
						run := l.open(t, withKey(dsn, "default_query_exec_mode", protocol), hooks, retrypg.WithLazyBegin(true))
						return func(ctx context.Context, id string) error { return run(ctx, retrypg.TxOptions{}, itemLast(id)) }
					}}
					for _, c := range cuts {
						if c.times = min(c.times, 4); c.after != nil {
							c.times = 1 // these wait
						}
						s.cut(w, retrypg.XID, c, &total)
					}
				})
			}
		}
	})
	t.Logf("COMMITs cut: %d before the server had them, %d afterwards, %d in that moment; applied %d, not applied %d, unknown 0",
		total.before.Load(), total.after.Load(), total.either.Load(), total.applied.Load(), total.notApplied.Load())
}

// TestEveryMessageOfTheFlightOfALastStatementMayBeCut: before it, inside and after it, in both directions.
func TestEveryMessageOfTheFlightOfALastStatementMayBeCut(t *testing.T) {
	pgt.Shared(t) // its cluster outlives the test
	leak.Check(t)
	actions := map[string]pgtest.Action{
		"before": pgtest.CutBefore(pgtest.Both, pgtest.FIN), "inside": pgtest.CutInside(pgtest.Both, pgtest.FIN), "after": pgtest.CutAfter(pgtest.Both, pgtest.FIN),
	}
	t.Run("cuts", func(t *testing.T) {
		for _, l := range lastWays[:2] {
			for _, protocol := range protocols {
				t.Run(l.name+", "+protocol, func(t *testing.T) {
					t.Parallel()
					s := newScene(t)
					run := l.open(t, withKey(s.dsn, "default_query_exec_mode", protocol), retrypg.Hooks{
						CommitUnknown: func(_ context.Context, e *retrypg.CommitUnknownError) { t.Error(e) },
					}, retrypg.WithLazyBegin(true))
					met := 0
					for _, dir := range []pgtest.Direction{pgtest.FromClient, pgtest.FromServer} {
						for place, action := range actions {
							for k := int64(1); ; k++ {
								id, fired := fmt.Sprint(dir, place, k), false
								err := run(t.Context(), retrypg.TxOptions{}, func(ctx context.Context, exec execution) error {
									if err := exec(ctx, "select"); err != nil || retrypg.AttemptFromContext(ctx) > 1 {
										return errors.Join(err, exec(retrypg.LastStatement(ctx), insertItem, id))
									}
									var n atomic.Int64
									rule := s.proxy.OnMessage(func(m pgtest.Message) bool { return m.Dir == dir && n.Add(1) == k }, action)
									err := exec(retrypg.LastStatement(ctx), insertItem, id)
									rule.Remove()
									fired = n.Load() >= k
									return err
								})
								require.NoError(t, err, id)
								require.Equal(t, 1, s.items(id), id)
								s.tidy()
								if !fired {
									break
								}
								met++
							}
						}
					}
					require.GreaterOrEqual(t, met, 3*(5+5), "the flight has that many messages")
				})
			}
		}
	})
}

// flights counts the writes on connections: pgx writes a flight at once.
func flights(n *atomic.Int64) retrypg.Option {
	return retrypg.WithConnConfig(func(cfg *pgx.ConnConfig) error {
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &counting{conn, n}, nil
		}
		return nil
	})
}

type counting struct {
	net.Conn
	n *atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(p)
}

// TestALastStatementSavesARoundTripInEveryMode of pgx, and a transaction that only reads takes a single one.
func TestALastStatementSavesARoundTripInEveryMode(t *testing.T) {
	for _, l := range lastWays {
		for _, protocol := range protocols {
			for _, lazy := range []bool{true, false} {
				t.Run(fmt.Sprint(l.name, ", ", protocol, ", lazy ", lazy), func(t *testing.T) {
					s := newScene(t)
					var n atomic.Int64
					run := l.open(t, withKey(s.dsn, "default_query_exec_mode", protocol), retrypg.Hooks{}, retrypg.WithLazyBegin(lazy), flights(&n))
					took := func(id string, opts retrypg.TxOptions, closure func(context.Context, execution) error) int64 {
						require.NoError(t, run(t.Context(), opts, closure), id)
						before := n.Load()
						require.NoError(t, run(t.Context(), opts, closure), id)
						return n.Load() - before
					}
					two := took("two", retrypg.TxOptions{}, itemLast("two"))
					require.Equal(t, 2, s.items("two"))
					reads := took("reads", retrypg.TxOptions{ReadOnly: true}, func(ctx context.Context, exec execution) error {
						return exec(retrypg.LastStatement(ctx), "select $1::text", "a")
					})
					unmarked := took("unmarked", retrypg.TxOptions{}, func(ctx context.Context, exec execution) error {
						return errors.Join(exec(ctx, "select"), exec(ctx, insertItem, "unmarked"))
					})
					if !lazy {
						require.Equal(t, unmarked, two)
						return
					}
					prepares := int64(0)
					if protocol == "describe_exec" {
						prepares = 1
					}
					require.Equal(t, []int64{2 + prepares, 1 + prepares, 3 + prepares}, []int64{two, reads, unmarked})
				})
			}
		}
	}
}

func TestAConstraintThatFailsAtACommitWithAStatementIsItsErrorAndNothingIsThere(t *testing.T) {
	for _, l := range lastWays {
		for _, protocol := range protocols {
			t.Run(l.name+", "+protocol, func(t *testing.T) {
				s := newScene(t)
				_, err := s.admin.Exec(t.Context(), "alter table item add constraint once unique (id) deferrable initially deferred; insert into item values ('a')")
				require.NoError(t, err)
				run, runs := l.open(t, withKey(s.dsn, "default_query_exec_mode", protocol), retrypg.Hooks{}, retrypg.WithLazyBegin(true)), 0
				err = run(t.Context(), retrypg.TxOptions{}, func(ctx context.Context, exec execution) error {
					runs++
					err := itemLast("a")(ctx, exec)
					require.Equal(t, "23505", retrypg.SQLState(err))
					return err
				})
				require.Equal(t, "23505", retrypg.SQLState(err))
				require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
				require.Equal(t, []int{1, 1}, []int{runs, s.items("a")})
				require.NoError(t, run(t.Context(), retrypg.TxOptions{}, itemLast("b")), "the connection is as good as before")
			})
		}
	}
}

// TestASerializationFailureAtACommitWithAStatementIsRunAgain: two transactions read what the other one writes.
func TestASerializationFailureAtACommitWithAStatementIsRunAgain(t *testing.T) {
	for _, l := range lastWays {
		for _, protocol := range protocols {
			t.Run(l.name+", "+protocol, func(t *testing.T) {
				s := newScene(t)
				run, runs := l.open(t, withKey(s.dsn, "default_query_exec_mode", protocol), retrypg.Hooks{}, retrypg.WithLazyBegin(true)), 0
				require.NoError(t, run(t.Context(), retrypg.TxOptions{Isolation: sql.LevelSerializable}, func(ctx context.Context, exec execution) error {
					runs++
					if err := exec(ctx, "select count(*) from item"); err != nil {
						return err
					}
					if err := exec(ctx, insertItem, "a"); err != nil {
						return err
					}
					if runs == 1 {
						other, err := s.admin.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable})
						require.NoError(t, err)
						_, err = other.Exec(ctx, "insert into item select count(*) from item")
						require.NoError(t, err)
						require.NoError(t, other.Commit(ctx))
					}
					return exec(retrypg.LastStatement(ctx), "select 1")
				}))
				require.Equal(t, []int{2, 1}, []int{runs, s.items("a")})
			})
		}
	}
}

// TestAContextOrABackendThatEndsAtAnyMomentDoesNotHideWhatBecameOfALastStatement: of each item somebody is told what is true.
func TestAContextOrABackendThatEndsAtAnyMomentDoesNotHideWhatBecameOfALastStatement(t *testing.T) {
	pgt.Shared(t) // its cluster outlives the test
	leak.Check(t)
	const times = 120
	t.Run("moments", func(t *testing.T) {
		for _, l := range lastWays {
			for _, protocol := range []string{"cache_statement", "simple_protocol"} {
				for _, kills := range []bool{false, true} {
					t.Run(fmt.Sprint(l.name, ", ", protocol, ", kills ", kills), func(t *testing.T) {
						t.Parallel()
						s := newScene(t)
						run := l.open(t, withKey(withKey(s.dsn, "default_query_exec_mode", protocol), "application_name", "last"), retrypg.Hooks{}, retrypg.WithLazyBegin(true))
						applied := 0
						for i := range times {
							id, mayEnd := fmt.Sprint("item ", i), make(chan struct{}, 100)
							ctx, cancel := context.WithCancel(t.Context())
							after := time.Duration(rand.Int64N(int64(2 * time.Millisecond)))
							var wg sync.WaitGroup
							wg.Go(func() {
								<-mayEnd
								time.Sleep(after)
								if !kills {
									cancel()
									return
								}
								_, err := s.admin.Exec(t.Context(), "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'last' and datname = current_database()")
								require.NoError(t, err)
							})
							err := run(ctx, retrypg.TxOptions{}, func(ctx context.Context, exec execution) error {
								mayEnd <- struct{}{}
								return itemLast(id)(ctx, exec)
							})
							mayEnd <- struct{}{}
							wg.Wait()
							cancel()
							n := s.items(id)
							require.NotErrorIs(t, err, retrypg.ErrCommitUnknown)
							if err == nil {
								require.Equal(t, 1, n, id)
								applied++
							} else {
								require.False(t, kills, "%v", err)
								require.Zero(t, n, "%s: %v", id, err)
							}
							s.tidy()
						}
						t.Logf("applied %d of %d", applied, times)
					})
				}
			}
		}
	})
}

// TestALastStatementWaitsForItsStandbyAlthoughItsContextEnds: like COMMIT it is not cancelled.
func TestALastStatementWaitsForItsStandbyAlthoughItsContextEnds(t *testing.T) {
	server := pgt.New(t, pgtest.Options{})
	require.NoError(t, server.Exec(t.Context(), itemTable))
	require.NoError(t, server.Set(t.Context(), "synchronous_standby_names", "nobody"))
	db := openDB(t, server.DSN()+"&application_name=waiting", retrypg.Hooks{}, retrypg.WithLazyBegin(true))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	done := 0
	go func() {
		for { // those that come before the server has heard of its setting do not wait
			err := overSQL(db)(ctx, retrypg.TxOptions{}, itemLast("a"))
			if err != nil {
				result <- err
				return
			}
			done++
		}
	}()
	const waits = "exists (select from pg_stat_activity where application_name = 'waiting' and wait_event = 'SyncRep')"
	require.NoError(t, server.WaitUntil(t.Context(), waits))
	cancel()
	err := <-result
	require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
	require.NoError(t, server.WaitUntil(t.Context(), waits), "nobody has ended the wait")
	require.NoError(t, server.Set(t.Context(), "synchronous_standby_names", ""))
	var unknown *retrypg.CommitUnknownError
	require.ErrorAs(t, err, &unknown)
	committed, err := retrypg.ResolveCommit(t.Context(), db, unknown)
	require.NoError(t, err)
	require.True(t, committed)
	require.Equal(t, done+1, itemA(t, server))
}
