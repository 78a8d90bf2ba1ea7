//go:build docker

package docker

import (
	"context"
	"database/sql"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", for comparison
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
)

// startupTime bounds the making of a container and of a new database in it.
const startupTime = 2 * time.Minute

func TestApplicationThatStartsBeforeItsDatabaseContainerGetsItsFirstQueryAnswered(t *testing.T) {
	s := newServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), startupTime)
	defer cancel()

	plain, err := sql.Open("pgx", s.dsn())
	require.NoError(t, err)
	defer plain.Close()
	require.Error(t, plain.PingContext(ctx), "nothing listens yet: without retrypg the first query fails")

	db, err := sql.Open("retrypg", s.dsn())
	require.NoError(t, err)
	defer db.Close()
	answer := make(chan error, 3)
	go func() {
		var one int
		answer <- db.QueryRowContext(ctx, "select 1").Scan(&one)
	}()
	go func() {
		answer <- retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "create table made_at_first_start ()")
			return err
		})
	}()
	go func() { answer <- retrypg.WaitReady(ctx, s.dsn()) }()

	// No wait strategy: from here on the port accepts and drops connections
	// while the container creates its database, and starts and stops a
	// temporary server on the way.
	s.run(t)
	for range cap(answer) {
		require.NoError(t, <-answer)
	}
}

func TestConnectToAContainerThatNeverComesEndsWithTheRealCauseAtTheDeadline(t *testing.T) {
	s := newServer(t)
	db, err := sql.Open("retrypg", s.dsn())
	require.NoError(t, err)
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err = db.PingContext(ctx)
	require.ErrorContains(t, err, "refused")
	require.NotContains(t, err.Error(), password)
}
