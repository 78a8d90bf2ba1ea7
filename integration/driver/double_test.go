package driver_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// writes are the ways in which a program can send insertRow through database/sql. Each gets a pool with a connection in
// it, and calls ready when only the statement itself is left to be sent.
var writes = []struct {
	name   string
	params []string
	// twice: over plain pgx 5.12 database/sql sends the statement again after the reply was lost.
	twice bool
	send  func(ctx context.Context, db *sql.DB, ready func()) error
}{
	{name: "Exec", twice: true, send: func(ctx context.Context, db *sql.DB, ready func()) error {
		ready()
		_, err := db.ExecContext(ctx, insertRow)
		return err
	}},
	{name: "Exec with an argument", send: func(ctx context.Context, db *sql.DB, ready func()) error {
		ready()
		_, err := db.ExecContext(ctx, insertRowArgs, 1)
		return err
	}},
	{
		name: "Exec with an argument over the simple protocol", twice: true, params: []string{"default_query_exec_mode=simple_protocol"},
		send: func(ctx context.Context, db *sql.DB, ready func()) error {
			ready()
			_, err := db.ExecContext(ctx, insertRowArgs, 1)
			return err
		},
	},
	{
		name: "Query over the simple protocol", twice: true, params: []string{"default_query_exec_mode=simple_protocol"},
		send: func(ctx context.Context, db *sql.DB, ready func()) error {
			ready()
			return readAll(db.QueryContext(ctx, insertRow+" returning n"))
		},
	},
	{name: "Query", send: func(ctx context.Context, db *sql.DB, ready func()) error {
		ready()
		return readAll(db.QueryContext(ctx, insertRow+" returning n"))
	}},
	{name: "QueryRow", send: func(ctx context.Context, db *sql.DB, ready func()) error {
		ready()
		var n int
		return db.QueryRowContext(ctx, insertRow+" returning n").Scan(&n)
	}},
	{name: "prepared Exec", send: func(ctx context.Context, db *sql.DB, ready func()) error {
		stmt, err := db.PrepareContext(ctx, insertRow)
		if err != nil {
			return err
		}
		defer stmt.Close()
		ready()
		_, err = stmt.ExecContext(ctx)
		return err
	}},
	{
		name: "prepared Exec over the simple protocol", params: []string{"default_query_exec_mode=simple_protocol"},
		send: func(ctx context.Context, db *sql.DB, ready func()) error {
			stmt, err := db.PrepareContext(ctx, insertRow)
			if err != nil {
				return err
			}
			defer stmt.Close()
			ready()
			_, err = stmt.ExecContext(ctx)
			return err
		},
	},
	{name: "pinned connection", send: func(ctx context.Context, db *sql.DB, ready func()) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		ready()
		_, err = conn.ExecContext(ctx, insertRow)
		return err
	}},
}

func readAll(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		continue
	}
	return rows.Err()
}

func TestStatementWhoseReplyWasLostIsNeverSentAgain(t *testing.T) {
	server := newServer(t)
	for _, w := range writes {
		for _, fault := range []struct {
			name  string
			match pgtest.Match
			cut   pgtest.Action
			ran   bool // the server had committed before the cut
		}{
			{"cut after the server got it", pgtest.Sent("insert into t"), pgtest.CutAfter(pgtest.Client, pgtest.FIN), false},
			{"reset after the server got it", pgtest.Sent("insert into t"), pgtest.CutAfter(pgtest.Client, pgtest.RST), false},
			{"cut before the reply", pgtest.Reply("insert into t"), pgtest.CutBefore(pgtest.Client, pgtest.FIN), false},
			{"cut inside the reply", pgtest.Reply("insert into t"), pgtest.CutInside(pgtest.Client, pgtest.FIN), false},
			{"cut between reply and ReadyForQuery", pgtest.ReplyReady("insert into t"), pgtest.CutBefore(pgtest.Client, pgtest.FIN), true},
		} {
			t.Run(w.name+"/"+fault.name, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				db := s.open(ours, w.params...)
				s.warm(db)
				err := w.send(s.context(), db, func() { s.proxy.OnMessage(fault.match, fault.cut) })
				require.Error(t, err)
				requireLost(t, err)
				require.Equal(t, 1, s.proxy.Stats().Seen("insert into t"), "times sent")
				s.settle()
				if fault.ran {
					require.Equal(t, 1, s.rows())
				} else {
					require.LessOrEqual(t, s.rows(), 1) // pgx cancels what it no longer waits for, and may be in time
				}
				require.NoError(t, db.PingContext(s.context()))
			})
		}
	}
}

