package driver_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// limit ends a test that hangs. Nothing takes a fraction of it.
const limit = 30 * time.Second

// The two drivers that are compared.
const (
	plain = "pgx"
	ours  = retrypg.DriverName
)

var drivers = []string{plain, ours}

// execModes are the values of default_query_exec_mode.
var execModes = []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"}

// insertRow is the statement that must not run twice: each run adds one row. Both protocols carry it.
const (
	insertRow     = "insert into t values (1)"
	insertRowArgs = "insert into t values ($1)"
)

// scene is what one subtest plays on: a proxy before the server, and a schema of its own with an empty table t. Its
// application_name is that of the schema, so that its backends can be told from others.
type scene struct {
	t      *testing.T
	server *pgt.Database
	proxy  *pgtest.Proxy
	name   string    // of the schema
	admin  *pgx.Conn // plain pgx, which looks at the server from outside
}

var scenes atomic.Int64

func newScene(t *testing.T, server *pgt.Database) *scene {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), server.DSN())
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	s := &scene{
		t: t, server: server, admin: admin,
		proxy: pgt.Proxy(t, server.Cluster.Addr()), name: fmt.Sprintf("scene%d", scenes.Add(1)),
	}
	s.run(fmt.Sprintf("create schema %[1]s; set search_path = %[1]s; create table t (n int)", s.name))
	return s
}

// dsn returns the connection string through the proxy.
func (s *scene) dsn(params ...string) string {
	return s.proxy.DSN(append([]string{
		"dbname=" + s.server.Name, "search_path=" + s.name, "application_name=" + s.name,
	}, params...)...)
}

// context returns a context that ends before the test would hang for ever.
func (s *scene) context() context.Context {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	s.t.Cleanup(cancel)
	return ctx
}

// open opens a database/sql handle of one of the drivers, through the proxy.
func (s *scene) open(driver string, params ...string) *sql.DB {
	s.t.Helper()
	db, err := sql.Open(driver, s.dsn(params...))
	return s.opened(db, err)
}

// openWith opens a handle of ours with options, through the proxy.
func (s *scene) openWith(dsn string, opts ...retrypg.Option) *sql.DB {
	s.t.Helper()
	db, err := retrypg.OpenDB(dsn, opts...)
	return s.opened(db, err)
}

func (s *scene) opened(db *sql.DB, err error) *sql.DB {
	s.t.Helper()
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, db.Close()) })
	return db
}

// warm makes the handle open one connection and put it into its pool.
func (s *scene) warm(db *sql.DB) {
	s.t.Helper()
	require.NoError(s.t, db.PingContext(s.context()))
}

// pinned returns a connection of the handle that was used already.
func (s *scene) pinned(db *sql.DB) *sql.Conn {
	s.t.Helper()
	c, err := db.Conn(s.context())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	_, err = c.ExecContext(s.context(), "select 1")
	require.NoError(s.t, err)
	return c
}

// connect connects plain pgx through the proxy.
func (s *scene) connect(params ...string) *pgx.Conn {
	s.t.Helper()
	c, err := pgx.Connect(s.context(), s.dsn(params...))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { closeAtOnce(c) })
	return c
}

// closeAtOnce closes a connection without waiting for a server that may not answer.
func closeAtOnce(c *pgx.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.Close(ctx)
}

// run runs statements from outside.
func (s *scene) run(statements string) {
	s.t.Helper()
	_, err := s.admin.Exec(s.context(), statements)
	require.NoError(s.t, err)
}

// ask returns the only value that the server answers, from outside.
func (s *scene) ask(query string) string {
	s.t.Helper()
	var v string
	require.NoError(s.t, s.admin.QueryRow(s.context(), "select ("+query+")::text").Scan(&v))
	return v
}

// rows returns how many rows are committed in t.
func (s *scene) rows() int {
	s.t.Helper()
	n, err := strconv.Atoi(s.ask("select count(*) from t"))
	require.NoError(s.t, err)
	return n
}

// wait waits until an SQL expression is true.
func (s *scene) wait(condition string) {
	s.t.Helper()
	require.NoError(s.t, s.server.Cluster.WaitUntil(s.context(), condition))
}

// mine is the condition on pg_stat_activity for the backends of the scene.
func (s *scene) mine() string { return "application_name = '" + s.name + "'" }

// settle cuts all connections and waits until their backends have ended. A backend reads what had reached it before the
// end of its connection: then what was sent is decided.
func (s *scene) settle() {
	s.t.Helper()
	s.proxy.CutAll(pgtest.Both, pgtest.FIN)
	s.gone()
}

// gone waits until the scene has no backend any more.
func (s *scene) gone() {
	s.t.Helper()
	s.wait("not exists (select from pg_stat_activity where " + s.mine() + ")")
}

// terminate ends every backend of the scene and waits until they are gone and the clients have been told.
func (s *scene) terminate() {
	s.t.Helper()
	n, err := s.server.Cluster.TerminateBackends(s.context(), s.mine())
	require.NoError(s.t, err)
	require.Positive(s.t, n, "no backend to terminate")
	s.gone()
	require.NoError(s.t, s.proxy.Wait(s.context(), func(st pgtest.Stats) bool { return st.Active == 0 }))
}

// serverError returns the server's error in err.
func serverError(t *testing.T, err error) *pgconn.PgError {
	t.Helper()
	var pgErr *pgconn.PgError
	require.ErrorAs(t, err, &pgErr)
	return pgErr
}

// requireBare requires that err is the server's error itself, not wrapped, with that code.
func requireBare(t *testing.T, code string, err error) {
	t.Helper()
	require.IsType(t, &pgconn.PgError{}, err)
	require.Equal(t, code, err.(*pgconn.PgError).Code) //nolint:errorlint // that no unwrapping is needed is the claim
}

// expiring is a context whose deadline passes when told, so that no test has to guess how long something takes.
type expiring struct {
	context.Context
	done    chan struct{}
	expired atomic.Bool
}

func newExpiring(parent context.Context) *expiring {
	return &expiring{Context: parent, done: make(chan struct{})}
}

func (e *expiring) expire() {
	if !e.expired.Swap(true) {
		close(e.done)
	}
}

func (e *expiring) Deadline() (time.Time, bool) { return time.Now().Add(limit), true }

func (e *expiring) Done() <-chan struct{} { return e.done }

func (e *expiring) Err() error {
	if e.expired.Load() {
		return context.DeadlineExceeded
	}
	return nil
}

// afterwards calls f when the rule has fired, on a goroutine that ends with the test.
func (s *scene) afterwards(rule *pgtest.Rule, f func()) {
	s.t.Helper()
	ctx := s.context()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := rule.Wait(ctx); err != nil && !errors.Is(err, context.Canceled) {
			s.t.Errorf("the fault never happened: %v", err)
		}
		f()
	}()
	s.t.Cleanup(func() { <-done })
}
