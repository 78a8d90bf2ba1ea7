//go:build ha && linux

package ha_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// poll is how often Patroni is asked about what sends no event. Each answer takes milliseconds of the time that it needs to
// lead the cluster.
const poll = 100 * time.Millisecond

// cluster is three servers under Patroni, etcd, HAProxy and PgBouncer, on ports of 127.0.0.1. It has one database with the
// tables entry, of the writers, and probe.
type cluster struct {
	programs   programs
	guard      *pgtest.Guard
	stopReaper func()
	nodes      []*node
	others     []*process

	etcdPort, etcdPeerPort, haproxyPort, pgbouncerPort int
}

// node is a server with its Patroni.
type node struct {
	name      string
	dir       string
	port, api int
	patroni   *process
}

const schema = "create table entry (run text not null, id text not null); create table probe (way text not null)"

// newCluster starts a cluster and waits until it is healthy. On an error nothing is left behind.
func newCluster(ctx context.Context) (c *cluster, err error) {
	c = &cluster{}
	if c.programs, err = findPrograms(ctx); err != nil {
		return nil, err
	}
	// Before orphans are adopted, whose reaper would take the guard's shell for one.
	if c.guard, err = newGuard(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%w\n%s", err, c.logs()), c.close())
		}
	}()
	if c.stopReaper, err = adoptOrphans(); err != nil {
		return nil, err
	}
	ports := []*int{&c.etcdPort, &c.etcdPeerPort, &c.haproxyPort, &c.pgbouncerPort}
	for i := range 3 {
		n := &node{name: fmt.Sprintf("n%d", i+1)}
		c.nodes = append(c.nodes, n)
		ports = append(ports, &n.port, &n.api)
	}
	taken := map[int]bool{}
	for _, port := range ports {
		for *port == 0 || taken[*port] {
			if *port, err = pgtest.FreePort(); err != nil {
				return nil, err
			}
		}
		taken[*port] = true
	}
	if err := c.startAll(); err != nil {
		return nil, err
	}
	leader, err := c.healthy(ctx)
	if err != nil {
		return nil, err
	}
	return c, c.exec(ctx, leader, schema)
}

func (c *cluster) startAll() error {
	for _, other := range []struct {
		name, program, file, text string
		args                      []string
	}{
		{"etcd", c.programs.etcd, "", "", etcdArgs(c)},
		{"haproxy", c.programs.haproxy, "haproxy.cfg", haproxyConfig(c), []string{"-db", "-f", "haproxy.cfg"}},
		{"pgbouncer", c.programs.pgbouncer, "pgbouncer.ini", pgbouncerConfig(c), []string{"pgbouncer.ini"}},
		{"patronictl", "", "ctl.yml", patronictlConfig(c), nil},
	} {
		dir, err := c.directory(other.name)
		if err != nil {
			return err
		}
		if other.file != "" {
			if err := os.WriteFile(filepath.Join(dir, other.file), []byte(other.text), 0o644); err != nil {
				return err
			}
		}
		if other.program == "" {
			continue
		}
		p, err := start(dir, other.program, other.args...)
		if err != nil {
			return err
		}
		c.others = append(c.others, p)
	}
	for _, n := range c.nodes {
		var err error
		if n.dir, err = c.directory(n.name); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(n.dir, "patroni.yml"), []byte(patroniConfig(c, n)), 0o644); err != nil {
			return err
		}
		if err := c.startNode(n); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) directory(name string) (string, error) {
	dir := filepath.Join(c.guard.Dir(), name)
	return dir, errors.Join(os.Mkdir(dir, 0o755), pgtest.GiveToServer(dir))
}

// startNode starts the Patroni of a node, which starts its server.
func (c *cluster) startNode(n *node) (err error) {
	n.patroni, err = start(n.dir, c.programs.patroni, "patroni.yml")
	return err
}

// loseNode kills Patroni and every process of the server.
func (c *cluster) loseNode(n *node) error {
	// Patroni first: it would see its server die, and say so in etcd.
	if err := n.patroni.cmd.Process.Kill(); err != nil {
		return err
	}
	if err := signalAll(n.dir, syscall.SIGKILL); err != nil {
		return err
	}
	n.patroni.wait()
	return nil
}

// killPostmaster kills the first process of the server; the others notice and leave.
func (c *cluster) killPostmaster(n *node) error {
	text, err := os.ReadFile(filepath.Join(n.dir, "data", "postmaster.pid"))
	if err != nil {
		return err
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// freeze stops Patroni and every process of the server: connections stay open, and nothing answers.
func (c *cluster) freeze(n *node) error {
	return errors.Join(syscall.Kill(n.patroni.cmd.Process.Pid, syscall.SIGSTOP), signalAll(n.dir, syscall.SIGSTOP))
}

func (c *cluster) thaw(n *node) error { return signalAll(n.dir, syscall.SIGCONT) }

// switchover hands the leadership to another node, as an operator does.
func (c *cluster) switchover(ctx context.Context, from, to *node) error {
	_, err := run(ctx, filepath.Join(c.guard.Dir(), "patronictl"), c.programs.patronictl,
		"-c", "ctl.yml", "switchover", "--leader", from.name, "--candidate", to.name, "--force")
	return err
}

// close ends every process and removes the directory.
func (c *cluster) close() error {
	if c.stopReaper != nil {
		c.stopReaper()
	}
	err := c.guard.Close()
	for _, n := range c.nodes {
		if n.patroni != nil {
			n.patroni.wait()
		}
	}
	for _, p := range c.others {
		p.wait()
	}
	return err
}

// logs returns the ends of all logs.
func (c *cluster) logs() string {
	var all string
	for _, n := range c.nodes {
		if n.patroni == nil {
			continue // it was not reached
		}
		all += fmt.Sprintf("--- log of %s:\n%s\n", n.name, n.patroni.log(12000))
	}
	for _, p := range c.others {
		all += fmt.Sprintf("--- log of %s:\n%s\n", p.name, p.log(2000))
	}
	return all
}

// dsn returns a connection string for all servers.
func (c *cluster) dsn(params ...string) string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.addr())
	}
	return pgtest.DSN(addrs, params...)
}

func (n *node) addr() string { return fmt.Sprintf("127.0.0.1:%d", n.port) }

// connect opens a connection that is not the library's.
func (c *cluster) connect(ctx context.Context, n *node) (*pgx.Conn, error) {
	return pgx.Connect(ctx, pgtest.DSN([]string{n.addr()}))
}

func (c *cluster) exec(ctx context.Context, n *node, sql string) error {
	conn, err := c.connect(ctx, n)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}
