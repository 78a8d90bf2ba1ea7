package commit_test

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// begins records the BEGIN messages that pass.
type begins struct {
	mu   sync.Mutex
	seen []string
}

func (b *begins) watch(p *pgtest.Proxy) {
	match := pgtest.Sending("begin")
	p.OnMessages(1000, func(m pgtest.Message) bool {
		if match(m) {
			b.mu.Lock()
			b.seen = append(b.seen, m.SQL)
			b.mu.Unlock()
		}
		return false
	}, pgtest.Pause())
}

func (b *begins) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := b.seen
	b.seen = nil
	return seen
}

func TestReadOnlyTransactionCarriesNoQuestionAndALostCommitOfItIsNotApplied(t *testing.T) {
	for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
		t.Run(check.String(), func(t *testing.T) {
			s := newScene(t)
			var b begins
			b.watch(s.proxy)
			db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check), retrypg.WithLazyBegin(false))
			ctx := t.Context()
			tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
			require.NoError(t, err)
			require.Equal(t, []string{"begin read only"}, b.take())
			s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
			err = tx.Commit()
			require.Equal(t, retrypg.Class{Retry: retrypg.RetryReconnect, Outcome: retrypg.OutcomeRolledBack, Reason: "commit not applied"}, retrypg.Classify(err))

			s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
			runs := 0
			n, err := retrypg.WithTxResult(ctx, db, retrypg.TxOptions{ReadOnly: true}, func(ctx context.Context, tx *sql.Tx) (n int, err error) {
				runs++
				err = tx.QueryRowContext(ctx, "select 42").Scan(&n)
				return n, err
			})
			require.NoError(t, err)
			require.Equal(t, 42, n)
			require.Equal(t, 2, runs)
			require.Equal(t, []string{"begin read only", "begin read only"}, b.take())
		})
	}
}

// TestReadOnlyTransactionThatWasMadeReadWriteIsNotTakenForOne: PostgreSQL allows that before the first query.
func TestReadOnlyTransactionThatWasMadeReadWriteIsNotTakenForOne(t *testing.T) {
	s := newScene(t)
	db := openDB(t, s.dsn, retrypg.Hooks{})
	for _, text := range []string{
		"set transaction read write", "/* now */ SET LOCAL transaction_read_only = off", "begin read write", "start transaction read write",
		"reset transaction_read_only",
	} {
		tx, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), text)
		if retrypg.SQLState(err) == "0A000" { // PostgreSQL 16 and later refuse RESET
			require.NoError(t, tx.Rollback())
			continue
		}
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), insertItem, text)
		require.NoError(t, err)
		s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		require.ErrorIs(t, tx.Commit(), retrypg.ErrCommitUnknown, text)
		require.Equal(t, 1, s.items(text), text)
	}
}

func TestBeginOfAReadWriteTransactionAndItsQuestionAreOneMessage(t *testing.T) {
	s := newScene(t)
	var b begins
	b.watch(s.proxy)
	ctx := t.Context()
	for _, tc := range []struct {
		check retrypg.CommitCheck
		want  string
	}{
		{retrypg.XID, "begin isolation level read committed; select pg_catalog.pg_current_xact_id() as x, pg_catalog.current_setting('transaction_isolation') as i, pg_catalog.pg_backend_pid() as p"},
		{retrypg.NoCheck, "begin isolation level read committed"},
		{retrypg.Ledger, `begin isolation level read committed; insert into "public"."retrypg_ledger" (keep, token) values (3600000000, '`},
	} {
		for name, begin := range map[string]func() error{
			"database/sql": func() error {
				tx, err := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(tc.check), retrypg.WithLazyBegin(false)).
					BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
				if err == nil {
					err = tx.Commit()
				}
				return err
			},
			"pgx": func() error {
				pool := openPool(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(tc.check), retrypg.WithLazyBegin(false))
				tx, err := pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
				if err == nil {
					err = tx.Commit(ctx)
				}
				return err
			},
		} {
			require.NoError(t, begin(), name)
			seen := b.take()
			last := seen[len(seen)-1] // the first one with a ledger finds no table
			require.True(t, strings.HasPrefix(last, tc.want), "%s %s: %s", name, tc.check, last)
			if tc.check != retrypg.Ledger {
				require.Len(t, seen, 1)
				require.Equal(t, tc.want, last)
			}
		}
	}
}

