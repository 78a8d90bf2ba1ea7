package compat_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/Masterminds/squirrel"
	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/retrypg/retrypg"
)

type pair struct {
	bun.BaseModel `bun:"table:pair" gorm:"-"`

	ID   int
	Name string
}

func (pair) TableName() string { return "pair" }

// tools are the ways in which a library works in the transaction that WithTx hands to its closure. conflict makes its
// last statement fail as a serialization failure does.
var tools = []struct {
	name string
	work func(ctx context.Context, db *sql.DB, tx *sql.Tx, p pair, conflict bool) error
}{
	{"GORM", func(ctx context.Context, _ *sql.DB, tx *sql.Tx, p pair, fails bool) error {
		g, err := gorm.Open(postgres.New(postgres.Config{Conn: tx}), gormConfig())
		if err != nil {
			return err
		}
		return g.WithContext(ctx).Transaction(func(g *gorm.DB) error { // a savepoint, as tx is a transaction already
			if err := g.Create(&p).Error; err != nil || !fails {
				return err
			}
			return g.Exec(conflict).Error
		})
	}},
	{"sqlx", func(ctx context.Context, _ *sql.DB, tx *sql.Tx, p pair, fails bool) error {
		x := &sqlx.Tx{Tx: tx, Mapper: sqlx.NewDb(nil, "retrypg").Mapper}
		if _, err := x.ExecContext(ctx, "insert into pair values ($1, $2)", p.ID, p.Name); err != nil || !fails {
			return err
		}
		return x.GetContext(ctx, new(int), failing)
	}},
	{"bun", func(ctx context.Context, db *sql.DB, tx *sql.Tx, p pair, fails bool) error {
		b := bun.NewDB(db, pgdialect.New())
		if _, err := b.NewInsert().Conn(tx).Model(&p).Exec(ctx); err != nil || !fails {
			return err
		}
		_, err := b.NewRaw(conflict).Conn(tx).Exec(ctx)
		return err
	}},
	{"ent", func(ctx context.Context, _ *sql.DB, tx *sql.Tx, p pair, fails bool) error {
		e := entsql.NewDriver(dialect.Postgres, entsql.Conn{ExecQuerier: tx})
		if err := e.Exec(ctx, "insert into pair values ($1, $2)", []any{p.ID, p.Name}, nil); err != nil || !fails {
			return err
		}
		return e.Exec(ctx, conflict, []any{}, nil)
	}},
	{"squirrel", func(ctx context.Context, _ *sql.DB, tx *sql.Tx, p pair, fails bool) error {
		sq := squirrel.StatementBuilder.PlaceholderFormat(squirrel.Dollar).RunWith(tx)
		if _, err := sq.Insert("pair").Values(p.ID, p.Name).ExecContext(ctx); err != nil || !fails {
			return err
		}
		return sq.Select("fail()").QueryRowContext(ctx).Scan(new(int))
	}},
}

const (
	failing     = "select fail()"
	failingMake = "create function fail() returns int language plpgsql as $$ begin raise exception using errcode = '40001'; end $$"
)

func TestLibrariesErrorsLetWithTxRunTheTransactionAgain(t *testing.T) {
	for _, tool := range tools {
		t.Run(tool.name, func(t *testing.T) {
			s := newStage(t)
			s.exec(t, pairTable, failingMake)
			runs := 0
			require.NoError(t, retrypg.WithTx(s.ctx, s.db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				runs++
				return tool.work(ctx, s.db, tx, pair{ID: 1, Name: "a"}, runs < 3)
			}))
			require.Equal(t, 3, runs)

			var count int
			require.NoError(t, s.db.QueryRowContext(s.ctx, "select count(*) from pair").Scan(&count))
			require.Equal(t, 1, count)
		})
	}
}

func TestLibrariesErrorsComeThroughWithTx(t *testing.T) {
	for _, tool := range tools {
		t.Run(tool.name, func(t *testing.T) {
			s := newStage(t)
			s.exec(t, pairTable, "insert into pair values (1, 'a')")
			runs := 0
			err := retrypg.WithTx(s.ctx, s.db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				runs++
				return tool.work(ctx, s.db, tx, pair{ID: 2, Name: "a"}, false)
			})
			require.Equal(t, 1, runs, "a violated constraint is not run again")
			require.Equal(t, "23505", retrypg.SQLState(err))
			require.Equal(t, tool.name == "GORM", errors.Is(err, gorm.ErrDuplicatedKey))
		})
	}
}
