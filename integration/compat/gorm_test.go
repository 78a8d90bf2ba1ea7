package compat_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
)

// leapDay is the time of every clock here.
var leapDay = time.Date(2024, 2, 29, 12, 30, 0, 123456000, time.UTC)

type author struct {
	ID        uint           `gorm:"primaryKey"`
	Name      string         `gorm:"uniqueIndex;size:80;not null"`
	Age       *int           `gorm:"check:age > 0"`
	Tags      pq.StringArray `gorm:"type:text[]"`
	Settings  map[string]any `gorm:"serializer:json;type:jsonb"`
	Books     []book
	CreatedAt time.Time
	DeletedAt gorm.DeletedAt `gorm:"index"`
}

type book struct {
	ID       uint `gorm:"primaryKey"`
	AuthorID uint `gorm:"not null"`
	Author   *author
	Title    string
	Price    float64 `gorm:"type:numeric(10,2)"`
	Cover    []byte
}

// gormConfig translates errors, as GORM's documentation advises, and is silent.
func gormConfig() *gorm.Config {
	return &gorm.Config{
		TranslateError: true,
		Logger:         logger.Discard,
		NowFunc:        func() time.Time { return leapDay },
	}
}

// openGORM opens GORM on the stage's handle.
func openGORM(t *testing.T, s *stage) *gorm.DB {
	t.Helper()
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: s.db}), gormConfig())
	require.NoError(t, err)
	return db.WithContext(s.ctx)
}

func TestGORMReadsAndWritesTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		db := openGORM(t, s)
		require.NoError(t, db.AutoMigrate(&author{}, &book{}))

		age := 36
		ada := author{
			Name: "Ada", Age: &age, Tags: pq.StringArray{"x", `y"z`},
			Settings: map[string]any{"theme": "dark", "n": 1.5},
			Books:    []book{{Title: "Notes", Price: 12.34, Cover: []byte{0, 1, 255}}, {Title: "Letters"}},
		}
		require.NoError(t, db.Create(&ada).Error)
		s.note("created with its books", ada)
		require.NoError(t, db.CreateInBatches([]author{{Name: "Bob"}, {Name: "Cyd"}, {Name: "Dan"}}, 2).Error)

		var found author
		require.NoError(t, db.Preload("Books", func(tx *gorm.DB) *gorm.DB { return tx.Order("id") }).First(&found, "name = ?", "Ada").Error)
		s.note("read with its books", found)
		s.note("rows of an update", db.Model(&author{}).Where("name in ?", []string{"Bob", "Cyd"}).Update("age", gorm.Expr("coalesce(age, 20) + ?", 1)).RowsAffected)
		s.note("update of a map", db.Model(&found).Updates(map[string]any{"age": nil, "tags": pq.StringArray{}}).RowsAffected)

		var bob author
		bob.Name = "Bob"
		require.NoError(t, db.Clauses(clause.OnConflict{
			Columns:   []clause.Column{{Name: "name"}},
			DoUpdates: clause.Assignments(map[string]any{"age": 77}),
		}, clause.Returning{}).Create(&bob).Error)
		s.note("upserted", bob)
		s.note("insert that does nothing", db.Clauses(clause.OnConflict{DoNothing: true}).Create(&author{Name: "Bob"}).RowsAffected)

		var deleted []author
		require.NoError(t, db.Clauses(clause.Returning{Columns: []clause.Column{{Name: "name"}}}).Where("name = ?", "Dan").Delete(&deleted).Error)
		s.note("softly deleted", deleted)
		var count int64
		require.NoError(t, db.Model(&author{}).Count(&count).Error)
		s.note("count", count)

		var all []map[string]any
		require.NoError(t, db.Raw("select id, name, age, tags from authors order by id").Scan(&all).Error)
		s.note("maps", all)
		rows, err := db.Model(&book{}).Select("title", "price").Order("id").Rows()
		require.NoError(t, err)
		defer func() { require.NoError(t, rows.Close()) }()
		for rows.Next() {
			var b book
			require.NoError(t, db.ScanRows(rows, &b))
			s.note("row", b)
		}
		require.NoError(t, rows.Err())
		var names []string
		require.NoError(t, db.Model(&author{}).Clauses(clause.Locking{Strength: "UPDATE"}).Order("name").Pluck("name", &names).Error)
		s.note("locked and plucked", names)
		var batch []author
		require.NoError(t, db.FindInBatches(&batch, 2, func(_ *gorm.DB, n int) error {
			s.note("batch", n)
			return nil
		}).Error)
	})
}

func TestGORMsErrorsAreTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		db := openGORM(t, s)
		require.NoError(t, db.AutoMigrate(&author{}, &book{}))
		require.NoError(t, db.Create(&author{Name: "Ada"}).Error)

		err := db.Create(&author{Name: "Ada"}).Error
		require.ErrorIs(t, err, gorm.ErrDuplicatedKey)
		var pgErr *pgconn.PgError
		require.ErrorAs(t, err, &pgErr)
		s.fail("duplicate key", err)

		err = db.Create(&book{AuthorID: 4711}).Error
		require.ErrorIs(t, err, gorm.ErrForeignKeyViolated)
		s.fail("foreign key", err)

		none := -1
		err = db.Create(&author{Name: "Eve", Age: &none}).Error
		require.ErrorIs(t, err, gorm.ErrCheckConstraintViolated)
		s.fail("check", err)

		err = db.First(&author{}, 99).Error
		require.ErrorIs(t, err, gorm.ErrRecordNotFound)
		s.fail("not found", err)
		s.fail("missing column", db.Where("nonsense = 1").Find(&[]author{}).Error)
		s.fail("missing table", db.Table("nowhere").Count(new(int64)).Error)
		s.fail("syntax", db.Exec("selekt 1").Error)
		s.fail("wrong type", db.Exec("insert into authors(name, age) values ('x', ?)", "old").Error)
		s.fail("division by zero", db.Raw("select 1/?::int", 0).Scan(new(int)).Error)
	})
}

func TestGORMsTransactionsAreTheSame(t *testing.T) {
	refused := errors.New("refused")
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		db := openGORM(t, s)
		require.NoError(t, db.AutoMigrate(&author{}, &book{}))
		names := func() (names []string) {
			require.NoError(t, db.Model(&author{}).Order("id").Pluck("name", &names).Error)
			return names
		}

		require.NoError(t, db.Transaction(func(tx *gorm.DB) error {
			require.NoError(t, tx.Create(&author{Name: "outer"}).Error)
			s.fail("nested", tx.Transaction(func(tx *gorm.DB) error {
				require.NoError(t, tx.Create(&author{Name: "inner, refused"}).Error)
				return refused
			}))
			s.fail("nested, with a failed statement", tx.Transaction(func(tx *gorm.DB) error {
				return tx.Create(&author{Name: "outer"}).Error
			}))
			return tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&author{Name: "inner"}).Error })
		}))
		s.note("committed", names())

		s.fail("rolled back", db.Transaction(func(tx *gorm.DB) error {
			require.NoError(t, tx.Create(&author{Name: "gone"}).Error)
			return refused
		}))
		s.fail("aborted", db.Transaction(func(tx *gorm.DB) error {
			s.fail("first error", tx.Create(&author{Name: "outer"}).Error)
			s.fail("next statement", tx.Create(&author{Name: "late"}).Error)
			return nil
		}))
		require.Panics(t, func() {
			_ = db.Transaction(func(tx *gorm.DB) error {
				require.NoError(t, tx.Create(&author{Name: "panic"}).Error)
				panic("as it does")
			})
		})

		tx := db.Begin()
		require.NoError(t, tx.Error)
		require.NoError(t, tx.SavePoint("here").Error)
		require.NoError(t, tx.Create(&author{Name: "undone"}).Error)
		require.NoError(t, tx.RollbackTo("here").Error)
		require.NoError(t, tx.Create(&author{Name: "by hand"}).Error)
		require.NoError(t, tx.Commit().Error)
		s.fail("commit twice", tx.Commit().Error)
		s.fail("rollback after commit", tx.Rollback().Error)
		s.note("in the end", names())
	})
}

func TestGORMsPreparedStatementsAreTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		require.NoError(t, openGORM(t, s).AutoMigrate(&author{}, &book{}))
		db := openGORM(t, s).Session(&gorm.Session{PrepareStmt: true})
		for _, name := range []string{"a", "b", "a"} {
			s.fail("insert", db.Create(&author{Name: name}).Error)
		}
		require.NoError(t, db.Transaction(func(tx *gorm.DB) error {
			for id := range 3 {
				var found []author
				require.NoError(t, tx.Where("id > ?", id).Order("id").Find(&found).Error)
				s.note("found", found)
			}
			return nil
		}))
		s.fail("error", db.Where("nonsense = ?", 1).Find(&[]author{}).Error)
		if prepared, ok := db.ConnPool.(*gorm.PreparedStmtDB); ok {
			prepared.Reset() // closes its statements in the background
		}
	})
}

func TestGORMOpensTheDriverByItsName(t *testing.T) {
	sameOverBoth(t, []string{cacheStatement, simple}, func(t *testing.T, s *stage) {
		db, err := gorm.Open(postgres.New(postgres.Config{DriverName: s.driver, DSN: s.dsn}), gormConfig())
		require.NoError(t, err)
		handle, err := db.DB()
		require.NoError(t, err)
		defer func() { require.NoError(t, handle.Close()) }()
		require.NoError(t, db.AutoMigrate(&author{}))
		require.NoError(t, db.Create(&author{Name: "Ada"}).Error)
		var found author
		require.NoError(t, db.Take(&found).Error)
		s.note("found", found)
		s.fail("duplicate", db.Create(&author{Name: "Ada"}).Error)
	})
}
