package cost_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// The columns of the table below, in the order of wayNames.
type perWay [8]int

var wayNames = [...]string{"pgx", "pgxpool", "off", "xid", "ledger", "Pool", "WithTx", "WithPgxTx"}

const (
	insertNote = "insert into item (note) values ($1)"
	selectNote = "select $1::text"
)

// roundTrips is how many round trips a transaction takes on a connection that is open and has seen it before: what plain
// pgx takes, what BeginTx of database/sql takes with each commit check, and what the other ways take with the default one. BEGIN and
// the question for the id travel with the first statement; a token of the ledger is written with a BEGIN by itself, at
// REPEATABLE READ and above before COMMIT. Without a commit check nobody has said that there is no pooler in between, and a simple Query waits
// for BEGIN.
var roundTrips = []struct {
	name string
	transaction
	mode string // default_query_exec_mode
	//           pgx  pgxpool  off  xid  ledger  Pool  WithTx  WithPgxTx
	want perWay
}{
	{
		name: "empty",
		want: perWay{2, 2, 0, 0, 2, 0, 0, 0},
	},
	{
		name: "one statement", transaction: transaction{text: insertNote, statements: 1},
		want: perWay{3, 3, 2, 2, 3, 2, 2, 2},
	},
	{
		name: "two statements", transaction: transaction{text: insertNote, statements: 2},
		want: perWay{4, 4, 3, 3, 4, 3, 3, 3},
	},
	{
		name: "read only", transaction: transaction{text: selectNote, statements: 1, readOnly: true},
		want: perWay{3, 3, 2, 2, 2, 2, 2, 2},
	},
	{
		name: "serializable", transaction: transaction{text: insertNote, statements: 1, level: sql.LevelSerializable},
		want: perWay{3, 3, 2, 2, 4, 2, 2, 2},
	},
	{
		name: "prepared", transaction: transaction{text: insertNote, statements: 1, prepared: true},
		want: perWay{3, 3, 2, 2, 3, 2, 2, 2},
	},
	{
		name: "exec mode simple_protocol", transaction: transaction{text: insertNote, statements: 1}, mode: "simple_protocol",
		want: perWay{3, 3, 3, 2, 3, 2, 2, 2},
	},
	{
		name: "exec mode exec", transaction: transaction{text: insertNote, statements: 1}, mode: "exec",
		want: perWay{3, 3, 2, 2, 3, 2, 2, 2},
	},
}

func TestATransactionTakesAsManyRoundTripsAsTheTableSays(t *testing.T) {
	c := pgt.New(t, pgtest.Options{})
	require.NoError(t, c.Exec(t.Context(), "create table item (note text)"))
	proxy := pgt.Proxy(t, c.Addr())
	for _, row := range roundTrips {
		t.Run(row.name, func(t *testing.T) {
			dsn := func(keys ...string) string {
				if row.mode != "" {
					keys = append(keys, "default_query_exec_mode="+row.mode)
				}
				return proxy.DSN(keys...)
			}
			const one = "pool_max_conns=1"
			var got perWay
			for i, run := range [len(got)]func(context.Context) error{
				row.sql(t, "pgx", dsn(), false),
				row.pgx(t, plainPool(dsn(one)), false),
				row.sql(t, "retrypg", dsn("retry_commit_check=off"), false),
				row.sql(t, "retrypg", dsn("retry_commit_check=xid"), false),
				row.sql(t, "retrypg", dsn("retry_commit_check=ledger"), false),
				row.pgx(t, ownPool(dsn(one)), false),
				row.sql(t, "retrypg", dsn(), true),
				row.pgx(t, ownPool(dsn(one)), true),
			} {
				for range warmUp {
					require.NoError(t, run(t.Context()), wayNames[i])
				}
				before := proxy.Stats().Flights
				require.NoError(t, run(t.Context()), wayNames[i])
				got[i] = proxy.Stats().Flights - before
			}
			require.Equal(t, row.want, got, "of %v", wayNames)
		})
	}
}

// warmUp is how often a transaction is run before its round trips are counted: the first ones connect, prepare what is sent
// again and again, and make the table of the ledger.
const warmUp = 20
