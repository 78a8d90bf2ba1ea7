//go:build ha && linux

package ha_test

import (
	"fmt"
	"strings"
)

// The times of Patroni, in seconds: how long the leader's key lives, how often each node looks, and how long it tries to
// reach etcd and its server. They are the shortest that Patroni takes (loop_wait + 2*retry_timeout <= ttl, and ttl is half
// a minute by default), so that the loss of a node takes seconds.
const (
	ttl          = 6
	loopWait     = 1
	retryTimeout = 2
)

// fsync is off: processes are killed here, not the kernel, which has what they wrote. primary_start_timeout 0: a server that
// crashed is not waited for, another one takes over. wal_retrieve_retry_interval is 5 s by default, for which a standby may
// wait before it follows the new primary; until one does, a COMMIT on it waits too.
func patroniConfig(c *cluster, n *node) string {
	return fmt.Sprintf(`scope: rp
name: %[1]s
restapi: {listen: "127.0.0.1:%[2]d", connect_address: "127.0.0.1:%[2]d"}
etcd: {host: "127.0.0.1:%[3]d"}
bootstrap:
  dcs:
    ttl: %[4]d
    loop_wait: %[5]d
    retry_timeout: %[6]d
    maximum_lag_on_failover: 1048576
    primary_start_timeout: 0
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        wal_level: replica
        hot_standby: "on"
        wal_log_hints: "on"
        max_connections: 200
        max_wal_senders: 10
        max_replication_slots: 10
        wal_keep_size: 128MB
        wal_retrieve_retry_interval: 100ms
        shared_buffers: 32MB
        fsync: "off"
  initdb: [{encoding: UTF8}, {locale: C}, data-checksums]
postgresql:
  listen: "127.0.0.1:%[7]d"
  connect_address: "127.0.0.1:%[7]d"
  data_dir: %[8]s/data
  bin_dir: %[9]s
  pgpass: %[8]s/pgpass
  basebackup: [{checkpoint: fast}]
  authentication:
    superuser: {username: postgres, password: postgres}
    replication: {username: repl, password: repl}
    rewind: {username: postgres, password: postgres}
  pg_hba: ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
  parameters: {unix_socket_directories: ""}
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
watchdog: {mode: "off"}
`, n.name, n.api, c.etcdPort, ttl, loopWait, retryTimeout, n.port, n.dir, c.programs.postgres)
}

func patronictlConfig(c *cluster) string {
	return fmt.Sprintf("scope: rp\netcd: {host: \"127.0.0.1:%d\"}\n", c.etcdPort)
}

// etcdArgs turn the old API on, which Patroni is told to use. Over the new one Patroni 3.0 keeps a copy of the cluster's state
// and renews its key without comparing: a leader that stood still takes the leadership back when it goes on, if it looks at
// the copy before the changes reach it, and all that was written meanwhile is lost (patroni/dcs/etcd3.py, _update_leader).
func etcdArgs(c *cluster) []string {
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", c.etcdPort), fmt.Sprintf("http://127.0.0.1:%d", c.etcdPeerPort)
	return []string{
		"--name", "e0", "--data-dir", "data-of-etcd", "--unsafe-no-fsync", "--enable-v2",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "e0=" + peer,
	}
}

// haproxyConfig has one port, which leads to the primary. What a node that is not the primary any more still has of
// connections is cut, as else those to a server that stands still would stay for ever.
func haproxyConfig(c *cluster) string {
	var servers strings.Builder
	for _, n := range c.nodes {
		fmt.Fprintf(&servers, "  server %s 127.0.0.1:%d check port %d\n", n.name, n.port, n.api)
	}
	return fmt.Sprintf(`global
  maxconn 500
defaults
  mode tcp
  retries 2
  timeout connect 2s
  timeout client 30m
  timeout server 30m
  timeout check 1s
listen primary
  bind 127.0.0.1:%d
  option httpchk OPTIONS /primary
  http-check expect status 200
  default-server inter 200ms fall 2 rise 1 on-marked-down shutdown-sessions
%s`, c.haproxyPort, servers.String())
}

func pgbouncerConfig(c *cluster) string {
	return fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%d dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
admin_users = postgres
pool_mode = transaction
default_pool_size = 40
server_login_retry = 0.05
server_connect_timeout = 3
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
`, c.haproxyPort, c.pgbouncerPort)
}