// requireLost requires an error that tells nobody to send the statement again: not one that database/sql takes for
// another connection's turn, and not one that pgx calls safe.
func requireLost(t *testing.T, err error) {
	t.Helper()
	require.NotErrorIs(t, err, driver.ErrBadConn)
	require.False(t, pgconn.SafeToRetry(err), "SafeToRetry: %v", err)
	require.NotContains(t, err.Error(), "conn closed")
	class := retrypg.Classify(err)
	require.Equal(t, retrypg.OutcomeUnknown, class.Outcome)
	require.Equal(t, retrypg.RetryReconnect, class.Retry)
}

func TestPlainPgxSendsAStatementAgainWhoseReplyWasLost(t *testing.T) {
	server := newServer(t)
	for _, w := range writes {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			db := s.open(plain, w.params...)
			s.warm(db)
			err := w.send(s.context(), db, func() {
				lost := pgtest.ReplyReady("insert into t")
				if w.twice {
					lost = anyAnswer
				}
				s.proxy.OnMessage(lost, pgtest.CutBefore(pgtest.Client, pgtest.FIN))
			})
			s.settle()
			if !w.twice {
				require.Error(t, err)
				require.Equal(t, 1, s.rows())
				return
			}
			require.NoError(t, err, "this pgx has the fault no longer: tell the documentation")
			require.Equal(t, 2, s.rows())
		})
	}
}

// anyAnswer matches the first message that answers insertRow over the simple protocol. The server sends all of the answer
// at its end, so the row is committed by then.
func anyAnswer(m pgtest.Message) bool {
	return m.Dir == pgtest.FromServer && strings.HasPrefix(m.SQL, "insert into t")
}

func TestPlainPgxSendsItThreeTimesWhenEveryReplyIsLost(t *testing.T) {
	s := newScene(t, newServer(t))
	db := s.open(plain)
	s.warm(db)
	s.proxy.OnMessages(10, pgtest.Reply("insert into t"), pgtest.CutBefore(pgtest.Client, pgtest.FIN))
	_, err := db.ExecContext(s.context(), insertRow)
	require.ErrorIs(t, err, driver.ErrBadConn)
	s.settle()
	require.Equal(t, 3, s.rows())
}

func TestOnlyOneRowWhenEveryReplyIsLost(t *testing.T) {
	s := newScene(t, newServer(t))
	db := s.open(ours)
	s.warm(db)
	s.proxy.OnMessages(10, pgtest.Reply("insert into t"), pgtest.CutBefore(pgtest.Client, pgtest.FIN))
	_, err := db.ExecContext(s.context(), insertRow)
	requireLost(t, err)
	s.settle()
	require.Equal(t, 1, s.rows())
}

func TestLostReplyInATransactionSpeaksOfItsReason(t *testing.T) {
	server := newServer(t)
	for _, mode := range execModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			db := s.open(ours, "default_query_exec_mode="+mode)
			s.warm(db)
			tx, err := db.BeginTx(s.context(), nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(s.context(), "set local work_mem = '1MB'") // BEGIN may wait for the first statement
			require.NoError(t, err)
			s.proxy.OnMessage(pgtest.Sent("insert into t"), pgtest.CutAfter(pgtest.Both, pgtest.FIN))
			_, err = tx.ExecContext(s.context(), insertRow)
			requireLost(t, err)
			require.Error(t, tx.Commit())
			s.settle()
			require.Zero(t, s.rows())
		})
	}
}
