package compat_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

func TestRiverOnDatabaseSQLIsTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		client := newRiver(t, s.ctx, riverdatabasesql.New(s.db), 50*time.Millisecond)
		useRiver(t, s, client)

		tx, err := s.db.BeginTx(s.ctx, nil)
		require.NoError(t, err)
		_, err = client.InsertTx(s.ctx, tx, greeting{Name: "rolled back"}, nil)
		require.NoError(t, err)
		require.NoError(t, tx.Rollback())
		noteJobs(t, s)
	})
}

// It polls once in ten minutes: jobs are found by LISTEN, on a connection that River takes out of the pool.
func TestRiverOnAPoolIsTheSame(t *testing.T) {
	sameOverPools(t, allModes, func(t *testing.T, s *stage, pool *pgxpool.Pool) {
		client := newRiver(t, s.ctx, riverpgxv5.New(pool), never)
		useRiver(t, s, client)
		// By COPY, which River's driver for database/sql does without.
		fast, err := client.InsertManyFast(s.ctx, []river.InsertManyParams{{Args: greeting{Name: "Dan"}}})
		require.NoError(t, err)
		s.note("fast", fast)

		tx, err := pool.Begin(s.ctx)
		require.NoError(t, err)
		_, err = client.InsertTx(s.ctx, tx, greeting{Name: "rolled back"}, nil)
		require.NoError(t, err)
		require.NoError(t, tx.Rollback(s.ctx))
		noteJobs(t, s)
	})
}

func noteJobs(t *testing.T, s *stage) {
	t.Helper()
	var jobs int
	require.NoError(t, s.db.QueryRowContext(s.ctx, "select count(*) from river_job").Scan(&jobs))
	s.note("jobs", jobs)
}

// conflict is a statement that fails as a serialization failure does.
const conflict = "do $$ begin raise exception using errcode = '40001'; end $$"

func TestJobOfARepeatedTransactionIsThereOnce(t *testing.T) {
	s := newStage(t)
	client := newRiver(t, s.ctx, riverdatabasesql.New(s.db), time.Second)
	runs := 0
	require.NoError(t, retrypg.WithTx(s.ctx, s.db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
		runs++
		if _, err := client.InsertTx(ctx, tx, greeting{Name: "Ada"}, nil); err != nil {
			return err
		}
		if runs < 3 {
			_, err := tx.ExecContext(ctx, conflict)
			return err
		}
		return nil
	}))
	require.Equal(t, 3, runs)
	requireOneJob(t, s)
}

func TestJobOfARepeatedTransactionOfAPoolIsThereOnce(t *testing.T) {
	s := newStage(t)
	pool, err := retrypg.NewPool(s.ctx, s.dsn)
	require.NoError(t, err)
	defer pool.Close()
	client := newRiver(t, s.ctx, riverpgxv5.New(pool.Pool), time.Second)
	runs := 0
	require.NoError(t, retrypg.WithPgxTx(s.ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		runs++
		if _, err := client.InsertManyFastTx(ctx, tx, []river.InsertManyParams{{Args: greeting{Name: "Ada"}}}); err != nil {
			return err
		}
		if runs < 3 {
			_, err := tx.Exec(ctx, conflict)
			return err
		}
		return nil
	}))
	require.Equal(t, 3, runs)
	requireOneJob(t, s)
}

func requireOneJob(t *testing.T, s *stage) {
	t.Helper()
	var jobs int
	require.NoError(t, s.db.QueryRowContext(s.ctx, "select count(*) from river_job").Scan(&jobs))
	require.Equal(t, 1, jobs)
}
