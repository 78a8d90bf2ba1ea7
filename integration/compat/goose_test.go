package compat_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/stretchr/testify/require"
)

var gooseFiles = fstest.MapFS{
	"00001_tables.sql": {Data: []byte(`-- +goose Up
create table item (id int primary key, name text);
insert into item values (1, 'one'), (2, 'two');
-- +goose Down
drop table item;
`)},
	"00002_function.sql": {Data: []byte(`-- +goose Up
-- +goose StatementBegin
create function twice(n int) returns int language plpgsql as $$
begin
  return n * 2;
end $$;
-- +goose StatementEnd
-- +goose Down
drop function twice;
`)},
	"00003_index.sql": {Data: []byte(`-- +goose NO TRANSACTION
-- +goose Up
create index concurrently item_name on item (name);
-- +goose Down
drop index concurrently item_name;
`)},
}

var gooseBroken = fstest.MapFS{
	"00001_tables.sql":   gooseFiles["00001_tables.sql"],
	"00002_function.sql": gooseFiles["00002_function.sql"],
	"00003_index.sql":    gooseFiles["00003_index.sql"],
	"00005_broken.sql": {Data: []byte(`-- +goose Up
insert into item values (3, 'three');
insert into item values (1, 'one again');
-- +goose Down
select 1;
`)},
}

// renaming is a migration written in Go.
func renaming() *goose.Migration {
	return goose.NewGoMigration(4,
		&goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "update item set name = upper(name) where id >= $1", 1)
			return err
		}},
		&goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "update item set name = lower(name)")
			return err
		}})
}

func TestGooseMigratesTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		migrations := func(files fs.FS) *goose.Provider {
			locker, err := lock.NewPostgresSessionLocker()
			require.NoError(t, err)
			p, err := goose.NewProvider(goose.DialectPostgres, s.db, files,
				goose.WithGoMigrations(renaming()), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
			require.NoError(t, err)
			return p
		}
		p := migrations(gooseFiles)
		noteVersion(t, s, p)
		noteMigrations(s, "up", p.Up)
		noteMigrations(s, "up again", p.Up)
		noteVersion(t, s, p)
		var name string
		require.NoError(t, s.db.QueryRowContext(s.ctx, "select name || twice(id) from item where id = 2").Scan(&name))
		s.note("migrated", name)

		broken := migrations(gooseBroken)
		results, err := broken.Up(s.ctx)
		noteResults(s, "broken", results)
		s.fail("broken", err)
		var partial *goose.PartialError
		require.ErrorAs(t, err, &partial)
		s.fail("cause", partial.Err)
		noteVersion(t, s, broken)

		noteMigrations(s, "down to 1", func(ctx context.Context) ([]*goose.MigrationResult, error) { return p.DownTo(ctx, 1) })
		noteVersion(t, s, p)
		noteMigrations(s, "down", func(ctx context.Context) ([]*goose.MigrationResult, error) { return p.DownTo(ctx, 0) })
		_, err = p.Down(s.ctx)
		require.ErrorIs(t, err, goose.ErrNoNextVersion)
		s.fail("nothing left", err)
	})
}

func noteMigrations(s *stage, label string, run func(context.Context) ([]*goose.MigrationResult, error)) {
	results, err := run(s.ctx)
	noteResults(s, label, results)
	s.fail(label, err)
}

func noteResults(s *stage, label string, results []*goose.MigrationResult) {
	for _, r := range results {
		s.note(label, []any{r.Source.Version, r.Direction, r.Empty, r.Error})
	}
}

func noteVersion(t *testing.T, s *stage, p *goose.Provider) {
	t.Helper()
	version, err := p.GetDBVersion(s.ctx)
	require.NoError(t, err)
	s.note("version", version)
	states, err := p.Status(s.ctx)
	require.NoError(t, err)
	for _, st := range states {
		s.note("status", []any{st.Source.Version, string(st.State)})
	}
}

// The older interface of goose, with its settings in the package.
func TestGoosesPackageFunctionsAreTheSame(t *testing.T) {
	goose.SetBaseFS(gooseFiles)
	goose.SetLogger(goose.NopLogger())
	t.Cleanup(func() { goose.SetBaseFS(nil) })
	require.NoError(t, goose.SetDialect("postgres"))
	sameOverBoth(t, []string{cacheStatement, simple}, func(t *testing.T, s *stage) {
		s.fail("up by one", goose.UpByOneContext(s.ctx, s.db, "."))
		s.fail("up", goose.UpContext(s.ctx, s.db, "."))
		s.fail("no next", goose.UpByOneContext(s.ctx, s.db, "."))
		version, err := goose.GetDBVersionContext(s.ctx, s.db)
		require.NoError(t, err)
		s.note("version", version)
		s.fail("redo", goose.RedoContext(s.ctx, s.db, "."))
		s.fail("reset", goose.ResetContext(s.ctx, s.db, "."))
		err = goose.DownContext(s.ctx, s.db, ".")
		s.note("nothing left", errors.Is(err, goose.ErrNoCurrentVersion))
		s.fail("nothing left", err)
	})
}
