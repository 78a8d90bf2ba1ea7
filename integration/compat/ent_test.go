package compat_test

import (
	"database/sql"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/schema"
	"entgo.io/ent/dialect/sql/sqlgraph"
	"entgo.io/ent/schema/field"
	"github.com/stretchr/testify/require"
)

// entTables is what ent's code generator would make of two entities.
func entTables(withAge bool) []*schema.Table {
	id := &schema.Column{Name: "id", Type: field.TypeInt, Increment: true}
	users := schema.NewTable("users").AddPrimary(id).
		AddColumn(&schema.Column{Name: "name", Type: field.TypeString, Unique: true}).
		AddColumn(&schema.Column{Name: "tags", Type: field.TypeJSON, Nullable: true})
	if withAge {
		users.AddColumn(&schema.Column{Name: "age", Type: field.TypeInt, Default: 18})
	}
	owner := &schema.Column{Name: "owner", Type: field.TypeInt, Nullable: true}
	pets := schema.NewTable("pets").AddPrimary(&schema.Column{Name: "id", Type: field.TypeInt, Increment: true}).
		AddColumn(owner).
		AddForeignKey(&schema.ForeignKey{
			Symbol: "pets_owner", Columns: []*schema.Column{owner}, RefTable: users, RefColumns: []*schema.Column{id}, OnDelete: schema.NoAction,
		})
	return []*schema.Table{users, pets}
}

func TestEntIsTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		drv := entsql.OpenDB(dialect.Postgres, s.db)
		migrate, err := schema.NewMigrate(drv)
		require.NoError(t, err)
		require.NoError(t, migrate.Create(s.ctx, entTables(false)...))
		require.NoError(t, migrate.Create(s.ctx, entTables(true)...), "with another column")
		require.NoError(t, migrate.Create(s.ctx, entTables(true)...), "with nothing to do")

		insert := func(on dialect.ExecQuerier, name string) error {
			query, args := entsql.Dialect(dialect.Postgres).Insert("users").Columns("name", "tags").Values(name, `["x"]`).Returning("id").Query()
			var rows entsql.Rows
			if err := on.Query(s.ctx, query, args, &rows); err != nil {
				return err
			}
			defer func() { require.NoError(t, rows.Close()) }()
			id, err := entsql.ScanInt(rows)
			s.note("inserted", []any{name, id})
			return err
		}
		require.NoError(t, insert(drv, "ada"))
		err = insert(drv, "ada")
		require.True(t, sqlgraph.IsUniqueConstraintError(err))
		s.fail("duplicate", err)

		tx, err := drv.Tx(s.ctx)
		require.NoError(t, err)
		require.NoError(t, insert(tx, "gone"))
		require.NoError(t, tx.Rollback())
		tx, err = drv.BeginTx(s.ctx, &entsql.TxOptions{Isolation: sql.LevelSerializable})
		require.NoError(t, err)
		require.NoError(t, insert(tx, "bob"))
		require.NoError(t, tx.Commit())

		err = drv.Exec(s.ctx, "insert into pets (owner) values ($1)", []any{4711}, nil)
		require.True(t, sqlgraph.IsForeignKeyConstraintError(err))
		s.fail("foreign key", err)
		s.fail("syntax", drv.Exec(s.ctx, "selekt", []any{}, nil))
		s.fail("wrong argument", drv.Exec(s.ctx, "insert into pets (owner) values ($1)", []any{"x"}, nil))

		query, args := entsql.Dialect(dialect.Postgres).Select("id", "name", "age", "tags").From(entsql.Table("users")).
			Where(entsql.GT("id", 0)).OrderBy("id").Query()
		var rows entsql.Rows
		require.NoError(t, drv.Query(s.ctx, query, args, &rows))
		var users []struct {
			ID   int
			Name string
			Age  int
			Tags []byte
		}
		require.NoError(t, entsql.ScanSlice(rows, &users))
		require.NoError(t, rows.Close())
		s.note("selected", users)
	})
}
