package driver_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

type rower interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// backend returns the process id of the backend that answers.
func backend(s *scene, on rower) (pid int) {
	s.t.Helper()
	require.NoError(s.t, on.QueryRowContext(s.context(), "select pg_backend_pid()").Scan(&pid))
	return pid
}

func TestPinnedConnectionStaysTheSame(t *testing.T) {
	s := newScene(t, newServer(t))
	conn := s.pinned(s.open(ours))
	pid := backend(s, conn)
	_, err := conn.ExecContext(s.context(), "create temporary table mine (n int)")
	require.NoError(t, err)
	tx, err := conn.BeginTx(s.context(), nil)
	require.NoError(t, err)
	require.Equal(t, pid, backend(s, tx))
	_, err = tx.ExecContext(s.context(), "insert into mine values (1)")
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	var n int
	require.NoError(t, conn.QueryRowContext(s.context(), "select n from mine").Scan(&n))
	require.Equal(t, pid, backend(s, conn))
}

func TestConnectionWithALeftOverTransactionIsNotReused(t *testing.T) {
	server := newServer(t)
	for name, statement := range map[string]string{"open": insertRow, "aborted": "select 1/0"} {
		for _, d := range drivers {
			t.Run(name+"/"+d, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				db := s.open(d)
				db.SetMaxOpenConns(1)
				conn, err := db.Conn(s.context())
				require.NoError(t, err)
				pid := backend(s, conn)
				_, err = conn.ExecContext(s.context(), "begin")
				require.NoError(t, err)
				_, _ = conn.ExecContext(s.context(), statement)
				require.NoError(t, conn.Close())
				require.NotEqual(t, pid, backend(s, db))
				s.wait("not exists (select from pg_stat_activity where " + s.mine() + " and state like 'idle in transaction%')")
				require.Zero(t, s.rows())
			})
		}
	}
}

func TestRollbackAfterTheContextEndedKeepsTheConnection(t *testing.T) {
	server := newServer(t)
	t.Run("cancelled while idle", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		db := s.open(ours)
		db.SetMaxOpenConns(1)
		ctx, cancel := context.WithCancel(s.context())
		tx, err := db.BeginTx(ctx, nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(ctx, insertRow)
		require.NoError(t, err)
		pid := backend(s, tx)
		cancel()
		_ = tx.Rollback() // database/sql may have done it already
		require.Equal(t, pid, backend(s, db))
		require.Zero(t, s.rows())
	})
	t.Run("deadline passed while idle", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		db := s.open(ours)
		db.SetMaxOpenConns(1)
		ctx := newExpiring(s.context())
		tx, err := db.BeginTx(ctx, nil)
		require.NoError(t, err)
		pid := backend(s, tx)
		ctx.expire()
		require.Equal(t, pid, backend(s, db)) // waits until database/sql has rolled back
		require.ErrorIs(t, tx.Commit(), sql.ErrTxDone)
	})
}

// Cancelling closes the connection, because that is how pgx is cancelled; nothing else is to suffer from it.
func TestCancelledStatementLeavesNothingBroken(t *testing.T) {
	server := newServer(t)
	for _, d := range drivers {
		for name, text := range map[string]string{"Exec": "select pg_sleep(300)", "writes": "insert into t select 1 from pg_sleep(300)"} {
			t.Run(d+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				db := s.open(d)
				db.SetMaxOpenConns(1)
				s.warm(db)
				ctx, cancel := context.WithCancel(s.context())
				done := make(chan error, 1)
				go func() {
					_, err := db.ExecContext(ctx, text)
					done <- err
				}()
				s.wait("exists (select from pg_stat_activity where " + s.mine() + " and wait_event = 'PgSleep')")
				cancel()
				require.ErrorIs(t, <-done, context.Canceled)
				_, err := db.ExecContext(s.context(), insertRow)
				require.NoError(t, err)
				require.Equal(t, 1, db.Stats().OpenConnections)
				s.wait("not exists (select from pg_stat_activity where " + s.mine() + " and wait_event = 'PgSleep')")
				require.Equal(t, 1, s.rows())
			})
		}
	}
}

func TestOptionsOfTransactionsReachTheServer(t *testing.T) {
	server := newServer(t)
	for name, tc := range map[string]struct {
		opts      *sql.TxOptions
		isolation string
		readOnly  string
	}{
		"none":            {nil, "read committed", "off"},
		"serializable":    {&sql.TxOptions{Isolation: sql.LevelSerializable}, "serializable", "off"},
		"repeatable read": {&sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, "repeatable read", "on"},
		"snapshot":        {&sql.TxOptions{Isolation: sql.LevelSnapshot}, "repeatable read", "off"},
		"uncommitted":     {&sql.TxOptions{Isolation: sql.LevelReadUncommitted}, "read uncommitted", "off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			tx, err := s.open(ours).BeginTx(s.context(), tc.opts)
			require.NoError(t, err)
			defer func() { _ = tx.Rollback() }()
			require.Equal(t, tc.isolation, shown(s, tx, "transaction_isolation"))
			require.Equal(t, tc.readOnly, shown(s, tx, "transaction_read_only"))
			require.Equal(t, "off", shown(s, tx, "transaction_deferrable"))
		})
	}
	t.Run("deferrable", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		opts := retrypg.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true, Deferrable: true}
		require.NoError(t, retrypg.WithTx(s.context(), s.open(ours), opts, func(_ context.Context, tx *sql.Tx) error {
			require.Equal(t, "on", shown(s, tx, "transaction_deferrable"))
			require.Equal(t, "on", shown(s, tx, "transaction_read_only"))
			return nil
		}))
	})
}

func shown(s *scene, on rower, setting string) (value string) {
	s.t.Helper()
	require.NoError(s.t, on.QueryRowContext(s.context(), "show "+setting).Scan(&value))
	return value
}

func TestStatementWhileRowsAreOpenIsABusyConnection(t *testing.T) {
	server := newServer(t)
	for name, send := range map[string]func(ctx context.Context, tx *sql.Tx) error{
		"Exec": func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, insertRow)
			return err
		},
		"Query": func(ctx context.Context, tx *sql.Tx) error { return readAll(tx.QueryContext(ctx, "select 1")) },
		"Prepare": func(ctx context.Context, tx *sql.Tx) error {
			stmt, err := tx.PrepareContext(ctx, "select 1")
			if err != nil {
				return err
			}
			defer stmt.Close()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			tx, err := s.open(ours).BeginTx(s.context(), nil)
			require.NoError(t, err)
			defer func() { _ = tx.Rollback() }()
			rows, err := tx.QueryContext(s.context(), "select generate_series(1, 100000)")
			require.NoError(t, err)
			defer rows.Close()
			require.True(t, rows.Next())
			require.NoError(t, rows.Err())
			err = send(s.context(), tx)
			require.NotErrorIs(t, err, driver.ErrBadConn)
			require.ErrorContains(t, err, "busy")
			require.NoError(t, rows.Close())
			_, err = tx.ExecContext(s.context(), insertRow)
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
			require.Equal(t, 1, s.rows())
		})
	}
}

func TestClosingTheHandleEndsItsBackends(t *testing.T) {
	s := newScene(t, newServer(t))
	db := s.open(ours)
	require.IsType(t, &retrypg.Driver{}, db.Driver())
	fill(s, db)
	require.NoError(t, db.Close())
	s.gone()
	require.NoError(t, s.proxy.Wait(s.context(), func(st pgtest.Stats) bool { return st.Active == 0 }))
	require.ErrorContains(t, db.PingContext(s.context()), "closed")
}
