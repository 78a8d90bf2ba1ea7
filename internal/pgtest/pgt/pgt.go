// Package pgt hands the clusters and proxies of package pgtest to tests: what it starts ends with the test.
//
// Every function skips the test under -short, and fails it, with what to install, when there is no PostgreSQL.
package pgt

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// Timeout is how long the functions of this package wait for a server: far more than one needs, even on a machine
// that is busy with something else.
const Timeout = 2 * time.Minute

func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a PostgreSQL server, and -short was given")
	}
}

// New starts a cluster that is closed when the test ends. The server's log is printed if the test failed.
func New(t testing.TB, opts pgtest.Options) *pgtest.Cluster {
	t.Helper()
	skipShort(t)
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	defer cancel()
	began := time.Now()
	c, err := pgtest.Start(ctx, opts)
	if err != nil {
		t.Fatalf("start a PostgreSQL cluster: %v", err)
	}
	t.Logf("PostgreSQL %s %q ready on %s in %s",
		c.Installation().Version, c.Name(), c.Addr(), time.Since(began).Round(time.Millisecond))
	cleanUp(t, c)
	return c
}

// Standby starts a standby of primary that is closed when the test ends.
func Standby(t testing.TB, primary *pgtest.Cluster, opts pgtest.Options) *pgtest.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	defer cancel()
	c, err := primary.Standby(ctx, opts)
	if err != nil {
		t.Fatalf("start a standby of %q: %v", primary.Name(), err)
	}
	cleanUp(t, c)
	return c
}

// Pair starts a primary, "one", and a standby of it, "two", both closed when the test ends. With synchronous replication
// nothing that was told to be committed can be lost by a failover.
func Pair(t testing.TB, opts pgtest.Options, synchronous bool) (primary, standby *pgtest.Cluster) {
	t.Helper()
	opts.Name = "one"
	primary = New(t, opts)
	standby = Standby(t, primary, pgtest.Options{Name: "two"})
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	defer cancel()
	if err := primary.WaitStreaming(ctx, standby.Name()); err != nil {
		t.Fatalf("wait for the standby: %v", err)
	}
	if synchronous {
		if err := primary.Synchronize(ctx, standby.Name()); err != nil {
			t.Fatalf("make the replication synchronous: %v", err)
		}
	}
	return primary, standby
}

func cleanUp(t testing.TB, c *pgtest.Cluster) {
	t.Cleanup(func() {
		err := c.Close()
		if t.Failed() {
			t.Logf("log of server %q:\n%s", c.Name(), c.Log())
		}
		if err != nil {
			t.Errorf("close the cluster %q: %v", c.Name(), err)
		}
	})
}

// Proxy starts a fault proxy before the address upstream ("host:port"), closed when the test ends.
func Proxy(t testing.TB, upstream string) *pgtest.Proxy {
	t.Helper()
	p, err := pgtest.NewProxy(upstream)
	if err != nil {
		t.Fatalf("start a proxy: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the proxy: %v", err)
		}
	})
	return p
}

var shared struct {
	mu        sync.Mutex
	cluster   *pgtest.Cluster
	databases atomic.Int64
}

// Database is a fresh database in the cluster that all tests of one binary share. Tests must not stop that cluster.
type Database struct {
	Cluster *pgtest.Cluster
	Name    string
}

// DSN returns the connection string of the database; for params see [pgtest.DSN].
func (d *Database) DSN(params ...string) string {
	return d.Cluster.DSN(append([]string{"dbname=" + d.Name}, params...)...)
}

// Shared returns a fresh database, dropped when the test ends. The cluster is started by the first call and closed by
// [Main].
func Shared(t testing.TB) *Database {
	t.Helper()
	skipShort(t)
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	defer cancel()
	cluster, err := sharedCluster(ctx)
	if err != nil {
		t.Fatalf("start a PostgreSQL cluster: %v", err)
	}
	db := &Database{Cluster: cluster, Name: fmt.Sprintf("test%d", shared.databases.Add(1))}
	if err := cluster.CreateDatabase(ctx, db.Name); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	t.Cleanup(func() {
		// The test's context has ended by now.
		ctx, cancel := context.WithTimeout(context.Background(), Timeout)
		defer cancel()
		if err := cluster.Exec(ctx, "drop database if exists "+db.Name+" with (force)"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return db
}

func sharedCluster(ctx context.Context) (*pgtest.Cluster, error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster != nil {
		return shared.cluster, nil
	}
	cluster, err := pgtest.Start(ctx, pgtest.Options{Name: "shared"})
	shared.cluster = cluster
	return cluster, err
}

// DSN returns the connection string of a server for a test that needs no more than one: RETRYPG_TEST_DSN as it is if
// that is set (params are not added then), else that of a [Shared] database.
func DSN(t testing.TB, params ...string) string {
	t.Helper()
	if dsn, ok := pgtest.ExternalDSN(); ok {
		skipShort(t)
		return dsn
	}
	return Shared(t).DSN(params...)
}

// Main runs the tests of a binary, closes the shared cluster and exits: func TestMain(m *testing.M) { pgt.Main(m) }.
// Without it the cluster ends a moment after the process does.
func Main(m *testing.M) {
	code := m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster != nil {
		if err := shared.cluster.Close(); err != nil {
			fmt.Fprintf(os.Stderr, "close the shared cluster: %v\n", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}
