package outcome

import (
	"context"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// errAnswer says that a server answered something else than was asked for.
var errAnswer = errors.New("retrypg: unexpected answer to the question for a transaction's identity")

// Begun is what a transaction told of itself.
type Begun struct {
	XID       uint64   // 0 where none was assigned: on a hot standby
	Server    Identity // PID is that of this transaction also where the rest was not asked for
	Isolation string   // its isolation level, in lower case
	Began     int64    // of the token, microseconds since 1970 by the server's clock; 0 without a token
	Database  string   // of the token
}

// XIDQuery reads the id of a transaction. With full, which is for connections whose server may be another one each time,
// it reads the server's epoch too.
func (v Version) XIDQuery(full bool) string {
	if full {
		return "select case when pg_catalog.pg_is_in_recovery() then null else " + v.xid() + " end, " + isolation + ", " + v.epoch()
	}
	// pgx keeps the names of columns, and allocates nothing for one letter.
	return "select " + v.xid() + " as x, " + isolation + " as i, pg_catalog.pg_backend_pid() as p"
}

// isolation is the expression for the isolation level of the current transaction.
const isolation = "pg_catalog.current_setting('transaction_isolation')"

// TokenQuery writes a token. With known, which is for servers that said who they are, it reads the id and the epoch as
// well: who waits for the transaction's end can then end it.
func (v Version) TokenQuery(t Token, known bool) string {
	columns := ""
	if known {
		columns = ", " + v.xid() + ", " + isolation + ", " + v.epoch()
	}
	return t.Table.Insert(t.ID, t.Keep, columns)
}

// CurrentXID is the query for the id of the current transaction, of which it assigns none.
func (v Version) CurrentXID() string {
	if v >= 13 {
		return "select pg_catalog.pg_current_xact_id_if_assigned()"
	}
	return "select pg_catalog.txid_current_if_assigned()"
}

// AskXID sends what CurrentXID returned: 0 where the transaction has no id.
func AskXID(ctx context.Context, pc *pgconn.PgConn) (xid uint64, err error) {
	err = rows(pc.Exec(ctx, VersionOf(pc).CurrentXID()), func(values [][]byte) (err error) {
		if len(values) != 1 {
			return errAnswer
		}
		if values[0] != nil {
			if xid, err = strconv.ParseUint(text(values[0]), 10, 64); err != nil {
				return errAnswer
			}
		}
		return nil
	})
	return xid, err
}

// Begin sends BEGIN, or nothing of that, with what XIDQuery or TokenQuery returned behind it, as one message. id is what
// is known of the connection's server. Where the error is the server's and leaves an aborted transaction, it is about the
// question.
func Begin(ctx context.Context, pc *pgconn.PgConn, sql string, withToken bool, id *Identity) (b Begun, err error) {
	b.Server = *id
	err = rows(pc.Exec(ctx, sql), func(values [][]byte) (err error) {
		if withToken {
			if len(values) < 2 {
				return errAnswer
			}
			if b.Began, err = strconv.ParseInt(text(values[0]), 10, 64); err != nil {
				return errAnswer
			}
			b.Database, values = text(values[1]), values[2:]
		}
		return b.scan(values)
	})
	return b, err
}

// ReadBegun reads a row of XIDQuery without full. id is what is known of the connection's server.
func ReadBegun(values [][]byte, id *Identity) (b Begun, err error) {
	if len(values) == 0 {
		return b, errAnswer
	}
	b.Server = *id
	err = b.scan(values)
	return b, err
}

// scan reads the id, the isolation level, and the process or the whole epoch.
func (b *Begun) scan(values [][]byte) (err error) {
	if len(values) == 0 {
		return nil // a token alone
	}
	if len(values) < 3 {
		return errAnswer
	}
	if values[0] != nil {
		if b.XID, err = strconv.ParseUint(text(values[0]), 10, 64); err != nil {
			return errAnswer
		}
	}
	b.Isolation = level(values[1])
	if len(values) > 3 {
		return b.Server.scanEpoch(values[2:])
	}
	pid, err := strconv.ParseUint(text(values[2]), 10, 32)
	if err != nil {
		return errAnswer
	}
	if b.Server.PID != uint32(pid) {
		// Another server process than the one that said who it is: behind a pooler that could not be recognised. Of its
		// server nothing is known.
		b.XID, b.Server = 0, Identity{PID: uint32(pid)}
	}
	return nil
}

// level returns the name of an isolation level, without allocating for the usual ones.
func level(b []byte) string {
	switch string(b) {
	case ReadCommitted:
		return ReadCommitted
	case ReadUncommitted:
		return ReadUncommitted
	}
	return text(b)
}

// The isolation levels whose statements each see what is committed when they begin.
const (
	ReadCommitted   = "read committed"
	ReadUncommitted = "read uncommitted"
)
