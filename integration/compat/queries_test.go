package compat_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/Masterminds/squirrel"
	"github.com/georgysavva/scany/v2/pgxscan"
	"github.com/georgysavva/scany/v2/sqlscan"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

func TestSquirrelIsTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		s.exec(t, cityTable)
		cache := squirrel.NewStmtCache(s.db)
		defer func() { require.NoError(t, cache.Clear()) }()
		for _, runner := range []squirrel.BaseRunner{s.db, cache} {
			sq := squirrel.StatementBuilder.PlaceholderFormat(squirrel.Dollar).RunWith(runner)
			var id int64
			s.fail("insert", sq.Insert("city").Columns("name", "population").Values("A", 5).Values("B", nil).Suffix("returning id").QueryRowContext(s.ctx).Scan(&id))
			s.note("id", id)
			_, err := sq.Update("city").Set("population", squirrel.Expr("coalesce(population, 0) + ?", 1)).Where(squirrel.Eq{"name": []string{"A", "B"}}).ExecContext(s.ctx)
			s.fail("update", err)
			var sum sql.NullInt64
			s.fail("select", sq.Select("sum(population)").From("city").Where(squirrel.And{squirrel.Like{"name": "%"}, squirrel.GtOrEq{"id": 1}}).QueryRowContext(s.ctx).Scan(&sum))
			s.note("sum", sum)
			_, err = sq.Insert("city").Columns("name").Values("A").ExecContext(s.ctx)
			s.fail("duplicate", err)
			_, err = sq.Delete("city").Where("name is not null").ExecContext(s.ctx)
			s.fail("delete", err)
		}
	})
}

func TestScanyIsTheSameOnDatabaseSQL(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		s.exec(t, cityTable, "insert into city (name, population) values ('A', 5), ('B', null)")
		var all []*city
		require.NoError(t, sqlscan.Select(s.ctx, s.db, &all, "select * from city where id > $1 order by id", 0))
		s.note("all", all)
		var one city
		s.fail("no rows", sqlscan.Get(s.ctx, s.db, &one, "select * from city where id = -1"))
		s.fail("missing column", sqlscan.Get(s.ctx, s.db, &one, "select nothing from city"))
		var maps []map[string]any
		require.NoError(t, sqlscan.Select(s.ctx, s.db, &maps, "select name, population from city order by id"))
		s.note("maps", maps)
	})
}

// pgxDB is the interface that sqlc generates for pgx, with its copyfrom and batch queries.
type pgxDB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

var (
	_ pgxDB = (*retrypg.Pool)(nil)
	_ pgxDB = (*pgxpool.Pool)(nil)
)

func TestPgxQueriesAreTheSameOnAPool(t *testing.T) {
	program := func(t *testing.T, s *stage, db pgxDB) {
		s.exec(t, cityTable)
		n, err := db.CopyFrom(s.ctx, pgx.Identifier{"city"}, []string{"name", "population"}, pgx.CopyFromRows([][]any{{"A", 5}, {"B", nil}}))
		s.note("copied", []any{n, err})
		_, err = db.CopyFrom(s.ctx, pgx.Identifier{"city"}, []string{"name"}, pgx.CopyFromRows([][]any{{"A"}}))
		s.fail("duplicate copied", err)
		tag, err := db.Exec(s.ctx, "update city set population = population + $1", 1)
		s.note("updated", []any{tag.String(), err})
		_, err = db.Exec(s.ctx, "insert into city (name) values (@name)", pgx.NamedArgs{"name": "A"})
		s.fail("duplicate", err)

		var all []city
		require.NoError(t, pgxscan.Select(s.ctx, db, &all, "select * from city where id > $1 order by id", 0))
		s.note("scany, all", all)
		var one city
		s.fail("scany, no rows", pgxscan.Get(s.ctx, db, &one, "select * from city where id = -1"))
		s.fail("scany, missing column", pgxscan.Select(s.ctx, db, &all, "select nothing from city"))

		rows, err := db.Query(s.ctx, "select id, name, population, mayor from city order by id")
		require.NoError(t, err)
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[city])
		s.note("collected", []any{found, err})
		rows, _ = db.Query(s.ctx, "select nothing from city") // as pgx's documentation has it: the error comes with the rows
		_, err = pgx.CollectRows(rows, pgx.RowTo[int])
		s.fail("missing column", err)
		rows, _ = db.Query(s.ctx, "select 1 / (2 - id) from city order by id")
		numbers, err := pgx.CollectRows(rows, pgx.RowTo[int])
		s.note("an error after some rows", []any{numbers, err})
		rows, _ = db.Query(s.ctx, "select name from city order by id")
		var name string
		tag, err = pgx.ForEachRow(rows, []any{&name}, func() error {
			s.note("each", name)
			return nil
		})
		s.note("after each", []any{tag.String(), err})
		s.fail("no rows", db.QueryRow(s.ctx, "select 1 where false").Scan(new(int)))
		s.fail("wrong target", db.QueryRow(s.ctx, "select 'x'").Scan(new(int)))
		s.fail("wrong argument", db.QueryRow(s.ctx, "select $1::int", "x").Scan(new(int)))

		batch := &pgx.Batch{}
		batch.Queue("insert into city (name) values ($1)", "C").Exec(func(tag pgconn.CommandTag) error {
			s.note("batch, insert", tag.String())
			return nil
		})
		batch.Queue("select count(*) from city").QueryRow(func(row pgx.Row) error {
			var n int
			err := row.Scan(&n)
			s.note("batch, count", n)
			return err
		})
		batch.Queue("insert into city (name) values ('A')")
		s.fail("batch", db.SendBatch(s.ctx, batch).Close())
		require.NoError(t, db.QueryRow(s.ctx, "select count(*) from city").Scan(&n))
		s.note("after the batch", n)
	}
	t.Run("embedded", func(t *testing.T) {
		sameOverPools(t, allModes, func(t *testing.T, s *stage, pool *pgxpool.Pool) { program(t, s, pool) })
	})
	t.Run("own methods", func(t *testing.T) {
		sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
			if s.driver == "pgx" {
				program(t, s, pools[0].open(t, s))
				return
			}
			pool, err := retrypg.NewPool(s.ctx, s.dsn)
			require.NoError(t, err)
			defer pool.Close()
			program(t, s, pool)
		})
	})
}
