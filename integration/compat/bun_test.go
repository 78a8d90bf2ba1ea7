package compat_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

type team struct {
	bun.BaseModel `bun:"table:teams"`

	ID      int64          `bun:",pk,autoincrement"`
	Name    string         `bun:",unique,notnull"`
	Colours []string       `bun:",array"`
	Rules   map[string]any `bun:"type:jsonb"`
	Founded time.Time      `bun:",nullzero"`
	Badge   []byte
	Players []*player `bun:"rel:has-many,join:id=team_id"`
}

type player struct {
	bun.BaseModel `bun:"table:players"`

	ID     int64 `bun:",pk,autoincrement"`
	TeamID int64
	Team   *team `bun:"rel:belongs-to,join:team_id=id"`
	Name   string
	Score  *float64
}

func openBun(t *testing.T, s *stage) *bun.DB {
	t.Helper()
	db := bun.NewDB(s.db, pgdialect.New())
	for _, model := range []any{(*team)(nil), (*player)(nil)} {
		_, err := db.NewCreateTable().Model(model).WithForeignKeys().Exec(s.ctx)
		require.NoError(t, err)
	}
	return db
}

func TestBunIsTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		db := openBun(t, s)
		score := 1.5
		red := &team{Name: "red", Colours: []string{"r", `"`, `\`}, Rules: map[string]any{"a": []any{1.0, nil}}, Founded: leapDay, Badge: []byte{0, 255}}
		_, err := db.NewInsert().Model(red).Exec(s.ctx)
		require.NoError(t, err)
		s.note("inserted", *red)
		players := []*player{{TeamID: red.ID, Name: "it's", Score: &score}, {TeamID: red.ID, Name: "?"}}
		res, err := db.NewInsert().Model(&players).Returning("id").Exec(s.ctx)
		require.NoError(t, err)
		n, err := res.RowsAffected()
		s.note("inserted many", []any{n, err})

		var found team
		require.NoError(t, db.NewSelect().Model(&found).Relation("Players", func(q *bun.SelectQuery) *bun.SelectQuery { return q.Order("id") }).
			Where("name = ?", "red").Scan(s.ctx))
		s.note("selected", found)
		_, err = db.NewUpdate().Model((*player)(nil)).Set("score = coalesce(score, 0) + ?", 1).Where("team_id in ?", bun.Tuple([]int64{red.ID})).Exec(s.ctx)
		require.NoError(t, err)
		again := &team{Name: "red", Colours: []string{"x"}}
		_, err = db.NewInsert().Model(again).On("conflict (name) do update").Set("colours = excluded.colours").Returning("*").Exec(s.ctx)
		require.NoError(t, err)
		s.note("upserted", *again)
		var rows []map[string]any
		require.NoError(t, db.NewSelect().Model((*player)(nil)).Order("id").Scan(s.ctx, &rows))
		s.note("maps", rows)
		count, err := db.NewSelect().Model((*player)(nil)).Count(s.ctx)
		s.note("count", []any{count, err})
		var deleted []player
		_, err = db.NewDelete().Model(&deleted).Where("score > ?", 2).Returning("*").Exec(s.ctx)
		require.NoError(t, err)
		s.note("deleted", deleted)

		s.fail("no rows", db.NewSelect().Model(&found).Where("id = -1").Scan(s.ctx))
		_, err = db.NewInsert().Model(&team{Name: "red"}).Exec(s.ctx)
		var pgErr *pgconn.PgError
		require.ErrorAs(t, err, &pgErr)
		s.fail("duplicate", err)
		_, err = db.NewDropTable().Model((*team)(nil)).Exec(s.ctx)
		s.fail("drop", err)
	})
}

func TestBunsTransactionsAreTheSame(t *testing.T) {
	refused := errors.New("refused")
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		db := openBun(t, s)
		insert := func(tx bun.Tx, name string) error {
			_, err := tx.NewInsert().Model(&team{Name: name}).Exec(s.ctx)
			return err
		}
		s.fail("outer", db.RunInTx(s.ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead}, func(ctx context.Context, tx bun.Tx) error {
			require.NoError(t, insert(tx, "outer"))
			s.fail("inner", tx.RunInTx(ctx, nil, func(_ context.Context, tx bun.Tx) error {
				require.NoError(t, insert(tx, "inner"))
				return refused
			}))
			s.fail("inner with a failed statement", tx.RunInTx(ctx, nil, func(_ context.Context, tx bun.Tx) error { return insert(tx, "outer") }))
			return insert(tx, "last")
		}))
		s.fail("refused", db.RunInTx(s.ctx, nil, func(_ context.Context, tx bun.Tx) error {
			require.NoError(t, insert(tx, "gone"))
			return refused
		}))
		var names []string
		require.NoError(t, db.NewSelect().Model((*team)(nil)).Column("name").Order("id").Scan(s.ctx, &names))
		s.note("in the end", names)
	})
}
