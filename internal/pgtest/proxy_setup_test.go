//go:build unix

package pgtest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// setup is a proxy before a fresh database with a table t, and a connection that avoids the proxy.
type setup struct {
	db     *pgt.Database
	proxy  *pgtest.Proxy
	direct *pgx.Conn
}

func newSetup(t *testing.T) *setup {
	t.Helper()
	db := pgt.Shared(t)
	s := &setup{db: db, proxy: pgt.Proxy(t, db.Cluster.Addr()), direct: connect(t, db.DSN())}
	_, err := s.direct.Exec(t.Context(), "create table t (x int)")
	require.NoError(t, err)
	return s
}

func (s *setup) dsn(params ...string) string {
	return s.proxy.DSN(append([]string{"dbname=" + s.db.Name}, params...)...)
}

// connect connects through the proxy.
func (s *setup) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	return connect(t, s.dsn())
}

// rows returns how many rows are committed.
func (s *setup) rows(t *testing.T) int {
	t.Helper()
	var n int
	require.NoError(t, s.direct.QueryRow(t.Context(), "select count(*) from t").Scan(&n))
	return n
}

// waitBackend waits until the backend of a connection satisfies a condition on pg_stat_activity.
func (s *setup) waitBackend(t *testing.T, pid uint32, condition string) {
	t.Helper()
	require.NoError(t, s.db.Cluster.WaitUntil(t.Context(),
		fmt.Sprintf("exists (select from pg_stat_activity where pid = %d and %s)", pid, condition)))
}

// waitBackendGone waits until the backend of a connection has ended: then its transaction is decided.
func (s *setup) waitBackendGone(t *testing.T, pid uint32) {
	t.Helper()
	require.NoError(t, s.db.Cluster.WaitUntil(t.Context(),
		fmt.Sprintf("not exists (select from pg_stat_activity where pid = %d)", pid)))
}

// patience is the deadline of a client that is meant to run into it.
func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// requireNoAnswer asserts that nothing has arrived on ch and nobody is about to send: what would, waits for a rule or
// a fault.
func requireNoAnswer(t *testing.T, ch <-chan error) {
	t.Helper()
	select {
	case err := <-ch:
		require.Fail(t, "there is an answer already", "%v", err)
	default:
	}
}

func inBackground(call func() error) <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- call() }()
	return ch
}
