//go:build linux && netns

package net_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
)

// holdLock is the lock for which busy server processes wait; answerLock the one after which they answer into nowhere.
const (
	holdLock   = 11
	answerLock = 12
)

// watchful makes the server look for its client as often as the client for the server.
var watchful = []string{"tcp_server_side=on"}

// vanishing are the states in which a client vanishes, with a locked row. busy is what it runs then, if it does.
var vanishing = []struct{ name, busy string }{
	{"idle in transaction", ""},
	{"answer not acknowledged", fmt.Sprintf("select pg_advisory_xact_lock_shared(%d)", answerLock)},
	{"statement under way", fmt.Sprintf("select pg_advisory_xact_lock_shared(%d)", holdLock)},
}

// TestAServerKeepsTheLocksOfAVanishedClientUnlessItIsToldToLook: by its defaults it does so for hours. The parameters of the
// server in a DSN end that in seconds.
func TestAServerKeepsTheLocksOfAVanishedClientUnlessItIsToldToLook(t *testing.T) {
	leak.Check(t)
	checkFiles(t)
	s := newServer(t)
	if s.Installation().Major < 14 {
		t.Skip("client_connection_check_interval is of PostgreSQL 14")
	}
	ctx := within(t)
	s.do(ctx, "create table item (id int primary key, n int not null); insert into item select i, 0 from generate_series(0, 5) i")
	s.hold(ctx, holdLock)
	s.hold(ctx, answerLock)

	// Callers are cut off, as by the end of their machine, and never heard of again.
	lost := make(chan error, 6)
	row := 0
	for _, kind := range []string{"default", "watchful"} {
		for _, v := range vanishing {
			params := append([]string{"application_name=" + kind + " " + v.name}, quick...)
			if kind == "watchful" {
				params = append(params, watchful...)
			}
			pool, err := retrypg.NewPool(ctx, s.across(params...))
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			tx, err := pool.Begin(ctx)
			require.NoError(t, err)
			_, err = tx.Exec(ctx, "update item set n = n + 1 where id = $1", row)
			require.NoError(t, err)
			row++
			if kind == "default" && v.busy == "" {
				// The first of these is when the server would look first, in seconds: in hours.
				for name, least := range map[string]int{"tcp_keepalives_idle": 600, "tcp_user_timeout": 0, "client_connection_check_interval": 0} {
					var n int
					require.NoError(t, tx.QueryRow(ctx, "select setting::int from pg_settings where name = $1", name).Scan(&n))
					t.Logf("%s is %d", name, n)
					require.True(t, n == least || least > 0 && n > least, name)
				}
			}
			go func() {
				var err error
				if v.busy != "" {
					_, err = tx.Exec(context.WithoutCancel(ctx), v.busy)
				} else {
					err = tx.Conn().PgConn().WaitForNotification(context.WithoutCancel(ctx)) // until the connection is given up
				}
				_ = tx.Rollback(context.WithoutCancel(ctx))
				lost <- err
			}()
		}
	}
	until(ctx, t, "the statements are under way", func() bool {
		return s.held(ctx, holdLock) == 2 && s.held(ctx, answerLock) == 2
	})
	heal := dropAll.inject(t, s.Port())
	began := time.Now()
	s.release(ctx, answerLock)
	for range 6 {
		require.Error(t, <-lost)
	}
	t.Logf("the clients gave up within %v", time.Since(began).Round(time.Millisecond))

	sessions := func(name string) int {
		return s.number(ctx, "select count(*) from pg_stat_activity where application_name like '"+name+"'")
	}
	for _, v := range vanishing {
		until(ctx, t, v.name, func() bool { return sessions("watchful "+v.name) == 0 })
		t.Logf("%s: after %v at the latest the server had given it up", v.name, time.Since(began).Round(time.Millisecond))
	}
	for i, v := range vanishing {
		require.Equal(t, 1, sessions("default "+v.name))
		require.False(t, s.free(ctx, i), "the row of the vanished client, %s, is locked", v.name)
		require.True(t, s.free(ctx, len(vanishing)+i), "the row of the other one, %s, is not", v.name)
	}
	require.Equal(t, 3, s.number(ctx, `select count(distinct pid) from pg_locks join pg_stat_activity using (pid)
		where application_name like 'default%' and locktype = 'transactionid' and granted`))
	t.Logf("by default the locks are there after %v", time.Since(began).Round(time.Millisecond))

	// What a program does then, if nobody ends these sessions.
	heal()
	db := open(t, s.across(quick...)).db
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err := db.ExecContext(short, "update item set n = n + 1 where id = 0")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	s.release(ctx, holdLock)
	_, err = s.TerminateBackends(ctx, "application_name like 'default%'")
	require.NoError(t, err)
	_, err = db.ExecContext(ctx, "update item set n = n + 1 where id = 0")
	require.NoError(t, err)
	require.Equal(t, 1, s.number(ctx, "select sum(n)::int from item"), "the transactions of the vanished clients were rolled back")
}

// free reports whether nobody has locked a row.
func (s *server) free(ctx context.Context, row int) bool {
	s.t.Helper()
	return s.number(ctx, fmt.Sprintf("select count(*) from (select id from item where id = %d for update skip locked) free", row)) == 1
}
