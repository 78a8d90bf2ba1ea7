package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/outcome"
)

// facts are what one server said. What it did not say has its error in unanswered.
type facts struct {
	connected   time.Duration
	address     string
	tls         *tls.ConnectionState
	verified    bool // its certificate was looked at
	version     string
	number      string // server_version
	pid         uint32 // of the server process, as it says; 0: it does not
	announced   uint32 // as it was said when the connection was made
	standby     bool
	settings    map[string]setting
	identity    outcome.Identity
	identityErr error // it does not say who it is
	statusErr   error // it does not say what became of a transaction
	ledger      ledgerFacts
	connections connectionFacts
	unanswered  []unanswered
}

type unanswered struct {
	question string
	err      error
}

// setting is one line of pg_settings.
type setting struct{ value, unit, source string }

// ledgerFacts are about the table of tokens.
type ledgerFacts struct {
	table  string // as SQL
	exists bool
	usable bool // INSERT, SELECT and DELETE are granted, or, where it does not exist, CREATE in its schema
}

// connectionFacts are how many connections there are, and may be; a negative limit is none.
type connectionFacts struct{ used, role, database int }

// settingNames are the settings that are looked at; not every version has all.
var settingNames = []string{
	"client_connection_check_interval", "default_transaction_isolation", "default_transaction_read_only", "fsync",
	"full_page_writes", "idle_in_transaction_session_timeout", "idle_session_timeout", "lock_timeout", "max_connections",
	"reserved_connections", "statement_timeout", "superuser_reserved_connections", "synchronous_commit",
	"synchronous_standby_names", "tcp_keepalives_count", "tcp_keepalives_idle", "tcp_keepalives_interval",
	"tcp_user_timeout", "transaction_timeout",
}

// ask asks everything over one connection. Nothing is written, and nothing of the session is changed: it may be one that
// a pooler hands to somebody else afterwards. Each question is a message of the simple protocol, which every pooler takes.
func ask(ctx context.Context, pc *pgconn.PgConn, table string) *facts {
	f := &facts{
		address: pc.Conn().RemoteAddr().String(), number: pc.ParameterStatus("server_version"), announced: pc.PID(),
		connections: connectionFacts{used: -1, role: -1, database: -1},
	}
	if secure, ok := pc.Conn().(*tls.Conn); ok {
		state := secure.ConnectionState()
		f.tls = &state
	}
	try := func(question string, err error) {
		if err != nil {
			f.unanswered = append(f.unanswered, unanswered{question, err})
		}
	}
	try("its version", f.askVersion(ctx, pc))
	standby, err := outcome.InRecovery(ctx, pc)
	f.standby = standby
	try("whether it is a standby", err)
	try("its settings", f.askSettings(ctx, pc))
	f.identity, f.identityErr = outcome.Read(ctx, pc)
	f.statusErr = askStatus(ctx, pc)
	try("the ledger table", f.askLedger(ctx, pc, table))
	try("how many connections there are", f.askConnections(ctx, pc))
	return f
}

// query returns all rows of one statement.
func query(ctx context.Context, pc *pgconn.PgConn, sql string) (rows [][]string, err error) {
	results, err := pc.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		for _, row := range r.Rows {
			texts := make([]string, len(row))
			for i, value := range row {
				texts[i] = string(value)
			}
			rows = append(rows, texts)
		}
	}
	return rows, nil
}

