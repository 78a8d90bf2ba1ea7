package outcome

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Identity is what a transaction id belongs to: it says nothing on a server with another one.
type Identity struct {
	System   string // system identifier of the cluster, the same for a primary and its standbys
	Timeline uint32 // of the WAL: a promotion begins a new one; 0 on a hot standby
	Epoch    Epoch
	PID      uint32 // of the server process
	Standby  bool   // the server is in recovery
	ReadOnly bool   // transactions of the session are READ ONLY unless they say otherwise, as all are in recovery
}

// Known reports whether the server said who it is.
func (id *Identity) Known() bool { return id.System != "" }

// Epoch is the time between two crashes of a server. A crash of one backend is one too: the postmaster then restarts all.
type Epoch struct {
	Started    string // pg_postmaster_start_time, in microseconds
	Replayed   string // pg_last_wal_replay_lsn: where the last recovery ended; empty without one
	StatsReset string // of the statistics, which a crash discards (PostgreSQL 15 and later); empty before
}

// Same reports whether no crash lies between e and o. Each of two witnesses is enough, as none stays the same over a
// crash: the pair of Started and Replayed, which a clean restart changes too, and StatsReset, which it does not, but which
// an administrator can change. Measured by crashing servers: each told every crash apart.
func (e Epoch) Same(o Epoch) bool {
	return e.Started != "" && e.Started == o.Started && e.Replayed == o.Replayed ||
		e.StatsReset != "" && e.StatsReset == o.StatsReset
}

// String returns the epoch as a text that ParseEpoch reads.
func (e Epoch) String() string {
	if e == (Epoch{}) {
		return ""
	}
	return e.Started + "|" + e.Replayed + "|" + e.StatsReset
}

// ParseEpoch reads what String wrote. What it did not write becomes an epoch that is the same as no other.
func ParseEpoch(s string) (e Epoch) {
	if parts := strings.Split(s, "|"); len(parts) == 3 {
		e.Started, e.Replayed, e.StatsReset = parts[0], parts[1], parts[2]
	}
	return e
}

// Version is the major version of a PostgreSQL server, 0 where it is not known.
type Version int

// VersionOf reads the parameter server_version, as in "15.18 (Debian 15.18-1)", "17beta1".
func VersionOf(pc *pgconn.PgConn) Version {
	s := pc.ParameterStatus("server_version")
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		s = s[:end]
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return Version(n)
}

const (
	// epochColumns are the columns of an Identity that a pooler's next server connection may have other values of.
	// Times are numbers, as their text depends on settings of the session.
	epochColumns = "pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery()," +
		" case when pg_catalog.pg_is_in_recovery() then null else pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) end," +
		" (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint, pg_catalog.pg_last_wal_replay_lsn(), "
	// PostgreSQL discards its statistics after a crash since 15. Before, this asks a process of its own, which is slow.
	statsColumn   = "(extract(epoch from pg_catalog.pg_stat_get_bgwriter_stat_reset_time()) * 1000000)::bigint"
	epochWidth    = 6
	identityWidth = epochWidth + 2
)

// epoch is the list of the columns that scanEpoch reads.
func (v Version) epoch() string {
	if v >= 15 {
		return epochColumns + statsColumn
	}
	return epochColumns + "null"
}

// identity is the list of the columns that scan reads. Who may not ask for ids, which any role may by default, is not told of the
// system.
func (v Version) identity() string {
	return v.epoch() + ", (select system_identifier from pg_catalog.pg_control_system() where pg_catalog.has_function_privilege('" + v.xid() +
		"', 'execute')), pg_catalog.current_setting('transaction_read_only')"
}

// xid is the expression for the id of the current transaction, which it assigns.
func (v Version) xid() string {
	if v >= 13 {
		return "pg_catalog.pg_current_xact_id()"
	}
	return "pg_catalog.txid_current()"
}

// status is the expression for what became of the transaction with that id.
func (v Version) status(xid uint64) string {
	if v >= 13 {
		return fmt.Sprintf("pg_catalog.pg_xact_status('%d')", xid)
	}
	return fmt.Sprintf("pg_catalog.txid_status(%d)", xid)
}

// Read asks the server of a connection who it is, in one round trip. A server that cannot say, as one that is not
// PostgreSQL, answers with an ERROR, which leaves the connection usable.
func Read(ctx context.Context, pc *pgconn.PgConn) (id Identity, err error) {
	err = rows(pc.Exec(ctx, "select "+VersionOf(pc).identity()), func(values [][]byte) error { return id.scan(values) })
	if err != nil {
		return Identity{}, err
	}
	return id, nil
}

// InRecovery asks whether the server is a hot standby.
func InRecovery(ctx context.Context, pc *pgconn.PgConn) (standby bool, err error) {
	answered := false
	err = rows(pc.Exec(ctx, "select pg_catalog.pg_is_in_recovery()"), func(values [][]byte) error {
		if len(values) != 1 {
			return errAnswer
		}
		standby, answered = text(values[0]) == "t", true
		return nil
	})
	if err == nil && !answered {
		err = errAnswer
	}
	return standby, err
}

// rows calls each with every row of all results, whose values are valid until it returns.
func rows(results *pgconn.MultiResultReader, each func(values [][]byte) error) error {
	var failed error
	for results.NextResult() {
		for r := results.ResultReader(); r.NextRow(); {
			if err := each(r.Values()); err != nil && failed == nil {
				failed = err
			}
		}
	}
	if err := results.Close(); err != nil {
		return err
	}
	return failed
}

// scan reads a row of Version.identity.
func (id *Identity) scan(values [][]byte) error {
	if len(values) != identityWidth {
		return errAnswer
	}
	if err := id.scanEpoch(values[:epochWidth]); err != nil {
		return err
	}
	id.System, id.ReadOnly = text(values[epochWidth]), text(values[epochWidth+1]) == "on"
	return nil
}

// scanEpoch reads a row of Version.epoch.
func (id *Identity) scanEpoch(values [][]byte) error {
	if len(values) != epochWidth {
		return errAnswer
	}
	pid, err := strconv.ParseUint(text(values[0]), 10, 32)
	if err != nil {
		return errAnswer
	}
	id.PID, id.Standby, id.Timeline = uint32(pid), text(values[1]) == "t", 0
	if !id.Standby {
		timeline, err := strconv.ParseUint(text(values[2]), 16, 32)
		if err != nil {
			return errAnswer
		}
		id.Timeline = uint32(timeline)
	}
	id.Epoch = Epoch{Started: text(values[3]), Replayed: text(values[4]), StatsReset: text(values[5])}
	if id.Epoch.Started == "" {
		return errAnswer
	}
	return nil
}

// maxText bounds what is kept of a value: numbers and positions in the WAL, which are much shorter.
const maxText = 64

func text(b []byte) string { return string(b[:min(len(b), maxText)]) }
