//go:build linux && netns

package net_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// The locks for which a statement, or a COMMIT, waits at the server while admin has them.
const (
	statementLock = 1
	commitLock    = 2
)

// schema is the table of entries: no unique key, so that what is applied twice is seen. hold says where the server is to wait.
var schema = fmt.Sprintf(`
	create table entry (id text not null, hold text not null);
	create function wait() returns trigger language plpgsql as
		$$ begin perform pg_advisory_xact_lock_shared(tg_argv[0]::bigint); return new; end $$;
	create trigger held before insert on entry for each row when (new.hold = 'statement') execute function wait(%d);
	create constraint trigger held_late after insert on entry deferrable initially deferred
		for each row when (new.hold = 'commit') execute function wait(%d)`, statementLock, commitLock)

// server is a server in its own namespace, with the table in it.
type server struct {
	*pgtest.Cluster
	t     *testing.T
	admin *pgx.Conn // past the network
}

func newServer(t *testing.T) *server {
	t.Helper()
	c := pgt.New(t, pgtest.Options{Namespace: serverSide, Settings: map[string]string{"max_connections": "200"}})
	admin, err := pgx.Connect(t.Context(), c.DSN())
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	s := &server{Cluster: c, t: t, admin: admin}
	s.do(t.Context(), schema)
	return s
}

// across returns a connection string for a client, over the network.
func (s *server) across(params ...string) string {
	return pgtest.DSN([]string{fmt.Sprintf("%s:%d", serverIP, s.Port())}, params...)
}

func (s *server) do(ctx context.Context, sql string) {
	s.t.Helper()
	_, err := s.admin.Exec(ctx, sql)
	require.NoError(s.t, err, sql)
}

func (s *server) number(ctx context.Context, sql string) (n int) {
	s.t.Helper()
	require.NoError(s.t, s.admin.QueryRow(ctx, sql).Scan(&n), sql)
	return n
}

// hold lets statements, or COMMITs, wait from now on.
func (s *server) hold(ctx context.Context, lock int) {
	s.t.Helper()
	s.do(ctx, fmt.Sprintf("select pg_advisory_lock(%d)", lock))
}

func (s *server) release(ctx context.Context, lock int) {
	s.t.Helper()
	s.do(ctx, fmt.Sprintf("select pg_advisory_unlock(%d)", lock))
}

// held returns how many server processes wait for a lock.
func (s *server) held(ctx context.Context, lock int) int {
	s.t.Helper()
	return s.number(ctx, fmt.Sprintf("select count(*) from pg_locks where locktype = 'advisory' and objid = %d and not granted", lock))
}

// deaf keeps the server from taking new connections, while those that it has go on: the kernel takes them, and what is sent
// on them is not read before hear.
func (s *server) deaf() (hear func()) {
	s.t.Helper()
	pid := s.PID()
	require.NoError(s.t, syscall.Kill(pid, syscall.SIGSTOP))
	hear = func() { _ = syscall.Kill(pid, syscall.SIGCONT) } // it may have ended by then
	s.t.Cleanup(hear)
	return hear
}

// entries returns how often each entry is there.
func (s *server) entries(ctx context.Context) map[string]int {
	s.t.Helper()
	there, err := audit.Count(ctx, s.admin, "entry")
	require.NoError(s.t, err)
	return there
}
