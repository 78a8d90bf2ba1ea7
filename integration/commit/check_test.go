package commit_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// TestAHookMayBeginATransactionOfItsOwn, with the context that it is given, while the verdict of another is told.
func TestAHookMayBeginATransactionOfItsOwn(t *testing.T) {
	s := newScene(t)
	leak.Check(t)
	var db *sql.DB
	hooked := 0
	db = openDB(t, s.dsn, retrypg.Hooks{CommitChecked: func(ctx context.Context, _ retrypg.CommitCheckInfo) {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Error(err)
			return
		}
		_, err = tx.ExecContext(ctx, insertItem, "hook's")
		if err != nil {
			t.Error(err)
		}
		if err := tx.Commit(); err != nil {
			t.Error(err)
		}
		hooked++
	}})
	db.SetMaxOpenConns(2)
	s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{}, insertOne("a")))
	require.Equal(t, []int{1, 1, 1}, []int{hooked, s.items("a"), s.items("hook's")})
}

// TestAHookOfConnectingMayUseAnotherDatabase, as one that reads a password there.
func TestAHookOfConnectingMayUseAnotherDatabase(t *testing.T) {
	s := newScene(t)
	secrets := openDB(t, s.dsn, retrypg.Hooks{})
	db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithBeforeConnect(func(ctx context.Context, _ *pgx.ConnConfig) error {
		tx, err := secrets.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "select 1"); err != nil {
			return err
		}
		return tx.Commit()
	}))
	require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, insertOne("a")))
	require.Equal(t, 1, s.items("a"))
}

// TestACommitThatIsLostWhenItsHandleIsClosedIsSettled: a program that shuts down wants to know.
func TestACommitThatIsLostWhenItsHandleIsClosedIsSettled(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	db := openDB(t, s.dsn, retrypg.Hooks{})
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(ctx, insertItem, "a")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.NoError(t, tx.Commit())
	require.Equal(t, 1, s.items("a"))

	pool := openPool(t, s.dsn, retrypg.Hooks{})
	closed := make(chan struct{})
	s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.NoError(t, retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		go func() {
			defer close(closed)
			pool.Close()
		}()
		for begun := false; !begun; { // Close
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			begun = errors.Is(pool.Ping(short), retrypg.ErrClosed)
			cancel()
		}
		_, err := tx.Exec(ctx, insertItem, "b")
		return err
	}))
	<-closed
	require.Equal(t, 1, s.items("b"))
}

// appPool is what programs make of a pool.
type appPool struct{ *retrypg.Pool }

// TestATypeAroundAPoolIsToldWhatATransactionWants.
func TestATypeAroundAPoolIsToldWhatATransactionWants(t *testing.T) {
	s := newScene(t)
	pool := appPool{openPool(t, s.dsn, retrypg.Hooks{})}
	ledger := retrypg.TxOptions{Commit: retrypg.Ledger}
	require.NoError(t, retrypg.WithPgxTx(t.Context(), pool, ledger, func(context.Context, pgx.Tx) error { return nil }))
	var n int
	require.NoError(t, s.admin.QueryRow(t.Context(), "select count(*) from public.retrypg_ledger").Scan(&n))
	require.Equal(t, 1, n)
}

// TestABusyCommitIsEndedInTimeForItsCaller: deferred triggers that last too long. Half of the time that is left is theirs,
// whether the context ends soon, or is cancelled meanwhile.
func TestABusyCommitIsEndedInTimeForItsCaller(t *testing.T) {
	s := newScene(t)
	_, err := s.admin.Exec(t.Context(), `
		create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(60); return null; end $$;
		create constraint trigger slow after insert on item deferrable initially deferred for each row execute function slow()`)
	require.NoError(t, err)
	for name, within := range map[string]func() (context.Context, context.CancelFunc){
		"a deadline that is near": func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), time.Second) },
		"cancelled": func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		},
	} {
		var told []retrypg.CommitCheckInfo
		db := openDB(t, s.dsn, retrypg.Hooks{CommitChecked: func(_ context.Context, i retrypg.CommitCheckInfo) { told = append(told, i) }})
		require.NoError(t, db.PingContext(t.Context()))
		rule := s.proxy.OnMessage(pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Client, pgtest.FIN))
		ctx, cancel := within()
		err := retrypg.WithTx(ctx, db, retrypg.TxOptions{MaxAttempts: 1}, insertOne("a"))
		cancel()
		rule.Remove()
		require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome, "%s: %v", name, err)
		require.Len(t, told, 1, name)
		require.True(t, told[0].Fenced, name)
		require.Zero(t, s.items("a"))
	}
}

