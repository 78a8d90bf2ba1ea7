package tx_test

import (
	"context"
	"testing"

	"github.com/retrypg/retrypg"
)

// work is the transaction that a closure works on, over database/sql or pgx.
type work interface {
	exec(ctx context.Context, query string, args ...any) error
	// value returns the only column of the only row, as text.
	value(ctx context.Context, query string, args ...any) (string, error)
	commit(ctx context.Context) error
	rollback(ctx context.Context) error
}

// closure is what WithTx and WithPgxTx run.
type closure func(ctx context.Context, w work) error

// database is what WithTx or WithPgxTx is called with.
type database interface {
	withTx(ctx context.Context, opts retrypg.TxOptions, fn closure) error
	withTxResult(ctx context.Context, opts retrypg.TxOptions, fn func(context.Context, work) (string, error)) (string, error)
	// exec runs a statement outside of any transaction.
	exec(ctx context.Context, query string) error
	close()
}

// adapter is one kind of database, and what may be expected of it.
type adapter struct {
	name string
	// ours: the handle is retrypg's, so that options apply to it and it waits for servers that are away.
	ours bool
	// status: WithTx sees the connection below, so it knows COMMIT's tag and notices a COMMIT or ROLLBACK sent as text.
	status bool
	// cause: WithTx knows which error aborted a transaction, and whether anything was sent.
	cause bool
	// pinned: there is one connection, and no other to replace it.
	pinned bool
	// open opens a handle with at most size connections. opts are for those that are ours.
	open func(t *testing.T, dsn string, size int, opts []retrypg.Option) database
}

// adapters are all kinds of databases that the suite runs over.
var adapters = []adapter{
	{name: "retrypg_sql.DB", ours: true, status: true, cause: true, open: openRetrypgDB},
	{name: "retrypg_sql.Conn", ours: true, status: true, cause: true, pinned: true, open: openRetrypgSQLConn},
	{name: "pgx_sql.DB", open: openPgxDB},
	{name: "pgx_sql.Conn", pinned: true, open: openPgxSQLConn},
	{name: "retrypg.Pool", ours: true, status: true, cause: true, open: openRetrypgPool},
	{name: "retrypg.Pool_Conn", status: true, cause: true, pinned: true, open: openRetrypgPoolConn},
	{name: "pgxpool_configured", status: true, cause: true, open: openConfiguredPool},
	{name: "pgxpool", status: true, open: openPgxPool},
	{name: "pgx.Conn", status: true, pinned: true, open: openPgxConn},
}

// each runs test as a subtest for every adapter, each with a schema of its own.
func each(t *testing.T, test func(t *testing.T, s *stage)) {
	t.Helper()
	some(t, func(adapter) bool { return true }, test)
}

// some is each for the adapters that fit.
func some(t *testing.T, fit func(adapter) bool, test func(t *testing.T, s *stage)) {
	t.Helper()
	server := newShared(t)
	admin := newAdmin(t, server.DSN())
	for _, a := range adapters {
		if fit(a) {
			t.Run(a.name, func(t *testing.T) { test(t, newStage(t, server, admin, a)) })
		}
	}
}

func ours(a adapter) bool   { return a.ours }
func pooled(a adapter) bool { return !a.pinned }

// settles: WithTx can ask the server what became of a COMMIT whose answer was lost, as it sees the connection below.
func settles(a adapter) bool { return a.status }
