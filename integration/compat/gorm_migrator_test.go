package compat_test

import (
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// Three states of one table, as a program's releases would migrate it.
type (
	gadgetV1 struct {
		ID   uint   `gorm:"primaryKey"`
		Name string `gorm:"size:20"`
		Old  string
	}
	gadgetV2 struct {
		ID     uint   `gorm:"primaryKey;comment:the key"`
		Name   string `gorm:"size:200;not null;default:none;index:by_name,unique"`
		Old    int64
		Weight float64
		Code   string `gorm:"type:char(3);check:code_is_long,length(code) = 3"`
	}
)

func (gadgetV1) TableName() string { return "gadgets" }
func (gadgetV2) TableName() string { return "gadgets" }

func TestGORMsMigratorIsTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		db := openGORM(t, s)
		m := db.Migrator()
		s.note("database", m.CurrentDatabase())
		s.note("before", m.HasTable("gadgets"))
		require.NoError(t, m.AutoMigrate(&gadgetV1{}))
		require.NoError(t, m.AutoMigrate(&gadgetV1{}), "again, with nothing to do")
		require.NoError(t, db.Create(&gadgetV1{Name: "a", Old: "7"}).Error)
		noteTable(t, s, db, "at first", &gadgetV1{})

		s.fail("alter", m.AutoMigrate(&gadgetV2{}))
		noteTable(t, s, db, "altered", &gadgetV2{})
		s.fail("add a column twice", m.AddColumn(&gadgetV2{}, "Weight"))
		s.fail("rename a column", m.RenameColumn(&gadgetV2{}, "weight", "mass"))
		s.note("has the old name", m.HasColumn(&gadgetV2{}, "weight"))
		s.fail("drop a column", m.DropColumn(&gadgetV2{}, "mass"))
		s.fail("drop a column that is not there", m.DropColumn(&gadgetV2{}, "mass"))
		s.fail("drop an index", m.DropIndex(&gadgetV2{}, "by_name"))
		s.fail("drop a constraint", m.DropConstraint(&gadgetV2{}, "code_is_long"))
		noteTable(t, s, db, "in the end", &gadgetV1{})

		s.fail("view", m.CreateView("gadget_names", gorm.ViewOption{Query: db.Model(&gadgetV1{}).Select("name")}))
		s.fail("drop a view", m.DropView("gadget_names"))
		s.fail("rename", m.RenameTable("gadgets", "things"))
		tables, err := m.GetTables()
		require.NoError(t, err)
		s.note("tables", tables)
		s.fail("drop", m.DropTable("things"))
		s.fail("columns of no table", func() error { _, err := m.ColumnTypes("things"); return err }())

		s.fail("many to many", m.AutoMigrate(&author{}, &book{}))
		s.note("constraint", m.HasConstraint(&book{}, "Author"))
	})
}

func noteTable(t *testing.T, s *stage, db *gorm.DB, state string, model any) {
	t.Helper()
	m := db.Migrator()
	columns, err := m.ColumnTypes(model)
	require.NoError(t, err)
	for _, c := range columns {
		length, hasLength := c.Length()
		nullable, _ := c.Nullable()
		value, hasDefault := c.DefaultValue()
		comment, _ := c.Comment()
		kind, _ := c.ColumnType()
		s.note("column", []any{c.Name(), c.DatabaseTypeName(), kind, length, hasLength, nullable, value, hasDefault, comment, c.ScanType()})
	}
	indexes, err := m.GetIndexes(model)
	require.NoError(t, err)
	for _, i := range indexes {
		unique, _ := i.Unique()
		s.note("index", []any{i.Name(), i.Columns(), unique})
	}
	var rows []map[string]any
	// A text of its own: one that was sent before the columns changed fails once over plain pgx.
	require.NoError(t, db.Raw("select * from gadgets /* "+state+" */").Scan(&rows).Error)
	s.note("rows", rows)
}

// The one wanted difference: a statement that was prepared before a migration fails once over plain pgx.
func TestGORMReadsAMigratedTableAtOnce(t *testing.T) {
	server := pgt.Shared(t)
	read := func(driver string) error {
		handle, err := sql.Open(driver, server.DSN())
		require.NoError(t, err)
		defer func() { require.NoError(t, handle.Close()) }()
		handle.SetMaxOpenConns(1) // the connection that has prepared it
		db, err := gorm.Open(postgres.New(postgres.Config{Conn: handle}), gormConfig())
		require.NoError(t, err)
		require.NoError(t, db.Exec("drop table if exists gadgets").Error)
		require.NoError(t, db.AutoMigrate(&gadgetV1{}))
		require.NoError(t, db.Find(&[]gadgetV1{}).Error)
		require.NoError(t, db.AutoMigrate(&gadgetV2{}))
		return db.Find(&[]gadgetV2{}).Error
	}
	var pgErr *pgconn.PgError
	require.ErrorAs(t, read("pgx"), &pgErr)
	require.Equal(t, "0A000", pgErr.Code)
	require.NoError(t, read("retrypg"))
}
