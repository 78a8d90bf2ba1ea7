package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
)

// dsnConnector makes a driver that knows only DSNs a driver.Connector.
type dsnConnector struct {
	driver driver.Driver
	dsn    string
}

func (c dsnConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c dsnConnector) Driver() driver.Driver                        { return c.driver }

// errWrongRow says that a query gave something else than the number that it asked for.
var errWrongRow = errors.New("the row is not what was asked for")

// execOnce runs a statement without rows.
func execOnce(ctx context.Context) func(db *sql.DB) error {
	return func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "insert into item (note) values ($1)", 1)
		return err
	}
}

// queryOnce reads a row with one number.
func queryOnce(ctx context.Context) func(db *sql.DB) error {
	return func(db *sql.DB) error {
		var n int64
		if err := db.QueryRowContext(ctx, "select $1::bigint", 1).Scan(&n); err != nil {
			return err
		}
		if n != 1 {
			return errWrongRow
		}
		return nil
	}
}

// layerGroups measure what each layer adds to database/sql over pgx, on a server that takes no time. The context is one that
// cannot end: for others database/sql and pgx start goroutines, which would be measured too.
func layerGroups(ctx context.Context) (groups []group, done func(), err error) {
	list, err := openDatabases(ctx, "postgres://app@wire.invalid/app?sslmode=disable", dialWire)
	if err != nil {
		return nil, nil, err
	}
	const work = " over a connection in memory that answers while it is written to, so that only the client's work is left. \"more\" is the " +
		"difference to pgx's own driver."
	const note = "retrypg is bound to pgx and cannot lie over a fake driver; all others lie over pgx's here. The look at the socket that retrypg " +
		"takes when a connection is handed out is missing: this connection has none. It is in the tables with a real server."
	endless := context.Background()
	return []group{
		{
			title: "database/sql layer, exec", work: "An ExecContext with one argument" + work, note: note, base: pgxName,
			aim:        "at most 120 ns more and no allocation more; with metrics 500 ns, and none.",
			contenders: list.contenders(execOnce(endless)),
		},
		{
			title: "database/sql layer, query", work: "A QueryRowContext with one argument and one row" + work, note: note, base: pgxName,
			aim:        "at most 150 ns more and no allocation more; with metrics 500 ns, and none.",
			contenders: list.contenders(queryOnce(endless)),
		},
	}, func() { _ = list.close() }, nil
}
