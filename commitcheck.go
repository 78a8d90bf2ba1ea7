package retrypg

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// CommitCheck is how the outcome of a COMMIT whose answer was lost is found out. Zero, in TxOptions, is the setting of the
// connector or pool.
type CommitCheck uint8

const (
	// XID asks the server what became of the transaction's id, which a read-write transaction reads with its first query. It is the
	// default of a connector. After a crash of the server or a failover in between, PostgreSQL may have
	// handed out the same id again, and an answer "committed" is then reported as unknown.
	XID CommitCheck = iota + 1
	// Ledger writes a token into a table with each read-write transaction and looks for it: exact also after a crash, a
	// failover, and on servers that have no transaction ids to ask for. It costs an insert per transaction, and makes one
	// that writes nothing else write that. See WithLedgerTable.
	Ledger
	// NoCheck asks nothing: a COMMIT whose answer was lost is unknown.
	NoCheck
)

// String returns the word for c in a DSN: "xid", "ledger", "off".
func (c CommitCheck) String() string {
	switch c {
	case XID:
		return "xid"
	case Ledger:
		return "ledger"
	case NoCheck:
		return "off"
	}
	return "default"
}

// Querier asks the database one question: a *pgx.Conn, or what stands for it.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ServerIdentity tells apart what a transaction id is unique in: the cluster, its timeline, and the time between two
// crashes of its server.
type ServerIdentity struct {
	// SystemIdentifier is that of pg_control_system(): the same for a primary and its standbys.
	SystemIdentifier string
	// Timeline is that of the server's WAL; a promotion begins a new one.
	Timeline uint32
	// Epoch changes when the server has crashed. Its text is not for reading.
	Epoch string
}

// CommitCheckInfo tells Hooks.CommitChecked what became of a COMMIT whose answer was lost.
type CommitCheckInfo struct {
	Name    string        // TxOptions.Name
	Outcome string        // "committed", "not_applied" or "unknown"
	Asked   int           // how often the server was asked
	Fenced  bool          // the server process of the transaction was terminated to end it
	Elapsed time.Duration // since the answer was found lost
	Err     error         // what came in place of the answer
}
