package retrypg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg"
)

// A SELECT without side effects may run twice: where its connection is lost, it is sent again over another one.
func ExampleIdempotent() {
	ctx, db := context.Background(), new(sql.DB) // of sql.Open("retrypg", dsn)
	var balance int
	err := db.QueryRowContext(retrypg.Idempotent(ctx), "select balance from account where id = 1").Scan(&balance)
	if err != nil {
		log.Print(err)
	}
}

// A health check wants to know how things are now.
func ExampleNoRetry() {
	ctx, db := context.Background(), new(sql.DB) // of sql.Open("retrypg", dsn)
	ctx, cancel := context.WithTimeout(retrypg.NoRetry(ctx), time.Second)
	defer cancel()
	if err := db.PingContext(ctx); err != nil {
		log.Print("database: ", retrypg.Classify(err).Reason)
	}
}

// COMMIT goes with the last statement: two round trips in place of three.
func ExampleLastStatement() {
	ctx, db := context.Background(), new(sql.DB) // of sql.Open("retrypg", dsn)
	err := retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "insert into payment (key, amount) values ($1, 10)", "4b0d2f6e"); err != nil {
			return err
		}
		_, err := tx.ExecContext(retrypg.LastStatement(ctx), "update account set balance = balance - 10 where id = 1")
		return err
	})
	if err != nil {
		log.Print(err)
	}
}

// A connector that is kept can be given other settings while its handle is in use.
func ExampleConnector_Reconfigure() {
	connector, err := retrypg.NewConnector("postgres://app@db.example/shop")
	if err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()

	if err := connector.Reconfigure(retrypg.WithMaxAttempts(3), retrypg.WithConnectMaxElapsed(5*time.Second)); err != nil {
		log.Print(err)
	}
}

func ExamplePool_Reconfigure() {
	pool, err := retrypg.NewPool(context.Background(), "postgres://app@db.example/shop")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	if err := pool.Reconfigure(retrypg.WithMaxElapsed(2 * time.Second)); err != nil {
		log.Print(err)
	}
}

// The database may be of any driver.
func ExampleWaitReadyDB() {
	db, err := sql.Open("retrypg", "postgres://app@db.example/shop")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := retrypg.WaitReadyDB(ctx, db); err != nil {
		log.Print(err)
	}
}

func ExampleWaitReadyPool() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pool, err := retrypg.NewPool(ctx, "postgres://app@db.example/shop")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	err = retrypg.WaitReadyPool(ctx, pool, retrypg.WithReadyProgress(func(e retrypg.ReadyEvent) {
		log.Printf("database: %s", e.State)
	}))
	if err != nil {
		log.Print(err)
	}
}

func ExampleResolvePgxCommit() {
	ctx, pool := context.Background(), new(retrypg.Pool) // of NewPool
	err := retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into visit (page) values ($1)", "/")
		return err
	})
	var unknown *retrypg.CommitUnknownError
	if errors.As(err, &unknown) {
		committed, err := retrypg.ResolvePgxCommit(ctx, pool, unknown)
		if err != nil {
			log.Print("still not known: ", err)
			return
		}
		log.Print("committed: ", committed)
	}
}

func ExampleAdvisoryKey() {
	fmt.Println(retrypg.AdvisoryKey("account:3"))
	// Output: 293960846999212261
}
