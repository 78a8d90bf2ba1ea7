package outcome

import (
	"context"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// errAnswer says that a server answered something else than was asked for.
var errAnswer = errors.New("retrypg: unexpected answer to the question for a transaction's identity")

// Begun is what BEGIN told of a transaction.
type Begun struct {
	XID    uint64   // 0 where none was assigned: on a hot standby
	Server Identity // PID is that of this transaction also where the rest was not asked for
	Began  int64    // of the token, microseconds since 1970 by the server's clock; 0 without a token
}

// XIDQuery is what follows BEGIN to read the transaction's id. With full, which is for connections whose server may be
// another one each time, it reads the server's epoch too.
func (v Version) XIDQuery(full bool) string {
	if full {
		return "; select case when pg_catalog.pg_is_in_recovery() then null else " + v.xid() + " end, " + v.epoch()
	}
	// pgx keeps the names of columns, and allocates nothing for one letter.
	return "; select " + v.xid() + " as x, pg_catalog.pg_backend_pid() as p"
}

// TokenQuery is what follows BEGIN to write a token. With known, which is for servers that said who they are, it reads the
// id and the epoch as well: who waits for the transaction's end can then end it.
func (v Version) TokenQuery(t Table, token string, known bool) string {
	columns := ""
	if known {
		columns = ", " + v.xid() + ", " + v.epoch()
	}
	return "; " + t.Insert(token, columns)
}

// Begin sends BEGIN with what XIDQuery or TokenQuery returned behind it, as one message. id is what is known of the
// connection's server. Where the error is the server's and leaves an aborted transaction, it is about the second part.
func Begin(ctx context.Context, pc *pgconn.PgConn, sql string, withToken bool, id *Identity) (b Begun, err error) {
	b.Server = *id
	err = rows(pc.Exec(ctx, sql), func(values [][]byte) (err error) {
		if withToken {
			if len(values) == 0 {
				return errAnswer
			}
			if b.Began, err = strconv.ParseInt(text(values[0]), 10, 64); err != nil {
				return errAnswer
			}
			values = values[1:]
		}
		return b.scan(values)
	})
	return b, err
}

// scan reads the id, and the process or the whole epoch.
func (b *Begun) scan(values [][]byte) (err error) {
	if len(values) == 0 {
		return nil // a token alone
	}
	if values[0] != nil {
		if b.XID, err = strconv.ParseUint(text(values[0]), 10, 64); err != nil {
			return errAnswer
		}
	}
	if len(values) > 2 {
		return b.Server.scanEpoch(values[1:])
	}
	if len(values) != 2 {
		return errAnswer
	}
	pid, err := strconv.ParseUint(text(values[1]), 10, 32)
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
