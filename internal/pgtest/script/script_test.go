package script_test

import (
	"context"
	"database/sql"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

func config(t *testing.T, s *script.Server) *pgx.ConnConfig {
	t.Helper()
	cfg, err := pgx.ParseConfig("postgres://user@db:5432/app?sslmode=disable")
	require.NoError(t, err)
	s.Configure(&cfg.Config)
	return cfg
}

func TestEachConnectionMeetsItsConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		talks := slices.Concat(
			[]script.Conversation{script.Refused()},
			script.Times(2, script.Fatal("57P03", "the database system is starting up")),
			[]script.Conversation{script.Closes(), script.Silent(), script.DialHangs(), script.Accept(nil)},
		)
		s := script.New(talks...)
		defer s.Close()
		connect := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			conn, err := pgx.ConnectConfig(ctx, config(t, s))
			if err == nil {
				err = conn.Close(ctx)
			}
			return err
		}
		var pgErr *pgconn.PgError
		began := time.Now()
		require.ErrorIs(t, connect(), syscall.ECONNREFUSED)
		for range 2 {
			require.ErrorAs(t, connect(), &pgErr)
			require.Equal(t, "57P03", pgErr.Code)
		}
		require.ErrorIs(t, connect(), io.ErrUnexpectedEOF)
		require.Zero(t, time.Since(began))
		require.ErrorIs(t, connect(), context.DeadlineExceeded)
		require.ErrorIs(t, connect(), context.DeadlineExceeded)
		require.Equal(t, 2*time.Second, time.Since(began), "time is that of the bubble")
		require.NoError(t, connect())
		require.NoError(t, connect(), "the last conversation is used for ever")
		require.Len(t, s.Attempts(), len(talks)+1)
	})
}

func TestStatementsAreAnsweredInBothProtocols(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Serve(script.Script{
			Columns: func(string) []script.Column { return []script.Column{{Name: "value", OID: 20}} },
			Run: func(_ *script.Session, sql string) script.Result {
				if sql == "select n from t where n = $1" || sql == "select pg_current_xact_id()" {
					return script.Int8("42")
				}
				return script.Result{}
			},
		}))
		defer s.Close()
		conn, err := pgx.ConnectConfig(t.Context(), config(t, s))
		require.NoError(t, err)
		defer func() { _ = conn.Close(t.Context()) }()
		for range 2 { // the second time from the statement cache
			var n int64
			require.NoError(t, conn.QueryRow(t.Context(), "select n from t where n = $1", 42).Scan(&n))
			require.Equal(t, int64(42), n)
		}
		results, err := conn.PgConn().Exec(t.Context(), "begin; select pg_current_xact_id()").ReadAll()
		require.NoError(t, err)
		require.Equal(t, "BEGIN", results[0].CommandTag.String())
		require.Equal(t, "42", string(results[1].Rows[0][0]))
		require.Equal(t, byte('T'), conn.PgConn().TxStatus())
		tag, err := conn.Exec(t.Context(), "commit")
		require.NoError(t, err)
		require.Equal(t, "COMMIT", tag.String())
		require.Equal(t, byte('I'), conn.PgConn().TxStatus())
	})
}

func TestFailedTransactionFollowsPostgreSQL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Accept(func(_ *script.Session, sql string) script.Result {
			if sql == "update t" {
				return script.Result{Err: script.Error("40001", "could not serialize access")}
			}
			return script.Result{}
		}))
		defer s.Close()
		db := sql.OpenDB(stdlib.GetConnector(*config(t, s)))
		defer func() { require.NoError(t, db.Close()) }()
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		var pgErr *pgconn.PgError
		_, err = tx.ExecContext(t.Context(), "update t")
		require.ErrorAs(t, err, &pgErr)
		require.Equal(t, "40001", pgErr.Code)
		_, err = tx.ExecContext(t.Context(), "insert into t")
		require.ErrorAs(t, err, &pgErr)
		require.Equal(t, "25P02", pgErr.Code)
		require.NotContains(t, s.Queries(), "never sent")
		require.ErrorIs(t, tx.Commit(), pgx.ErrTxCommitRollback)
		require.Equal(t, []string{"begin", "update t", "insert into t", "commit"}, s.Queries())
	})
}

func TestFailedCommitLeavesTheConnectionIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Accept(func(_ *script.Session, sql string) script.Result {
			if sql == "commit" {
				return script.Result{Err: script.Error("40001", "could not serialize access")}
			}
			return script.Result{}
		}))
		defer s.Close()
		conn, err := pgx.ConnectConfig(t.Context(), config(t, s))
		require.NoError(t, err)
		defer func() { _ = conn.Close(t.Context()) }()
		_, err = conn.Exec(t.Context(), "begin")
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), "commit")
		require.Error(t, err)
		require.Equal(t, byte('I'), conn.PgConn().TxStatus())
	})
}

func TestConnectionEndsAsTheResultSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Accept(func(_ *script.Session, sql string) script.Result {
			switch sql {
			case "close":
				return script.Result{Close: true}
			case "die":
				e := script.Error("57P01", "terminating connection")
				e.Severity, e.SeverityUnlocalized = "FATAL", "FATAL"
				return script.Result{Err: e}
			case "hang":
				return script.Result{Hang: true}
			}
			return script.Result{}
		}))
		defer s.Close()
		run := func(ctx context.Context, sql string) error {
			conn, err := pgx.ConnectConfig(ctx, config(t, s))
			require.NoError(t, err)
			_, err = conn.Exec(ctx, sql)
			return err
		}
		require.ErrorContains(t, run(t.Context(), "close"), "conn closed")
		var pgErr *pgconn.PgError
		require.ErrorAs(t, run(t.Context(), "die"), &pgErr)
		require.Equal(t, "57P01", pgErr.Code)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, run(ctx, "hang"), context.DeadlineExceeded)
		synctest.Wait()
		require.Positive(t, s.Cancels(), "pgx asks to cancel what it gave up")
		require.Len(t, s.Attempts(), 3, "which is no attempt to connect")
	})
}

func TestAnnouncedParameterReachesTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Serve(script.Script{
			Parameters: map[string]string{"in_hot_standby": "on"},
			Run: func(s *script.Session, _ string) script.Result {
				s.Announce("in_hot_standby", "off")
				return script.Result{}
			},
		}))
		defer s.Close()
		conn, err := pgx.ConnectConfig(t.Context(), config(t, s))
		require.NoError(t, err)
		defer func() { _ = conn.Close(t.Context()) }()
		require.Equal(t, "on", conn.PgConn().ParameterStatus("in_hot_standby"))
		_, err = conn.Exec(t.Context(), "select")
		require.NoError(t, err)
		require.Equal(t, "off", conn.PgConn().ParameterStatus("in_hot_standby"))
	})
}

func TestRouteTakesEachAddressToItsServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down, up := script.New(script.Refused()), script.New()
		defer down.Close()
		defer up.Close()
		cfg, err := pgx.ParseConfig("postgres://user@a:1,b:2,c:3/app?sslmode=disable")
		require.NoError(t, err)
		cfg.LookupFunc = script.Lookup
		cfg.DialFunc = script.Route(map[string]*script.Server{"b:2": down, "c:3": up})
		conn, err := pgx.ConnectConfig(t.Context(), cfg)
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
		require.Len(t, down.Attempts(), 1)
		require.Len(t, up.Attempts(), 1)
	})
}

func TestClosedServerRefuses(t *testing.T) {
	s := script.New()
	s.Close()
	s.Close()
	_, err := s.Dial(t.Context(), "tcp", "db:5432")
	require.ErrorIs(t, err, script.ErrClosed)
	var netErr net.Error
	require.NotErrorAs(t, err, &netErr)
}
