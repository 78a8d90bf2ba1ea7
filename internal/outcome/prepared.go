package outcome

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
)

// Names of the prepared statements of a connection. They begin like nothing that pgx makes.
const (
	preparedBegin = "retrypg_begin"
	// PreparedXID is XIDQuery.
	PreparedXID = "retrypg_xid"
)

// Prepared is BEGIN with XIDQuery, of which the server has a plan: it spends a third of what the text costs it. It is for one
// connection, which must lead to one server process.
type Prepared struct {
	message pgconn.Batch // never sent itself: sending appends to it
	sent    pgconn.Batch // a copy, for one time
}

// Prepare prepares the statements on a connection, in one round trip.
func Prepare(ctx context.Context, pc *pgconn.PgConn) (*Prepared, error) {
	pipeline := pc.StartPipeline(ctx)
	pipeline.SendPrepare(preparedBegin, "begin", nil)
	pipeline.SendPrepare(PreparedXID, VersionOf(pc).XIDQuery(false), nil)
	err := pipeline.Sync()
	for err == nil {
		var result any
		if result, err = pipeline.GetResults(); result == nil {
			break
		}
	}
	if closed := pipeline.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return nil, err
	}
	p := &Prepared{}
	p.message.ExecPrepared(preparedBegin, nil, nil, nil)
	p.message.ExecPrepared(PreparedXID, nil, nil, nil)
	return p, nil
}

// Begin begins a transaction and reads its id, as the function Begin does.
func (p *Prepared) Begin(ctx context.Context, pc *pgconn.PgConn, id *Identity) (b Begun, err error) {
	b.Server = *id
	p.sent = p.message // with the same buffer, which has room for what is appended
	err = rows(pc.ExecBatch(ctx, &p.sent), func(values [][]byte) error { return b.scan(values) })
	return b, err
}
