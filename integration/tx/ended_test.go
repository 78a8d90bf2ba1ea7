package tx_test

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// plainTx begins a transaction without WithTx, on the stage's only connection.
var plainTx = map[string]func(s *stage, dsn string, opts ...retrypg.Option) work{
	"db.BeginTx": func(s *stage, dsn string, opts ...retrypg.Option) work {
		db, err := retrypg.OpenDB(dsn, opts...)
		require.NoError(s.t, err)
		s.t.Cleanup(func() { _ = db.Close() })
		tx, err := db.BeginTx(s.context(), nil)
		require.NoError(s.t, err)
		return sqlWork{tx}
	},
	"pool.BeginTx": func(s *stage, dsn string, opts ...retrypg.Option) work {
		tx, err := newPool(s, dsn, opts...).Begin(s.context())
		require.NoError(s.t, err)
		return pgxWork{tx}
	},
}

// newPool opens a pool of one connection.
func newPool(s *stage, dsn string, opts ...retrypg.Option) *retrypg.Pool {
	s.t.Helper()
	pool, err := retrypg.NewPool(s.context(), withSize(dsn, 1), opts...)
	require.NoError(s.t, err)
	s.t.Cleanup(pool.Close)
	return pool
}

// eachPlainTx runs test for every way to begin a transaction without WithTx.
func eachPlainTx(t *testing.T, test func(t *testing.T, s *stage, begin func(opts ...retrypg.Option) work)) {
	t.Helper()
	server := newShared(t)
	admin := newAdmin(t, server.DSN())
	for name, begin := range plainTx {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, server, admin, adapter{})
			test(t, s, func(opts ...retrypg.Option) work { return begin(s, s.dsn(), opts...) })
		})
	}
}

// eachPool runs test with a pool of one connection.
func eachPool(t *testing.T, test func(t *testing.T, s *stage, pool *retrypg.Pool)) {
	t.Helper()
	server := newShared(t)
	s := newStage(t, server, newAdmin(t, server.DSN()), adapter{})
	test(t, s, newPool(s, s.dsn()))
}

func TestCommitOfATransactionThatTextRolledBackIsAnError(t *testing.T) {
	for _, texts := range [][]string{
		{"rollback"},
		{"abort"},
		{"rollback; select 1"},
		{"rollback", "commit"},
		{"rollback; commit"},
		{"select 1/0", "commit"}, // the server answers ROLLBACK
	} {
		t.Run(strings.Join(texts, ", "), func(t *testing.T) {
			eachPlainTx(t, func(t *testing.T, s *stage, begin func(...retrypg.Option) work) {
				w := begin()
				require.NoError(t, insert(s.context(), w, "a"))
				for _, text := range texts {
					err := w.exec(s.context(), text)
					if text != "select 1/0" {
						require.NoError(t, err)
					}
				}
				require.ErrorIs(t, w.commit(s.context()), retrypg.ErrTxEnded)
				require.Zero(t, s.notes("a"))
			})
		})
	}
}

// TestCommitAfterACommitSentAsTextIsNil: scripts end with COMMIT, and what was asked for was done.
func TestCommitAfterACommitSentAsTextIsNil(t *testing.T) {
	for _, text := range []string{"commit", "end", "COMMIT AND NO CHAIN;", "insert into note (id) values ('b'); commit"} {
		t.Run(text, func(t *testing.T) {
			eachPlainTx(t, func(t *testing.T, s *stage, begin func(...retrypg.Option) work) {
				w := begin(retrypg.WithHooks(retrypg.Hooks{CommitUnknown: func(context.Context, *retrypg.CommitUnknownError) {
					t.Error("nothing is unknown")
				}}))
				require.NoError(t, insert(s.context(), w, "a"))
				require.NoError(t, w.exec(s.context(), text))
				require.NoError(t, w.commit(s.context()))
				require.Equal(t, 1, s.notes("a"))
			})
		})
	}
}

// TestNilOfCommitMeansThatTheTransactionIsThere: whatever the statements that ended it did.
func TestNilOfCommitMeansThatTheTransactionIsThere(t *testing.T) {
	for _, text := range []string{
		"commit; select 1", "commit; insert into note (id) values ('b')", "savepoint p; rollback to p; commit", "rollback; end",
	} {
		t.Run(text, func(t *testing.T) {
			eachPlainTx(t, func(t *testing.T, s *stage, begin func(...retrypg.Option) work) {
				w := begin()
				require.NoError(t, insert(s.context(), w, "a"))
				require.NoError(t, w.exec(s.context(), text))
				if err := w.commit(s.context()); err == nil {
					require.Equal(t, 1, s.notes("a"))
				} else {
					require.ErrorIs(t, err, retrypg.ErrTxEnded)
				}
			})
		})
	}
}

