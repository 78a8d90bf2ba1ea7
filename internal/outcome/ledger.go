package outcome

import (
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxIdentifier is the length in bytes of the longest name (NAMEDATALEN - 1, pg_config_manual.h). PostgreSQL cuts longer
// ones.
const maxIdentifier = 63

// Table is the name of a ledger table.
type Table struct{ schema, name string }

// ParseTable reads a name with its schema, as in public.retrypg_ledger. A name without one is refused: where search_path
// differs between two connections, they would look into different tables, and not find what is there. The parts are taken
// as they are, without folding to lower case.
func ParseTable(s string) (t Table, ok bool) {
	schema, name, ok := strings.Cut(s, ".")
	valid := func(part string) bool {
		return part != "" && len(part) <= maxIdentifier && !strings.ContainsAny(part, ".\"\x00") && strings.TrimSpace(part) == part
	}
	return Table{schema: schema, name: name}, ok && valid(schema) && valid(name)
}

// String returns the name as SQL.
func (t Table) String() string { return pgx.Identifier{t.schema, t.name}.Sanitize() }

// Create is the statement that makes the table: one index serves the insert of a token, the question for it, and the
// clean-up by age, and new rows go to its end.
func (t Table) Create() string {
	return "create table if not exists " + t.String() + ` (
  begun bigint not null default (extract(epoch from transaction_timestamp()) * 1000000)::bigint,
  keep bigint not null,
  token uuid not null,
  primary key (begun, token)
)`
}

// Exists is the query whether the table is there, which needs no right to make it.
func (t Table) Exists() string {
	return "select pg_catalog.to_regclass('" + strings.ReplaceAll(t.String(), "'", "''") + "') is not null"
}

// Insert is the statement that a transaction writes its token with. It returns when the transaction began, by the
// server's clock in microseconds since 1970, the name of the database, and what columns add.
func (t Table) Insert(token string, keep time.Duration, columns string) string {
	return "insert into " + t.String() + " (keep, token) values (" + microseconds(keep) + ", '" + token + "')" +
		" returning begun, pg_catalog.current_database()" + columns
}

// claim inserts the token again. It waits for a transaction that has inserted it and is still in progress.
func (t Table) claim(token Token) string {
	return "insert into " + t.String() + " (begun, keep, token) values (" + strconv.FormatInt(token.Begun, 10) + ", " +
		microseconds(token.Keep) + ", '" + token.ID + "') on conflict do nothing returning 1"
}

// CleanUp deletes up to limit tokens that are older than keep and than they are to be kept, which another program may
// have set to be longer; those of other clients' clean-ups are left out. It is one message for after a transaction, which
// the server ends after timeout.
func (t Table) CleanUp(keep time.Duration, limit int, timeout time.Duration) string {
	name := t.String()
	const now = "(extract(epoch from pg_catalog.now()) * 1000000)::bigint"
	return "begin isolation level read committed; set local statement_timeout = " + strconv.FormatInt(timeout.Milliseconds(), 10) +
		"; delete from " + name + " where (begun, token) in (select begun, token from (select begun, token, keep from " + name +
		" where begun < " + now + " - " + microseconds(keep) + " order by begun, token limit " + strconv.Itoa(limit) +
		" for update skip locked) old where begun < " + now + " - keep); commit"
}

func microseconds(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }

// Token is the row of one transaction in a ledger.
type Token struct {
	Table    Table
	ID       string        // a UUID
	Begun    int64         // microseconds since 1970, by the server's clock
	Keep     time.Duration // how long it is kept: an older one may be gone although its transaction committed
	Database string        // where the table is
}

// String returns the token as a text that ParseToken reads.
func (t Token) String() string {
	return strings.Join([]string{t.Table.schema, t.Table.name, strconv.FormatInt(t.Begun, 10), microseconds(t.Keep), t.ID, t.Database}, ".")
}

// ParseToken reads what String wrote.
func ParseToken(s string) (t Token, ok bool) {
	parts := strings.SplitN(s, ".", 6)
	if len(parts) != 6 || !validUUID(parts[4]) || parts[5] == "" {
		return Token{}, false
	}
	table, ok := ParseTable(parts[0] + "." + parts[1])
	begun, err := strconv.ParseInt(parts[2], 10, 64)
	keep, kerr := strconv.ParseInt(parts[3], 10, 64)
	if !ok || err != nil || kerr != nil || keep < 0 || keep > maxKeep.Microseconds() {
		return Token{}, false
	}
	return Token{Table: table, ID: parts[4], Begun: begun, Keep: time.Duration(keep) * time.Microsecond, Database: parts[5]}, true
}

// maxKeep bounds what is believed of a token's retention, far above any that can be set.
const maxKeep = 100 * 365 * 24 * time.Hour

// validUUID reports whether s can be put between quotes: it may come from a program that has kept it.
func validUUID(s string) bool {
	return len(s) == 36 && strings.Trim(s, "0123456789abcdef-") == ""
}