// TestATransactionOfARoleThatAHookHasSetIsEndedToo: the login role sees what its processes do, another role does not.
func TestATransactionOfARoleThatAHookHasSetIsEndedToo(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	_, err := s.admin.Exec(ctx, `drop role if exists web; drop role if exists app; create role web login noinherit; create role app;
		grant app to web; grant all on item to app`)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := s.admin.Exec(context.Background(), "drop owned by app; drop role web; drop role app")
		require.NoError(t, err)
	})
	var told []retrypg.CommitCheckInfo
	db := openDB(t, withKey(s.dsn, "user", "web"), retrypg.Hooks{CommitChecked: func(_ context.Context, i retrypg.CommitCheckInfo) { told = append(told, i) }},
		retrypg.WithAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "set role app")
			return err
		}))
	require.NoError(t, db.PingContext(ctx))
	rule := s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.DeliverLate(pgtest.FIN))
	limited, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	require.NoError(t, retrypg.WithTx(limited, db, retrypg.TxOptions{}, insertOne("a")))
	rule.Release()
	require.True(t, told[0].Fenced)
	require.Equal(t, 1, s.items("a"))
	require.NoError(t, db.Close())
}

// TestAHostThatDoesNotAnswerDoesNotKeepACheckWaiting, be it the first one.
func TestAHostThatDoesNotAnswerDoesNotKeepACheckWaiting(t *testing.T) {
	s := newScene(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and nobody answers
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	cfg, err := pgx.ParseConfig(s.dsn)
	require.NoError(t, err)
	db := openDB(t, pgtest.DSN([]string{silent.Addr().String(), s.proxy.Addr()}, "dbname="+cfg.Database, "connect_timeout=5"), retrypg.Hooks{})
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), insertItem, "a")
	require.NoError(t, err)
	s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	began := time.Now()
	require.NoError(t, tx.Commit())
	require.Less(t, time.Since(began), 4*time.Second, "less than the time-out of the silent host")
	require.Equal(t, 1, s.items("a"))
}

// TestACheckThatWaitsForAPrimaryDoesNotKeepReadersWaiting: connections that a standby is good enough for are made.
func TestACheckThatWaitsForAPrimaryDoesNotKeepReadersWaiting(t *testing.T) {
	p := newPair(t, false)
	s := &scene{t: t, proxy: p.proxy}
	db := openDB(t, pgtest.DSN([]string{p.proxy.Addr(), p.standby.Addr()}), retrypg.Hooks{})
	db.SetMaxOpenConns(10)
	db.SetMaxIdleConns(0)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(ctx, insertItem, "a")
	require.NoError(t, err)
	s.outOfReach(pgtest.Reply("commit"))
	told := make(chan error, 1)
	go func() { told <- tx.Commit() }()
	require.NoError(t, p.primary.WaitUntil(ctx, "exists (select from item)"))
	for range 3 {
		var standby bool
		require.NoError(t, db.QueryRowContext(ctx, "select pg_is_in_recovery()").Scan(&standby))
		require.True(t, standby)
	}
	select {
	case err := <-told:
		t.Fatalf("the primary is out of reach, and yet: %v", err)
	default:
	}
	require.NoError(t, p.proxy.SetAccept(pgtest.AcceptForward))
	require.NoError(t, <-told)
}

// TestManyCommitsThatNeverArriveAreSettledInTime, each of which has to be ended on the server.
func TestManyCommitsThatNeverArriveAreSettledInTime(t *testing.T) {
	const n = 40
	for _, check := range checks[1:] {
		t.Run(check.String(), func(t *testing.T) {
			s := newScene(t)
			db := openDB(t, s.dsn, retrypg.Hooks{}, retrypg.WithCommitCheck(check))
			db.SetMaxOpenConns(n)
			require.NoError(t, retrypg.WithTx(t.Context(), db, retrypg.TxOptions{}, insertOne("w")))
			rule := s.proxy.OnMessages(n, pgtest.Sending("commit"), pgtest.DeliverLate(pgtest.FIN))
			var begun, told sync.WaitGroup
			begun.Add(n)
			commit := make(chan struct{})
			var notApplied, other atomic.Int32
			for range n {
				told.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), deadline)
					defer cancel()
					tx, err := db.BeginTx(ctx, nil)
					if err == nil {
						_, err = tx.ExecContext(ctx, insertItem, "x")
					}
					begun.Done()
					<-commit
					if err == nil {
						err = tx.Commit()
					}
					if retrypg.Classify(err).Outcome == retrypg.OutcomeRolledBack {
						notApplied.Add(1)
					} else {
						t.Log(err)
						other.Add(1)
					}
				})
			}
			begun.Wait()
			close(commit)
			told.Wait()
			rule.Release()
			require.Equal(t, []int32{n, 0}, []int32{notApplied.Load(), other.Load()})
			require.Zero(t, s.items("x"))
		})
	}
}
