package driver_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// onRaw calls f with the pgx connection below a pooled one, as the documentation tells users to.
func onRaw(t *testing.T, s *scene, driver string, f func(*pgx.Conn) error) {
	t.Helper()
	conn, err := s.open(driver).Conn(s.context())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.Raw(func(driverConn any) error {
		return f(driverConn.(interface{ Conn() *pgx.Conn }).Conn())
	}))
}

func TestRawGivesThePgxConnectionAsPlainPgxDoes(t *testing.T) {
	server := newServer(t)
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			t.Run("COPY", func(t *testing.T) {
				onRaw(t, s, driver, func(c *pgx.Conn) error {
					n, err := c.CopyFrom(s.context(), pgx.Identifier{"t"}, []string{"n"}, pgx.CopyFromRows([][]any{{1}, {2}, {3}}))
					require.EqualValues(t, 3, n)
					return err
				})
				require.Equal(t, 3, s.rows())
			})
			t.Run("LISTEN and NOTIFY", func(t *testing.T) {
				onRaw(t, s, driver, func(c *pgx.Conn) error {
					_, err := c.Exec(s.context(), "listen news_"+s.name)
					require.NoError(t, err)
					s.run("notify news_" + s.name + ", 'hello'")
					n, err := c.WaitForNotification(s.context())
					require.NoError(t, err)
					require.Equal(t, "hello", n.Payload)
					return err
				})
			})
			t.Run("batch", func(t *testing.T) {
				onRaw(t, s, driver, func(c *pgx.Conn) error {
					b := &pgx.Batch{}
					b.Queue(insertRow)
					b.Queue(insertRowArgs, 2)
					return c.SendBatch(s.context(), b).Close()
				})
				require.Equal(t, 5, s.rows())
			})
			t.Run("an error is the bare one", func(t *testing.T) {
				conn := s.pinned(s.open(driver))
				err := conn.Raw(func(driverConn any) error {
					_, err := driverConn.(interface{ Conn() *pgx.Conn }).Conn().Exec(s.context(), "select 1/0")
					return err
				})
				requireBare(t, "22012", err)
			})
		})
	}
}

// A notification that arrives while a connection is idle in the pool makes it look alive with something to read.
func TestNotificationForAPooledConnectionDoesNotEndIt(t *testing.T) {
	s := newScene(t, newServer(t))
	db := s.open(ours)
	db.SetMaxOpenConns(1)
	_, err := db.ExecContext(s.context(), "listen news_"+s.name)
	require.NoError(t, err)
	var before, after int
	require.NoError(t, db.QueryRowContext(s.context(), "select pg_backend_pid()").Scan(&before))
	s.run("notify news_" + s.name + ", 'hello'")
	require.NoError(t, s.proxy.Wait(s.context(), func(st pgtest.Stats) bool { return st.Messages(pgtest.FromServer, 'A') > 0 }))
	require.NoError(t, db.QueryRowContext(s.context(), "select pg_backend_pid()").Scan(&after))
	require.Equal(t, before, after)
}

func TestAfterConnectAndConnConfigSeeEveryNewConnection(t *testing.T) {
	s := newScene(t, newServer(t))
	notices := make(chan string, 1)
	db := s.openWith(
		s.dsn(),
		retrypg.WithAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, "set my.mark = 'set'")
			return err
		}),
		retrypg.WithConnConfig(func(cfg *pgx.ConnConfig) error {
			cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices <- n.Message }
			return nil
		}),
	)
	var mark string
	require.NoError(t, db.QueryRowContext(s.context(), "show my.mark").Scan(&mark))
	require.Equal(t, "set", mark)
	_, err := db.ExecContext(s.context(), "do 'begin raise notice ''seen''; end'")
	require.NoError(t, err)
	require.Equal(t, "seen", <-notices)
}
