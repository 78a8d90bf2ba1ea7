//go:build pgbouncer

package pgbouncer_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) { pgt.Main(m) }

// limit bounds everything that could wait for ever.
const limit = 30 * time.Second

// bouncer is a PgBouncer between two proxies: client, front, PgBouncer, back, server.
type bouncer struct {
	t           *testing.T
	server      *pgtest.Cluster
	front, back *pgtest.Proxy
	admin       *pgx.Conn // of the server, past all of it
}

const itemTable = "create table item (id text not null)"

// newBouncer starts a server with a table of items, and a PgBouncer before it with up to size server connections.
func newBouncer(t *testing.T, mode string, size int) *bouncer {
	t.Helper()
	server := pgt.New(t, pgtest.Options{Fsync: true})
	require.NoError(t, server.Exec(t.Context(), itemTable))
	return newBouncerFor(t, server, mode, size)
}

// newBouncerFor starts a PgBouncer before a server.
func newBouncerFor(t *testing.T, server *pgtest.Cluster, mode string, size int) *bouncer {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // where Debian has it, which is not in everybody's PATH
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("PgBouncer is not installed (%v): install the package pgbouncer", err)
	}
	b := &bouncer{t: t, server: server}
	b.back = pgt.Proxy(t, b.server.Addr())
	port := freePort(t)
	dir := t.TempDir()
	ini := filepath.Join(dir, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%d dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
admin_users = postgres
pool_mode = %s
default_pool_size = %d
server_login_retry = 0.05
server_connect_timeout = 2
query_wait_timeout = 20
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
`, b.back.Port(), port, mode, size)
	require.NoError(t, os.WriteFile(ini, []byte(text), 0o644))
	args := []string{ini}
	if os.Geteuid() == 0 { // which it refuses to run as
		name := "postgres"
		if _, err := user.Lookup(name); err != nil {
			name = "nobody"
		}
		args = []string{"-u", name, ini}
	}
	cmd := exec.Command(program, args...)
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("log of PgBouncer:\n%s", said)
		}
	})
	b.front = pgt.Proxy(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	b.front.DropCancels(true)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, b.dsn())
		if err == nil {
			require.NoError(t, conn.Close(ctx))
			break
		}
		require.NoError(t, ctx.Err(), "PgBouncer does not answer: %v", err)
	}
	b.admin, err = pgx.Connect(ctx, b.server.DSN())
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.admin.Close(context.Background()) })
	return b
}

// dsn is for a client. Without prepared statements, which this version of PgBouncer does not follow from one server
// connection to the next.
func (b *bouncer) dsn(params ...string) string {
	return b.front.DSN(append([]string{"default_query_exec_mode=exec"}, params...)...)
}

// items returns how often an item is there.
func (b *bouncer) items(id string) (n int) {
	b.t.Helper()
	require.NoError(b.t, b.admin.QueryRow(b.t.Context(), "select count(*) from item where id = $1", id).Scan(&n))
	return n
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}
