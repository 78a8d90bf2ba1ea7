package compat_test

import (
	"context"
	"database/sql"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/retrypg/retrypg"
)

// The recipes are documentation: what they say is proved here, where that is not the subject of another test.

// recipe returns what a group of a regular expression matches in the recipes.
func recipe(t *testing.T, expression string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/recipes.md")
	require.NoError(t, err)
	found := regexp.MustCompile(expression).FindSubmatch(text)
	require.NotNil(t, found, "docs/recipes.md has nothing like %s", expression)
	return string(found[1])
}

func TestTheRecipesTriggerMakesAClosureRunTwice(t *testing.T) {
	s := newStage(t)
	s.exec(
		t, "create table account (id int primary key, balance int not null)", "insert into account values (1, 100), (2, 100)",
		recipe(t, "const conflictAtFirstCommit = `([^`]*)`"),
	)
	for range 2 {
		runs := 0
		require.NoError(t, retrypg.WithTx(s.ctx, s.db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			runs++
			require.Equal(t, runs, retrypg.AttemptFromContext(ctx))
			_, err := tx.ExecContext(ctx, "update account set balance = balance - 10")
			return err
		}))
		require.Equal(t, 2, runs)
		s.exec(t, "alter sequence commits restart")
	}
	var balance int
	require.NoError(t, s.db.QueryRowContext(s.ctx, "select balance from account where id = 2").Scan(&balance))
	require.Equal(t, 80, balance)
}

// GORM's default transaction around each statement is one that nobody can run again.
func TestStatementOfGORMIsRunAgainWhereGORMMakesNoTransactionOfIt(t *testing.T) {
	for _, skip := range []bool{false, true} {
		s := newStage(t)
		s.exec(
			t, "create table account (id int primary key, balance int not null)", "insert into account values (1, 100)",
			recipe(t, "const conflictAtFirstCommit = `([^`]*)`"),
		)
		config := gormConfig()
		config.SkipDefaultTransaction = skip
		db, err := gorm.Open(postgres.New(postgres.Config{Conn: s.db}), config)
		require.NoError(t, err)
		err = db.WithContext(s.ctx).Table("account").Where("id = 1").Update("balance", 5).Error
		if skip {
			require.NoError(t, err)
		} else {
			require.Equal(t, "40001", retrypg.SQLState(err))
		}
	}
}

func TestListenerGoesOnAfterItsConnectionWasLost(t *testing.T) {
	s := newStage(t)
	pool := newPool(t, s)
	ctx, cancel := context.WithCancel(s.ctx)
	heard, ended := make(chan string), make(chan error, 1)
	go func() {
		ended <- listen(ctx, pool, func(payload string) {
			select {
			case heard <- payload:
			case <-ctx.Done():
			}
		})
	}()
	hear := func() string {
		select {
		case payload := <-heard:
			return payload
		case <-s.ctx.Done():
			require.FailNow(t, "nothing was heard")
			return ""
		}
	}
	for _, payload := range []string{"one", "two"} {
		require.Empty(t, hear(), "it listens")
		s.exec(t, "select pg_notify('orders', '"+payload+"')")
		require.Equal(t, payload, hear())
		s.exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen orders'")
	}
	require.Empty(t, hear(), "it listens again")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestListenerEndsWithItsPool(t *testing.T) {
	s := newStage(t)
	pool := newPool(t, s)
	pool.Close()
	require.ErrorIs(t, listen(s.ctx, pool, func(string) {}), retrypg.ErrClosed)
}

func TestTheListenerOfTheRecipesIsTheOneThatIsTested(t *testing.T) {
	source, err := os.ReadFile("recipes_test.go")
	require.NoError(t, err)
	require.Contains(t, string(source), recipe(t, `(?s)(func listen\(.*?\n}\n)`))
}

// listen is that of the recipes.
func listen(ctx context.Context, pool *retrypg.Pool, handle func(payload string)) error {
	for {
		err := pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
			if _, err := conn.Exec(ctx, "listen orders"); err != nil {
				return err
			}
			handle("") // look for what was sent while nobody listened
			for {
				n, err := conn.Conn().WaitForNotification(ctx)
				if err != nil {
					return err
				}
				handle(n.Payload)
			}
		})
		if retrypg.Classify(err).Retry == retrypg.RetryNever {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
