package compat_test

import (
	"database/sql"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"
)

type city struct {
	ID         int64
	Name       string
	Population sql.NullInt64
	Mayor      *string
}

const cityTable = "create table city (id bigint generated always as identity primary key, name text not null unique, population bigint, mayor text)"

// sqlx knows the placeholders of "pgx" by its name; ours has to be told to it once.
func init() { sqlx.BindDriver("retrypg", sqlx.DOLLAR) }

func TestSqlxIsTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		db := sqlx.NewDb(s.db, s.driver).Unsafe()
		s.exec(t, cityTable)
		s.note("placeholders", db.Rebind("select ?, ?"))

		mayor := "Ann"
		res, err := db.NamedExecContext(s.ctx, "insert into city (name, population, mayor) values (:name, :population, :mayor)", []city{
			{Name: "A", Population: sql.NullInt64{Int64: 5, Valid: true}}, {Name: "B", Mayor: &mayor}, {Name: "C"},
		})
		require.NoError(t, err)
		n, err := res.RowsAffected()
		require.NoError(t, err)
		s.note("inserted", n)
		_, err = res.LastInsertId()
		s.fail("last insert id", err)

		var one city
		require.NoError(t, db.GetContext(s.ctx, &one, "select * from city where name = $1", "B"))
		s.note("get", one)
		var all []city
		require.NoError(t, db.SelectContext(s.ctx, &all, "select * from city order by id"))
		s.note("select", all)
		query, args, err := sqlx.In("select name from city where id in (?) and name <> ? order by id", []int{1, 2, 3}, "C")
		require.NoError(t, err)
		var names []string
		require.NoError(t, db.SelectContext(s.ctx, &names, db.Rebind(query), args...))
		s.note("in", names)

		rows, err := db.NamedQueryContext(s.ctx, "select * from city where name >= :from order by id", map[string]any{"from": "B"})
		require.NoError(t, err)
		defer func() { require.NoError(t, rows.Close()) }()
		for rows.Next() {
			row := map[string]any{}
			require.NoError(t, rows.MapScan(row))
			s.note("map", []any{row["id"], row["name"], row["population"], row["mayor"]})
		}
		require.NoError(t, rows.Err())
		values, err := db.QueryRowxContext(s.ctx, "select * from city where id = 1").SliceScan()
		require.NoError(t, err)
		s.note("slice", values)

		s.fail("no rows", db.GetContext(s.ctx, &one, "select * from city where id = -1"))
		s.fail("missing column", db.SelectContext(s.ctx, &all, "select nothing from city"))
		_, err = db.NamedExecContext(s.ctx, "insert into city (name) values (:name)", city{Name: "A"})
		s.fail("duplicate", err)
		_, err = db.NamedExecContext(s.ctx, "insert into city (name) values (:nome)", city{Name: "A"})
		s.fail("missing name", err)
	})
}

func TestSqlxsTransactionsAndStatementsAreTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		db := sqlx.NewDb(s.db, s.driver)
		s.exec(t, cityTable)
		insert, err := db.PrepareNamedContext(s.ctx, "insert into city (name) values (:name) returning *")
		require.NoError(t, err)
		defer func() { require.NoError(t, insert.Close()) }()
		read, err := db.PreparexContext(s.ctx, "select * from city where id > $1 order by id")
		require.NoError(t, err)
		defer func() { require.NoError(t, read.Close()) }()

		tx, err := db.BeginTxx(s.ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
		require.NoError(t, err)
		var isolation string
		require.NoError(t, tx.GetContext(s.ctx, &isolation, "show transaction_isolation"))
		s.note("isolation", isolation)
		var made city
		bound := tx.NamedStmtContext(s.ctx, insert)
		defer func() { s.fail("close a statement of a transaction that is over", bound.Close()) }()
		for _, name := range []string{"A", "B"} {
			require.NoError(t, bound.GetContext(s.ctx, &made, city{Name: name}))
			s.note("inserted", made)
		}
		s.fail("duplicate", bound.GetContext(s.ctx, &made, city{Name: "A"}))
		_, err = tx.ExecContext(s.ctx, "select 1")
		s.fail("in the aborted transaction", err)
		s.fail("commit of the aborted transaction", tx.Commit())

		tx, err = db.Beginx()
		require.NoError(t, err)
		_, err = tx.NamedExec("insert into city (name) values (:name)", map[string]any{"name": "C"})
		require.NoError(t, err)
		s.fail("commit", tx.Commit())
		s.fail("rollback", tx.Rollback())

		var all []city
		require.NoError(t, read.SelectContext(s.ctx, &all, 0))
		s.note("in the end", all)
		s.fail("wrong argument", read.SelectContext(s.ctx, &all, "zero"))
	})
}

func TestSqlxConnectsByTheDriversName(t *testing.T) {
	sameOverBoth(t, []string{cacheStatement}, func(t *testing.T, s *stage) {
		db, err := sqlx.ConnectContext(s.ctx, s.driver, s.dsn)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		var n int
		require.NoError(t, db.Get(&n, db.Rebind("select ?::int"), 7))
		s.note("value", n)
	})
}
