package tx_test

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// limit ends a test that hangs. Nothing takes a fraction of it.
const limit = 30 * time.Second

// conflict makes the server answer 40001, as a serialization failure does.
const conflict = "do $$ begin raise exception 'conflict' using errcode = '40001'; end $$"

// newShared returns a database of the shared cluster, and sees to it that the test leaves no goroutine behind.
func newShared(t *testing.T) *pgt.Database {
	t.Helper()
	server := pgt.Shared(t)
	leak.Check(t)
	return server
}

// stage is what one subtest plays on: an adapter, and a schema of its own with two tables. Its application_name is that
// of the schema: so its backends can be told from others.
type stage struct {
	adapter
	t      *testing.T
	server *pgt.Database
	name   string    // of the schema
	admin  *pgx.Conn // plain pgx, which looks at the server from outside
}

var stages atomic.Int64

// newAdmin connects to the server; the connection is closed when the test ends.
func newAdmin(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	return admin
}

func newStage(t *testing.T, server *pgt.Database, admin *pgx.Conn, a adapter) *stage {
	t.Helper()
	s := &stage{adapter: a, t: t, server: server, name: fmt.Sprintf("stage%d", stages.Add(1)), admin: admin}
	_, err := admin.Exec(t.Context(), fmt.Sprintf(`create schema %[1]s;
		set search_path = %[1]s;
		create table account (id int primary key, balance int not null);
		insert into account values (1, 100), (2, 100);
		create table note (id text primary key, parent int references account deferrable initially deferred)`, s.name))
	require.NoError(t, err)
	return s
}

// dsn returns the stage's connection string, directly to the server.
func (s *stage) dsn(params ...string) string {
	return s.server.DSN(append([]string{"search_path=" + s.name, "application_name=" + s.name}, params...)...)
}

// proxied returns a proxy before the server and the connection string through it. It keeps pgx's requests to cancel from
// the server: they would race with the very COMMIT whose fate a test is about.
func (s *stage) proxied() (*pgtest.Proxy, string) {
	s.t.Helper()
	p := pgt.Proxy(s.t, s.server.Cluster.Addr())
	p.DropCancels(true)
	return p, p.DSN("dbname="+s.server.Name, "search_path="+s.name, "application_name="+s.name)
}

// open opens the adapter with at most two connections.
func (s *stage) open(opts ...retrypg.Option) database {
	s.t.Helper()
	return s.openDSN(s.dsn(), 2, opts...)
}

// openDSN opens the adapter; it is closed when the test ends.
func (s *stage) openDSN(dsn string, size int, opts ...retrypg.Option) database {
	s.t.Helper()
	db := s.adapter.open(s.t, dsn, size, opts)
	s.t.Cleanup(db.close)
	return db
}

// context returns a context that ends before the test would hang for ever.
func (s *stage) context() context.Context {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	s.t.Cleanup(cancel)
	return ctx
}

// ask returns the only value that the server answers, on a connection of its own.
func (s *stage) ask(query string, args ...any) string {
	s.t.Helper()
	var v string
	require.NoError(s.t, s.admin.QueryRow(s.t.Context(), "select ("+query+")::text", args...).Scan(&v))
	return v
}

// notes returns how many notes with that id are there.
func (s *stage) notes(id string) int {
	s.t.Helper()
	n, err := strconv.Atoi(s.ask("select count(*) from note where id = $1", id))
	require.NoError(s.t, err)
	return n
}

// quiet waits until no backend of the stage has a transaction open or a statement running.
func (s *stage) quiet() {
	s.t.Helper()
	s.until("not exists (select from pg_stat_activity where application_name = '" + s.name + "' and state <> 'idle')")
}

// terminate ends every backend of the stage and waits until they are gone.
func (s *stage) terminate() {
	s.t.Helper()
	where := "application_name = '" + s.name + "'"
	n := s.ask("select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity where " + where)
	require.NotEqual(s.t, "0", n, "no backend to terminate")
	s.until("not exists (select from pg_stat_activity where " + where + ")")
}

// until waits on the server until a condition holds: what it shows of other backends comes without an event.
func (s *stage) until(condition string) {
	s.t.Helper()
	_, err := s.admin.Exec(s.context(), `do $$ begin
		loop
			exit when `+condition+`;
			perform pg_sleep(0.002);
			perform pg_stat_clear_snapshot();
		end loop;
	end $$`)
	if err != nil {
		s.t.Log("backends:", s.ask("coalesce((select string_agg(concat_ws(' ', pid, application_name, state, wait_event, "+
			"now() - state_change, query), E'\\n') from pg_stat_activity where backend_type = 'client backend'), 'none')"))
	}
	require.NoError(s.t, err)
}

// write returns a closure that writes one note.
func write(id string) closure {
	return func(ctx context.Context, w work) error { return insert(ctx, w, id) }
}

func insert(ctx context.Context, w work, id string) error {
	return w.exec(ctx, "insert into note (id) values ($1)", id)
}

// usable requires that a transaction can be run.
func (s *stage) usable(db database, id string) {
	s.t.Helper()
	require.NoError(s.t, db.withTx(s.context(), retrypg.TxOptions{}, write(id)))
	require.Equal(s.t, 1, s.notes(id))
}

// withSize adds the size of the pool to a connection string.
func withSize(dsn string, size int) string {
	u, err := url.Parse(dsn)
	if err != nil {
		panic(err) // it was made by pgtest
	}
	q := u.Query()
	q.Set("pool_max_conns", strconv.Itoa(size))
	u.RawQuery = q.Encode()
	return u.String()
}