// TestTextThatSwitchesTransactionsIsNeverToldWrong: what is asked about is then not what COMMIT was sent for.
func TestTextThatSwitchesTransactionsIsNeverToldWrong(t *testing.T) {
	for name, texts := range map[string][]string{
		"commit and begin in one text":   {"commit; begin; insert into item values ('second')"},
		"rollback and begin in one text": {"rollback; begin; insert into item values ('second')"},
		"commit and chain":               {"commit and chain", "insert into item values ('second')"},
		"rollback and chain":             {"/* a comment */ ROLLBACK AND CHAIN", "insert into item values ('second')"},
		"commit, begin in two texts":     {"commit", "begin", "insert into item values ('second')"},
	} {
		for _, applied := range []bool{true, false} {
			for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
				for _, overPgx := range []bool{true, false} {
					t.Run(name, func(t *testing.T) {
						s := newScene(t)
						ctx := t.Context()
						exec, commit := s.begin(overPgx, check)
						exec("insert into item values ('first')")
						for _, text := range texts {
							exec(text)
						}
						if applied {
							s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
						} else {
							s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
						}
						err := commit(ctx)
						require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
						require.ErrorContains(t, err, "may have ended it and begun another")
						require.Equal(t, applied, s.items("second") == 1)
					})
				}
			}
		}
	}
}

// TestBatchThatSwitchesTransactionsIsNeverToldWrong: its texts come one by one, and are sent together.
func TestBatchThatSwitchesTransactionsIsNeverToldWrong(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	pool := openPool(t, s.dsn, retrypg.Hooks{})
	tx, err := pool.Begin(ctx)
	require.NoError(t, err)
	b := &pgx.Batch{}
	for _, text := range []string{"insert into item values ('first')", "commit", "begin", "insert into item values ('second')"} {
		b.Queue(text)
	}
	require.NoError(t, tx.SendBatch(ctx, b).Close())
	s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.ErrorIs(t, tx.Commit(ctx), retrypg.ErrCommitUnknown)
	require.Equal(t, []int{1, 0}, []int{s.items("first"), s.items("second")})
}

// TestTransactionThatIsReadOnlyByDefaultNeedsNoToken, and could not write one.
func TestTransactionThatIsReadOnlyByDefaultNeedsNoToken(t *testing.T) {
	s := newScene(t)
	db := openDB(t, withKey(s.dsn, "default_transaction_read_only", "on"), retrypg.Hooks{}, retrypg.WithCommitCheck(retrypg.Ledger))
	_, err := s.admin.Exec(t.Context(), `create table public.retrypg_ledger (begun bigint not null default 0, keep bigint not null, token uuid not null, primary key (begun, token))`)
	require.NoError(t, err)
	for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelSerializable} {
		s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		runs := 0
		require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{Isolation: level}, func(ctx context.Context, tx *sql.Tx) error {
			runs++
			return tx.QueryRowContext(ctx, "select 1").Scan(new(int))
		}))
		require.Equal(t, 2, runs, level)
	}
}

// begin begins a transaction over database/sql or pgx.
func (s *scene) begin(overPgx bool, check retrypg.CommitCheck) (exec func(string), commit func(context.Context) error) {
	s.t.Helper()
	ctx := s.t.Context()
	if overPgx {
		tx, err := openPool(s.t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check)).Begin(ctx)
		require.NoError(s.t, err)
		return func(sql string) {
			_, err := tx.Exec(ctx, sql)
			require.NoError(s.t, err)
		}, tx.Commit
	}
	tx, err := openDB(s.t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check)).BeginTx(ctx, nil)
	require.NoError(s.t, err)
	return func(sql string) {
		_, err := tx.ExecContext(ctx, sql)
		require.NoError(s.t, err)
	}, func(context.Context) error { return tx.Commit() }
}