// TestTransactionThatTextCommittedIsNotRunAgainWhateverFollows: WithTx would apply it twice.
func TestTransactionThatTextCommittedIsNotRunAgainWhateverFollows(t *testing.T) {
	follow := map[string]func(s *stage, ctx context.Context, w work) error{
		"the connection is lost": func(s *stage, ctx context.Context, w work) error {
			err := w.exec(ctx, "select pg_terminate_backend(pg_backend_pid())")
			require.Error(s.t, err)
			return err
		},
		"the connection is lost and Rollback called": func(s *stage, ctx context.Context, w work) error {
			err := w.exec(ctx, "select pg_terminate_backend(pg_backend_pid())")
			require.Error(s.t, err)
			_ = w.rollback(ctx) // there is nothing that it could do
			return err
		},
		"Rollback and a conflict": func(s *stage, ctx context.Context, w work) error {
			_ = w.rollback(ctx) // of no effect
			return conflictOfAnother
		},
		"Rollback and a lost server": func(s *stage, ctx context.Context, w work) error {
			_ = w.rollback(ctx)
			return io.ErrUnexpectedEOF
		},
		"a conflict": func(s *stage, ctx context.Context, w work) error { return w.exec(ctx, conflict) },
	}
	for name, follow := range follow {
		t.Run(name, func(t *testing.T) {
			some(t, func(a adapter) bool { return a.status }, func(t *testing.T, s *stage) {
				db := s.open()
				runs := 0
				err := db.withTx(s.context(), retrypg.TxOptions{MaxAttempts: 3}, func(ctx context.Context, w work) error {
					runs++
					require.NoError(t, insert(ctx, w, "a"))
					require.NoError(t, w.exec(ctx, "commit"))
					return follow(s, ctx, w)
				})
				require.ErrorIs(t, err, retrypg.ErrTxEnded)
				require.NotErrorAs(t, err, new(*retrypg.ExhaustedError))
				require.Equal(t, 1, runs)
				require.Equal(t, 1, s.notes("a"))
			})
		})
	}
}

// TestTransactionWhoseTextCommitLostItsAnswerIsNotRunAgain: it is there, and the closure's error is a lost connection.
func TestTransactionWhoseTextCommitLostItsAnswerIsNotRunAgain(t *testing.T) {
	some(t, func(a adapter) bool { return a.status && !a.pinned }, func(t *testing.T, s *stage) {
		proxy, dsn := s.proxied()
		db := s.openDSN(dsn, 1)
		proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		runs := 0
		err := db.withTx(s.context(), retrypg.TxOptions{MaxAttempts: 3}, func(ctx context.Context, w work) error {
			runs++
			if err := insert(ctx, w, "run "+strconv.Itoa(runs)); err != nil {
				return err
			}
			return w.exec(ctx, "commit")
		})
		require.Error(t, err)
		require.Equal(t, 1, runs)
		require.Equal(t, "1", s.ask("select count(*) from note"))
	})
}

// conflictOfAnother is a conflict that did not happen on this transaction.
var conflictOfAnother error = &ownConflict{}

type ownConflict struct{}

func (*ownConflict) Error() string    { return "conflict" }
func (*ownConflict) SQLState() string { return "40001" }

// uses are all ways to use a transaction of a pool.
var uses = map[string]func(ctx context.Context, tx pgx.Tx) error{
	"Exec": func(ctx context.Context, tx pgx.Tx) error { return insert(ctx, pgxWork{tx}, "late") },
	"Query": func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "insert into note (id) values ('late') returning id")
		if err == nil {
			rows.Close()
			err = rows.Err()
		}
		return err
	},
	"QueryRow": func(ctx context.Context, tx pgx.Tx) error {
		var id string
		return tx.QueryRow(ctx, "insert into note (id) values ('late') returning id").Scan(&id)
	},
	"Prepare": func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Prepare(ctx, "late", "select 1")
		return err
	},
	"SendBatch": func(ctx context.Context, tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue("insert into note (id) values ('late')")
		return tx.SendBatch(ctx, &b).Close()
	},
	"CopyFrom": func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"note"}, []string{"id"}, pgx.CopyFromRows([][]any{{"late"}}))
		return err
	},
	"Begin": func(ctx context.Context, tx pgx.Tx) error {
		nested, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		return errors.Join(insert(ctx, pgxWork{nested}, "late"), nested.Commit(ctx))
	},
	"LargeObjects": func(ctx context.Context, tx pgx.Tx) error {
		lo := tx.LargeObjects()
		_, err := lo.Create(ctx, 0)
		return err
	},
	"Commit":   func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) },
	"Rollback": func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) },
}

