package compat_test

import (
	"testing"
	"testing/fstest"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	migratepq "github.com/golang-migrate/migrate/v4/database/postgres"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

var migrateFiles = fstest.MapFS{
	"1_item.up.sql":   {Data: []byte("create table item (id int primary key, name text);\ninsert into item values (1, 'one');\n")},
	"1_item.down.sql": {Data: []byte("drop table item;")},
	"2_more.up.sql": {Data: []byte("create function twice(n int) returns int language sql as $$ select n * 2 $$;\n" +
		"alter table item add twice int;\nupdate item set twice = twice(id);\n")},
	"2_more.down.sql":  {Data: []byte("alter table item drop twice;\ndrop function twice;\n")},
	"3_index.up.sql":   {Data: []byte("create index concurrently item_name on item (name);")},
	"3_index.down.sql": {Data: []byte("drop index concurrently item_name;")},
	"4_wrong.up.sql":   {Data: []byte("insert into item values (2, 'two');\ninsert into item\n  valuues (3);\n")},
	"4_wrong.down.sql": {Data: []byte("select 1;")},
}

// instance is one of golang-migrate's two drivers for PostgreSQL on the stage's handle.
type instance func(*stage) (database.Driver, error)

func onPgx(s *stage) (database.Driver, error) {
	return migratepgx.WithInstance(s.db, &migratepgx.Config{})
}

func onPgxStatementByStatement(s *stage) (database.Driver, error) {
	return migratepgx.WithInstance(s.db, &migratepgx.Config{MultiStatementEnabled: true, MigrationsTable: "applied", StatementTimeout: limit})
}

// onPq is made for lib/pq: it works on any driver's handle, but knows only the errors of its own.
func onPq(s *stage) (database.Driver, error) {
	return migratepq.WithInstance(s.db, &migratepq.Config{})
}

func TestGolangMigrateIsTheSame(t *testing.T) {
	t.Run("pgx", func(t *testing.T) { sameOverBoth(t, allModes, migrating(onPgx)) })
	t.Run("pgx, statement by statement", func(t *testing.T) {
		sameOverBoth(t, []string{cacheStatement, simple}, migrating(onPgxStatementByStatement))
	})
	t.Run("postgres", func(t *testing.T) { sameOverBoth(t, allModes, migrating(onPq)) })
}

func migrating(open instance) program {
	return func(t *testing.T, s *stage) {
		files, err := iofs.New(migrateFiles, ".")
		require.NoError(t, err)
		// Close of golang-migrate's driver closes its handle too, so it gets one of its own.
		s.db = s.open(t)
		drv, err := open(s)
		require.NoError(t, err)
		m, err := migrate.NewWithInstance("iofs", files, s.driver, drv)
		require.NoError(t, err)
		version := func() {
			v, dirty, err := m.Version()
			s.note("version", []any{v, dirty, err})
		}

		version()
		s.fail("three up", m.Steps(3))
		version()
		err = m.Up()
		s.fail("wrong", err)
		version()
		var dbErr database.Error
		require.ErrorAs(t, err, &dbErr)
		s.note("line", dbErr.Line)
		s.note("query", dbErr.Query)
		s.fail("original", dbErr.OrigErr)
		var pgErr *pgconn.PgError
		require.ErrorAs(t, dbErr.OrigErr, &pgErr)
		s.fail("dirty", m.Up())
		s.fail("force", m.Force(3))
		s.fail("down", m.Down())
		version()
		s.fail("up by two", m.Migrate(2))
		s.fail("no change", m.Migrate(2))
		require.ErrorIs(t, m.Migrate(2), migrate.ErrNoChange)
		s.fail("drop", m.Drop())
		srcErr, dbCloseErr := m.Close()
		require.NoError(t, srcErr)
		s.fail("close", dbCloseErr)
	}
}
