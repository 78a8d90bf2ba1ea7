package driver_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRealSerializationFailureOfOneStatementIsHealed(t *testing.T) {
	s := newScene(t, newServer(t))
	s.run("insert into t values (0)")
	var b backoffs
	db := s.openWith(s.dsn("options=-c default_transaction_isolation=repeatable\\ read"), b.option())
	s.run("begin; update t set n = n + 1")
	done := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(s.t.Context(), "update t set n = n + 10")
		done <- err
	}()
	s.wait("exists (select from pg_stat_activity where " + s.mine() + " and wait_event_type = 'Lock')")
	s.run("commit")
	require.NoError(t, <-done)
	require.Equal(t, "11", s.ask("select n from t"))
	require.Len(t, b.all(), 1)
	requireBare(t, "40001", b.all()[0].Err)
}

func TestRealDeadlockOfOneStatementIsHealed(t *testing.T) {
	server := newServer(t)
	for name, query := range map[string]string{"SELECT": "select embrace()", "UPDATE": "update t set n = n where n = embrace()"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			// embrace locks a, waits at its first call until somebody waits for that lock, and then wants b. So it closes
			// the circle, and its own short deadlock_timeout makes it the victim. Later calls let the other transaction end.
			s.run(fmt.Sprintf(`create table a (n int); insert into a values (0); create table b (n int); insert into b values (0);
				insert into t values (1); create sequence calls;
				create function embrace() returns int language plpgsql as $$ begin
					if (select is_called from calls) then
						while exists (select from pg_locks where pid = %[1]s and locktype = 'transactionid') loop perform pg_sleep(0.002); end loop;
					end if;
					update a set n = n + 1;
					if nextval('calls') = 1 then
						while not exists (select from pg_locks where pid = %[1]s and not granted) loop perform pg_sleep(0.002); end loop;
					end if;
					update b set n = n + 1;
					return 1;
				end $$`, s.ask("pg_backend_pid()")))
			var bo backoffs
			db := s.openWith(s.dsn("deadlock_timeout=5ms"), bo.option())
			s.run("set deadlock_timeout = '1h'; begin; update b set n = n + 100")
			done := make(chan error, 1)
			go func() {
				_, err := db.ExecContext(s.t.Context(), query)
				done <- err
			}()
			s.run("do 'begin while not (select is_called from calls) loop perform pg_sleep(0.002); end loop; end'")
			s.run("update a set n = n + 100")
			s.run("commit")
			require.NoError(t, <-done)
			require.Equal(t, "101", s.ask("select n from a"))
			require.Equal(t, "101", s.ask("select n from b"))
			require.Len(t, bo.all(), 1)
			requireBare(t, "40P01", bo.all()[0].Err)
		})
	}
}
