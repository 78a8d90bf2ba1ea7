package doctor

import (
	"fmt"
	"strings"
	"time"
)

// short is below what a server under load may need, or a failover takes. Chosen: a second is what callers of a busy
// server wait for locks, connections and checkpoints without anything being wrong.
const short = time.Second

// judgeSettings says which settings of the session would hurt. They are as the server, the database, the role or the DSN
// has them.
func (d *Doctor) judgeSettings(e *examined) {
	for _, s := range []struct {
		name, does, advice string
	}{
		{"statement_timeout", "ends a statement that takes longer with 57014, which is not run again", "give it time for the slowest statement, and bound calls by their contexts"},
		{"lock_timeout", "ends a statement that waits longer for a lock with 55P03: WithTx runs the transaction again", ""},
		{"idle_in_transaction_session_timeout", "ends the connection of a transaction in which nothing is sent for so long with 25P03: WithTx runs it again", "do no other work in the closure of a transaction"},
		{"transaction_timeout", "ends a transaction that takes longer with 25P04, which is not run again", "give it time for the longest transaction"},
		{"idle_session_timeout", "closes connections that are idle for so long; retrypg replaces them", "let the pool close them before: SetConnMaxIdleTime, pool_max_conn_idle_time"},
	} {
		limit, known := e.facts.duration(s.name)
		if !known || limit == 0 {
			continue
		}
		level, advice := Note, ""
		if limit <= short || s.name == "idle_session_timeout" {
			advice = s.advice
		}
		if limit <= short {
			level = Warning
		}
		e.report.add(level, s.name, fmt.Sprintf("%v (%s): %s", limit, from(e.facts.settings[s.name]), s.does), advice)
	}
	d.judgeDurability(e)
	d.judgeReadOnly(e)
}

// from says where a setting is set.
func from(s setting) string {
	switch s.source {
	case "client":
		return "from the DSN"
	case "default":
		return "the server's default"
	case "user":
		return "set for the role"
	case "database":
		return "set for the database"
	case "database user":
		return "set for the role in this database"
	}
	return "from the " + s.source
}

// judgeDurability says which confirmed transactions can be lost, which no client finds out.
func (d *Doctor) judgeDurability(e *examined) {
	f, h := e.facts, &e.report
	for _, name := range []string{"fsync", "full_page_writes"} {
		if f.off(name) {
			h.add(Problem, name, "off: a crash of the machine can corrupt the whole cluster", "turn it on, unless the data can be thrown away")
		}
	}
	commit, standbys := f.settings["synchronous_commit"].value, f.settings["synchronous_standby_names"].value
	switch {
	case commit == "off":
		h.add(Warning, "synchronous_commit", "off: a crash can lose transactions that were confirmed, and retrypg cannot tell",
			"turn it on for transactions that must not be lost")
	case standbys != "" && commit == "local":
		h.add(Warning, "synchronous_commit", "local, although there are synchronous standbys: a failover can lose transactions that were confirmed",
			"set it to on")
	case standbys != "":
		h.add(OK, "synchronous_commit", commit+", with synchronous standbys", "")
	}
}

// judgeReadOnly says where every transaction is read-only although the server is no standby.
func (d *Doctor) judgeReadOnly(e *examined) {
	f := e.facts
	if f.standby || f.settings["default_transaction_read_only"].value != "on" {
		return
	}
	level, text := Warning, "on ("+from(f.settings["default_transaction_read_only"])+"): writes fail with 25006, as on a standby"
	if d.target.role() == "read-write" {
		level, text = Problem, text+", and target_session_attrs=read-write never accepts the server"
	}
	e.report.add(level, "default_transaction_read_only", text, "turn it off for the role or database that writes")
}

// slow is when the server is late to find out about a client that vanished. Chosen: twelve times what retrypg takes.
const slow = 2 * time.Minute

// judgeVanished says how long the server keeps the locks of a client that vanished.
func (d *Doctor) judgeVanished(e *examined, r *Report) {
	f := e.facts
	idle, known := f.duration("tcp_keepalives_idle")
	if !known || e.host.socket() || f.pooled() || strings.EqualFold(d.target.key("tcp_server_side", "off"), "on") {
		return
	}
	interval, _ := f.duration("tcp_keepalives_interval")
	found := idle + interval*time.Duration(f.count("tcp_keepalives_count"))
	if found > 0 && found <= slow {
		return
	}
	after := "after " + found.String()
	if found <= 0 {
		after = "when its system's keepalive does, after two hours on Linux"
	}
	e.report.add(Note, "tcp_keepalives_idle", "the server notices a client that vanished, and gives its locks back, "+after,
		"give tcp_server_side=on")
	r.change("tcp_server_side", "on", "the server is slow to notice a client that vanished")
}

// Shares of the connections in use. Chosen: below the first there is room for a second instance of most programs.
const (
	crowded = 0.8
	full    = 1.0
)

// judgeConnections says how much room for connections there is.
func (d *Doctor) judgeConnections(e *examined) {
	f, h := e.facts, &e.report
	limit := f.count("max_connections")
	reserved := f.count("superuser_reserved_connections") + f.count("reserved_connections")
	if limit == 0 || f.connections.used < 0 {
		return
	}
	free := max(limit-reserved-f.connections.used, 0)
	text := fmt.Sprintf("%d of %d in use, %d reserved", f.connections.used, limit, reserved)
	share := float64(f.connections.used) / float64(max(limit-reserved, 1))
	switch {
	case share >= full:
		h.add(Problem, "max_connections", text+": there is no room for another one (53300)", "raise it, make the pools smaller, or put a pooler in between")
	case share >= crowded:
		h.add(Warning, "max_connections", text, "raise it, make the pools smaller, or put a pooler in between")
	default:
		h.add(OK, "max_connections", text, "")
	}
	for _, l := range []struct {
		limit int
		whose string
	}{{f.connections.role, "the role"}, {f.connections.database, "the database"}} {
		if l.limit >= 0 {
			h.add(Note, "connection_limit", fmt.Sprintf("%s may have %d connections", l.whose, l.limit), "keep the sum of all pools below")
			free = min(free, l.limit)
		}
	}
	if pool := int(d.target.poolConns); pool > free && !f.pooled() {
		h.add(Warning, "pool_max_conns", fmt.Sprintf("the pool may open %d connections, and the server has room for %d more", pool, free), "make it smaller")
	}
}
