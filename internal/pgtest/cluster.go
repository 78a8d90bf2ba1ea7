package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// Options describe a cluster. The zero value is a good one.
type Options struct {
	// Name is written as cluster_name, and so is the application_name of a standby's replication connection: the name
	// to put into synchronous_standby_names. Empty means "pg" and a number. Letters, digits, '_' and '-' only.
	Name string
	// Installation holds the programs to run; nil means what [Find] finds.
	Installation *Installation
	// Settings are written to the configuration file after the defaults of this package, which they override.
	Settings map[string]string
	// Fsync makes the cluster survive a crash of the machine. Off is faster, and a kill of every process of the
	// cluster loses no more than with fsync on, because the kernel keeps what was written.
	Fsync bool
	// Port is the TCP port on 127.0.0.1. 0 means a free one, outside the range that the kernel hands out to clients.
	// Either is kept over restarts.
	Port int
	// HBA lines come before the line that trusts every local user. A rule that refuses user postgres from 127.0.0.1
	// also refuses the methods of [Cluster] that ask the server.
	HBA []string
	// Namespace is the file of a network namespace that the server runs in, such as /proc/1234/ns/net: Linux and root
	// only. The server then listens on all addresses there, trusts every client, and listens on a Unix socket in
	// [Cluster.Dir] too, which no network namespace separates: DSN and the methods of [Cluster] go that way. A
	// standby is not made in a namespace.
	Namespace string
	// TLS turns ssl on, with a self-signed certificate for 127.0.0.1 and localhost: see [Cluster.CertFile].
	TLS bool
	// Log receives the server's log, line by line or in larger pieces, from one goroutine. nil means none; the last
	// part is kept for [Cluster.Log] in any case.
	Log io.Writer
	// ReplicateFrom is the address ("host:port") a standby streams from, such as that of a [Proxy] before the primary.
	// Empty means the primary itself. It is read by [Cluster.Standby] and [Cluster.RejoinAsStandby] only.
	ReplicateFrom string
}

// Cluster is one PostgreSQL server with its data directory, made by [Start] and ended by [Cluster.Close].
//
// The server listens on 127.0.0.1 only and trusts every connection from there, but see Options.Namespace. Its superuser
// is "postgres", its database "postgres". Started by root, the server runs as user postgres, or else nobody.
//
// Whatever ends the process that made it (a signal, a panic, os.Exit, kill -9), its servers stop and its directories
// go: one small shell process per process waits for that end. Should that one be killed too, the next
// process that calls Start sweeps.
//
// All methods are safe for concurrent use; those that start or stop the server wait for each other.
type Cluster struct {
	inst *Installation
	opts Options
	dir  string // holds data/ and the certificate
	port int
	own  *owner
	log  *logTail

	life   sync.Mutex // held while the server is being started or stopped
	mu     sync.Mutex // guards the fields below
	srv    *server    // nil when stopped
	closed bool
}

// ErrClosed is returned by the methods of a cluster or a proxy after its Close.
var ErrClosed = errors.New("pgtest: already closed")

// Start makes a cluster, starts its server and waits until it answers. It blocks until then or until ctx is done, at
// most one minute. On an error nothing is left behind.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	c, err := prepare(ctx, opts)
	if err != nil {
		return nil, err
	}
	if err := c.create(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make a cluster of PostgreSQL %s: %w", c.inst.Version, err), c.Close())
	}
	if err := c.Start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// prepare checks the options and makes a cluster's directory, without data in it.
func prepare(ctx context.Context, opts Options) (*Cluster, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	inst := opts.Installation
	if inst == nil {
		var err error
		if inst, err = Find(ctx); err != nil {
			return nil, err
		}
	}
	opts.Settings = maps.Clone(opts.Settings)
	c := &Cluster{inst: inst, opts: opts, port: opts.Port, log: newLogTail(opts.Log)}
	if c.port == 0 {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		c.port = port
	}
	if err := owned.adopt(c); err != nil {
		return nil, fmt.Errorf("make a directory for a cluster: %w", err)
	}
	return c, nil
}

func (o *Options) validate() error {
	for _, r := range o.Name {
		if r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return fmt.Errorf("cluster name %q: use letters, digits, '_' and '-'", o.Name)
		}
	}
	if o.Port < 0 || o.Port > 65535 {
		return fmt.Errorf("port %d: want 0 to 65535", o.Port)
	}
	if o.ReplicateFrom != "" {
		if _, _, err := net.SplitHostPort(o.ReplicateFrom); err != nil {
			return fmt.Errorf("ReplicateFrom: want host:port: %w", err)
		}
	}
	for name := range o.Settings {
		switch name {
		case "port", "listen_addresses", "cluster_name", "logging_collector":
			return fmt.Errorf("setting %s belongs to the cluster, it cannot be set", name)
		}
	}
	return nil
}

// Name returns the name of the cluster, see [Options].
func (c *Cluster) Name() string { return c.opts.Name }

// Installation returns the programs the cluster runs.
func (c *Cluster) Installation() Installation { return *c.inst }

// Port returns the TCP port.
func (c *Cluster) Port() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.port
}

// Addr returns "127.0.0.1:port", which leads to the server in its own network namespace only.
func (c *Cluster) Addr() string { return net.JoinHostPort("127.0.0.1", portText(c.Port())) }

// DSN returns a connection string for user postgres and database postgres. Each parameter is "key=value" and replaces
// a default ("user=app", "dbname=shop", "sslmode=verify-full") or is added. Without TLS the default is
// sslmode=disable, with it sslmode=require.
func (c *Cluster) DSN(params ...string) string {
	if c.opts.TLS {
		params = append([]string{"sslmode=require"}, params...)
	}
	return c.reach(params...)
}

// Dir returns the directory of the cluster; it is removed by Close.
func (c *Cluster) Dir() string { return c.dir }

// DataDir returns the data directory, PGDATA.
func (c *Cluster) DataDir() string { return filepath.Join(c.dir, "data") }

// CertFile returns the file with the certificate of a cluster with TLS, for sslrootcert.
func (c *Cluster) CertFile() string { return filepath.Join(c.dir, certName) }

// Log returns the last part of the server's log, at most 256 KiB.
func (c *Cluster) Log() string { return c.log.String() }

// Close stops the server at once and removes its directory. It may be called more than once.
func (c *Cluster) Close() error {
	c.life.Lock()
	defer c.life.Unlock()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()

	stopErr := c.destroyServer()
	removeSharedMemory(c.DataDir())
	err := os.RemoveAll(c.dir)
	return errors.Join(stopErr, err, c.own.release(c))
}