// one returns the only row, of that many columns.
func one(ctx context.Context, pc *pgconn.PgConn, columns int, sql string) ([]string, error) {
	rows, err := query(ctx, pc, sql)
	if err == nil && (len(rows) != 1 || len(rows[0]) != columns) {
		err = fmt.Errorf("%d rows came back where one of %d columns was expected", len(rows), columns)
	}
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

func (f *facts) askVersion(ctx context.Context, pc *pgconn.PgConn) error {
	row, err := one(ctx, pc, 2, "select version(), pg_backend_pid()")
	if err != nil {
		return err
	}
	f.version = row[0]
	if pid, err := strconv.ParseUint(row[1], 10, 32); err == nil {
		f.pid = uint32(pid)
	}
	return nil
}

func (f *facts) askSettings(ctx context.Context, pc *pgconn.PgConn) error {
	likes := make([]string, len(services))
	for i, s := range services {
		likes[i] = "name like '" + strings.ReplaceAll(s.prefix, "_", `\_`) + "%'"
	}
	rows, err := query(ctx, pc, "select name, setting, coalesce(unit, ''), source from pg_catalog.pg_settings where name in ('"+
		strings.Join(settingNames, "', '")+"') or "+strings.Join(likes, " or "))
	if err != nil {
		return err
	}
	f.settings = make(map[string]setting, len(rows))
	for _, row := range rows {
		if len(row) == 4 {
			f.settings[row[0]] = setting{row[1], row[2], row[3]}
		}
	}
	return nil
}

// askStatus asks for a transaction of long ago, as a check of a COMMIT does for a new one. Its answer does not matter.
func askStatus(ctx context.Context, pc *pgconn.PgConn) error {
	sql := "select pg_catalog.pg_xact_status('3'), pg_catalog.has_function_privilege('pg_catalog.pg_current_xact_id()', 'execute')"
	if v := outcome.VersionOf(pc); v > 0 && v < 13 {
		sql = "select pg_catalog.txid_status(3), pg_catalog.has_function_privilege('pg_catalog.txid_current()', 'execute')"
	}
	row, err := one(ctx, pc, 2, sql)
	if err == nil && row[1] != "t" {
		err = fmt.Errorf("the role may not call the function that gives a transaction's id")
	}
	return err
}

func (f *facts) askLedger(ctx context.Context, pc *pgconn.PgConn, name string) error {
	table, ok := outcome.ParseTable(name)
	if !ok {
		return fmt.Errorf("%q is no name of a table with its schema", name)
	}
	f.ledger.table = table.String()
	row, err := one(ctx, pc, 1, table.Exists())
	if err != nil {
		return err
	}
	f.ledger.exists = row[0] == "t"
	schema, _, _ := strings.Cut(name, ".")
	sql := "select coalesce((select pg_catalog.has_schema_privilege(oid, 'create') from pg_catalog.pg_namespace where nspname = " + literal(schema) + "), false)"
	if f.ledger.exists {
		var grants []string
		for _, right := range []string{"insert", "select", "delete"} {
			grants = append(grants, "pg_catalog.has_table_privilege("+literal(table.String())+", '"+right+"')")
		}
		sql = "select " + strings.Join(grants, " and ")
	}
	if row, err = one(ctx, pc, 1, sql); err == nil {
		f.ledger.usable = row[0] == "t"
	}
	return err
}

// literal writes a string as SQL, where standard_conforming_strings is on or s has no backslash.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (f *facts) askConnections(ctx context.Context, pc *pgconn.PgConn) error {
	row, err := one(ctx, pc, 3, "select (select coalesce(sum(numbackends), 0) from pg_catalog.pg_stat_database)::bigint,"+
		" (select rolconnlimit from pg_catalog.pg_roles where rolname = current_user),"+
		" (select datconnlimit from pg_catalog.pg_database where datname = current_database())")
	if err != nil {
		return err
	}
	for i, n := range []*int{&f.connections.used, &f.connections.role, &f.connections.database} {
		if value, err := strconv.Atoi(row[i]); err == nil {
			*n = value
		}
	}
	return nil
}

// duration returns a setting that is a time, and whether it is there.
func (f *facts) duration(name string) (time.Duration, bool) {
	s, ok := f.settings[name]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(s.value, 10, 64)
	units := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "min": time.Minute}
	unit, known := units[s.unit]
	if err != nil || !known {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// number returns a setting that is a count, and 0 where it is not there.
func (f *facts) count(name string) int {
	n, _ := strconv.Atoi(f.settings[name].value)
	return n
}

// off reports whether a switch is there and off.
func (f *facts) off(name string) bool { return f.settings[name].value == "off" }

// pooled reports whether a pooler is in between: it announces a process of its own making.
func (f *facts) pooled() bool { return f.pid != 0 && f.pid != f.announced }

// answered reports whether a question was answered.
func (f *facts) answered(question string) bool {
	return !slices.ContainsFunc(f.unanswered, func(u unanswered) bool { return u.question == question })
}
