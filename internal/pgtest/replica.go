package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Standby makes a cluster that streams from this one, starts it and waits until it answers queries. Settings, HBA, TLS
// and the installation are taken over from this cluster; opts.Settings are added, and opts.HBA replaces. Replication
// is asynchronous until the standby's name is put into synchronous_standby_names, as Synchronize does.
func (c *Cluster) Standby(ctx context.Context, opts Options) (*Cluster, error) {
	if c.opts.Namespace != "" || opts.Namespace != "" {
		return nil, errors.New("a standby cannot be made in or from a network namespace")
	}
	settings := maps.Clone(c.opts.Settings)
	if settings == nil {
		settings = make(map[string]string)
	}
	maps.Copy(settings, opts.Settings)
	opts.Settings = settings
	opts.Installation = c.inst
	opts.TLS = opts.TLS || c.opts.TLS
	opts.Fsync = opts.Fsync || c.opts.Fsync
	if opts.HBA == nil {
		opts.HBA = c.opts.HBA
	}
	standby, err := prepare(ctx, opts)
	if err != nil {
		return nil, err
	}
	if err := standby.clone(ctx, c); err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	if err := standby.Start(ctx); err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	return standby, nil
}

// RejoinAsStandby makes this cluster a standby of another: its server is stopped at once, its data replaced by a new
// copy of the primary's, and it is started on the same port. What only it had committed is lost, as with pg_rewind.
func (c *Cluster) RejoinAsStandby(ctx context.Context, primary *Cluster) error {
	if c == primary {
		return errors.New("a cluster cannot be its own standby")
	}
	if err := c.StopImmediate(ctx); err != nil {
		return err
	}
	removeSharedMemory(c.DataDir())
	if err := os.RemoveAll(c.DataDir()); err != nil {
		return err
	}
	if err := c.clone(ctx, primary); err != nil {
		return err
	}
	return c.Start(ctx)
}

// clone copies a running primary through the backup functions of the server, not through pg_basebackup: that program
// is missing from the packages that npm has, and refuses servers newer than itself.
func (c *Cluster) clone(ctx context.Context, primary *Cluster) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("copy server %s to %s: %w", primary.Name(), c.Name(), err)
		}
	}()
	startBackup, stopBackup := "select pg_backup_start('pgtest', true)", "select labelfile from pg_backup_stop(false)"
	if primary.inst.Major < 15 { // the names of before, with the exclusive mode off
		startBackup = "select pg_start_backup('pgtest', true, false)"
		stopBackup = "select labelfile from pg_stop_backup(false, false)"
	}
	// A backup ends when its connection does: one connection for both.
	conn, err := pgconn.Connect(ctx, primary.adminDSN())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, startBackup).ReadAll(); err != nil {
		return err
	}
	if err := copyTree(ctx, primary.DataDir(), c.DataDir(), leftOutOfBackup); err != nil {
		return err
	}
	results, err := conn.Exec(ctx, stopBackup).ReadAll()
	if err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return errors.New("the end of the backup has no label")
	}
	// The WAL written up to here makes the copy consistent, even if it cannot stream.
	wal := "pg_wal"
	if err := copyTree(ctx, filepath.Join(primary.DataDir(), wal), filepath.Join(c.DataDir(), wal), nil); err != nil {
		return err
	}
	if err := c.writeData("backup_label", string(results[0].Rows[0][0])); err != nil {
		return err
	}
	if err := c.configure(); err != nil {
		return err
	}
	return c.follow(primary)
}

// leftOutOfBackup names what belongs to a running server and not to its data (the documentation of the backup
// functions lists it).
func leftOutOfBackup(name string, isDir bool) bool {
	switch name {
	case "postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal", "backup_label":
		return true
	}
	switch dir := path.Dir(name); dir {
	case "pg_wal":
		return !isDir || path.Base(name) != "archive_status" && path.Base(name) != "summaries"
	case "pg_wal/archive_status", "pg_wal/summaries", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial",
		"pg_snapshots", "pg_stat_tmp", "pg_subtrans":
		return true
	}
	return strings.HasPrefix(path.Base(name), "pgsql_tmp") || path.Base(name) == "pg_internal.init"
}

// follow makes the stopped cluster a standby that streams from primary.
func (c *Cluster) follow(primary *Cluster) error {
	if err := c.writeData("standby.signal", ""); err != nil {
		return err
	}
	conninfo, err := c.conninfo(primary)
	if err != nil {
		return err
	}
	// Later lines of this file win, and ALTER SYSTEM keeps them in order.
	file := filepath.Join(c.DataDir(), "postgresql.auto.conf")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, "primary_conninfo = "+quoteSetting(conninfo)+"\n"...), 0o600)
}

func (c *Cluster) conninfo(primary *Cluster) (string, error) {
	addr := c.opts.ReplicateFrom
	if addr == "" {
		addr = primary.Addr()
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres application_name=%s sslmode=prefer "+
		"connect_timeout=5", host, port, c.Name()), nil
}

// Follow makes a running standby stream from another primary, such as the one that was promoted beside it.
func (c *Cluster) Follow(ctx context.Context, primary *Cluster) error {
	conninfo, err := c.conninfo(primary)
	if err != nil {
		return err
	}
	return c.Set(ctx, "primary_conninfo", conninfo)
}

// Promote makes a standby a primary and waits until it takes writes.
func (c *Cluster) Promote(ctx context.Context) error {
	promoted, err := c.Value(ctx, "select pg_promote(true, 30)") // it waits at most 30 s
	if err != nil {
		return err
	}
	if promoted != "t" {
		return fmt.Errorf("promote %s: still a standby after 30 s", c.Name())
	}
	return c.WaitUntil(ctx, "not pg_is_in_recovery()")
}

// WaitReplayed waits until this standby has replayed what the primary has written so far.
func (c *Cluster) WaitReplayed(ctx context.Context, primary *Cluster) error {
	lsn, err := primary.Value(ctx, "select pg_current_wal_flush_lsn()")
	if err != nil {
		return err
	}
	return c.WaitUntil(ctx, "pg_last_wal_replay_lsn() >= '"+lsn+"'::pg_lsn")
}

// Synchronize makes every COMMIT of this primary wait for the standby of that name from now on, which must be there.
func (c *Cluster) Synchronize(ctx context.Context, name string) error {
	if err := c.Set(ctx, "synchronous_standby_names", name); err != nil {
		return err
	}
	return c.WaitUntil(ctx, "exists (select from pg_stat_replication where sync_state = 'sync' and application_name = '"+
		strings.ReplaceAll(name, "'", "''")+"')")
}

// WaitStreaming waits until this primary has a standby of that name that has caught up with it.
func (c *Cluster) WaitStreaming(ctx context.Context, name string) error {
	return c.WaitUntil(ctx, "exists (select from pg_stat_replication where state = 'streaming' and application_name = '"+
		strings.ReplaceAll(name, "'", "''")+"')")
}