// ends are the ways to end a transaction of a pool.
var ends = map[string]func(ctx context.Context, tx pgx.Tx) error{
	"Commit":   func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) },
	"Rollback": func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) },
	"text and Commit": func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "commit")
		return errors.Join(err, tx.Commit(ctx))
	},
	"text and Rollback": func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "rollback")
		return errors.Join(err, tx.Rollback(ctx))
	},
}

func TestTransactionOfAPoolIsClosedAfterItsEnd(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		for ending, end := range ends {
			for name, use := range uses {
				t.Run(name+" after "+ending, func(t *testing.T) {
					ctx := s.context()
					tx, err := pool.Begin(ctx)
					require.NoError(t, err)
					require.NoError(t, end(ctx, tx))
					require.ErrorIs(t, use(ctx, tx), pgx.ErrTxClosed)
					require.Zero(t, s.notes("late"))
				})
			}
		}
	})
}

// TestNestedTransactionAndLargeObjectsOfAnEndedOneAreClosed: they were made while it was open.
func TestNestedTransactionAndLargeObjectsOfAnEndedOneAreClosed(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		ctx := s.context()
		for ending, end := range ends {
			tx, err := pool.Begin(ctx)
			require.NoError(t, err)
			nested, err := tx.Begin(ctx)
			require.NoError(t, err)
			lo := tx.LargeObjects()
			require.NoError(t, end(ctx, tx))
			for name, use := range uses {
				require.ErrorIs(t, use(ctx, nested), pgx.ErrTxClosed, "%s after %s", name, ending)
			}
			_, err = lo.Create(ctx, 0)
			require.ErrorIs(t, err, pgx.ErrTxClosed, ending)
			require.Zero(t, s.notes("late"))
		}
	})
}

// TestEndedTransactionLeavesTheNextOwnerOfItsConnectionAlone: who begins next gets the same connection.
func TestEndedTransactionLeavesTheNextOwnerOfItsConnectionAlone(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		ctx := s.context()
		for ending, end := range ends {
			tx, err := pool.Begin(ctx)
			require.NoError(t, err)
			first := tx.Conn()
			require.NoError(t, end(ctx, tx))
			next, err := pool.Begin(ctx)
			require.NoError(t, err)
			require.Same(t, first, next.Conn(), "the pool has one connection")
			require.NoError(t, insert(ctx, pgxWork{next}, ending))
			for name, use := range uses {
				require.ErrorIs(t, use(ctx, tx), pgx.ErrTxClosed, "%s after %s", name, ending)
			}
			require.NoError(t, next.Commit(ctx))
			require.Equal(t, 1, s.notes(ending))
			require.Zero(t, s.notes("late"))
			require.Zero(t, pool.Stat().AcquiredConns())
		}
	})
}

// TestClosureThatRollsBackCannotGoOn: it would write outside of any transaction.
func TestClosureThatRollsBackCannotGoOn(t *testing.T) {
	eachPool(t, func(t *testing.T, s *stage, pool *retrypg.Pool) {
		runs := 0
		var late, nested error
		err := retrypg.WithPgxTx(s.context(), pool, retrypg.TxOptions{MaxAttempts: 3}, func(ctx context.Context, tx pgx.Tx) error {
			runs++
			require.NoError(t, tx.Rollback(ctx))
			late = insert(ctx, pgxWork{tx}, "late")
			nested = retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
				return insert(ctx, pgxWork{tx}, "late")
			})
			return late
		})
		require.ErrorIs(t, late, pgx.ErrTxClosed)
		require.ErrorIs(t, nested, pgx.ErrTxClosed)
		require.ErrorIs(t, err, pgx.ErrTxClosed)
		require.Equal(t, 1, runs)
		require.Zero(t, s.notes("late"))
	})
}

// TestContextThatOutlivesItsTransactionBeginsNothing: a call with it is nested in a transaction that is over.
func TestContextThatOutlivesItsTransactionBeginsNothing(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		db := s.open()
		var kept context.Context
		require.NoError(t, db.withTx(s.context(), retrypg.TxOptions{}, func(ctx context.Context, _ work) error {
			kept = ctx // as a closure should not
			return nil
		}))
		runs := 0
		err := db.withTx(kept, retrypg.TxOptions{}, func(ctx context.Context, w work) error {
			runs++
			return insert(ctx, w, "late")
		})
		require.Error(t, err)
		require.Zero(t, runs)
		require.Zero(t, s.notes("late"))
		s.usable(db, "b")
	})
}
