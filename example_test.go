package retrypg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/breaker"
)

// With sql.Open the DSN configures everything. Like every sql.Open it does not connect.
func Example() {
	db, err := sql.Open("retrypg", "postgres://app@db.example:5432/shop?retry_max_attempts=5")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := db.ExecContext(ctx, "insert into visit (page) values ($1)", "/"); err != nil {
		log.Print(err)
	}
}

func ExampleOpenDB() {
	db, err := retrypg.OpenDB("postgres://app@db.example/shop",
		retrypg.WithMaxAttempts(5),
		retrypg.WithConnectMaxElapsed(20*time.Second),
		retrypg.WithLogger(slog.Default()),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
}

// A Connector is for what wants a driver.Connector. sql.OpenDB takes it; db.Close closes it.
func ExampleNewConnector() {
	connector, err := retrypg.NewConnector("host=db.example user=app dbname=shop",
		retrypg.WithAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "set search_path = shop")
			return err
		}),
	)
	if err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
}

func ExampleNewPool() {
	ctx := context.Background()
	pool, err := retrypg.NewPool(ctx, "postgres://app@db.example/shop?pool_max_conns=8&retry_max_delay=500ms")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	var n int
	if err := pool.QueryRow(ctx, "select count(*) from visit").Scan(&n); err != nil {
		log.Print(err)
	}
}

// What a DSN cannot say is set in the configuration, whose hooks are kept.
func ExampleNewPoolWithConfig() {
	cfg, err := pgxpool.ParseConfig("postgres://app@db.example/shop?retry_max_attempts=5")
	if err != nil {
		log.Fatal(err)
	}
	cfg.MaxConns = 20
	cfg.BeforeClose = func(*pgx.Conn) { log.Print("a connection of the pool is closed") }

	pool, err := retrypg.NewPoolWithConfig(context.Background(), cfg, retrypg.WithLogger(slog.Default()))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
}

// A password that expires is fetched anew before each connection attempt.
func ExampleWithBeforeConnect() {
	db, err := retrypg.OpenDB("postgres://app@db.example/shop",
		retrypg.WithBeforeConnect(func(_ context.Context, cfg *pgx.ConnConfig) error {
			token, err := os.ReadFile("/run/secrets/db-token")
			cfg.Password = string(token)
			return err
		}),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
}

// ConfigurePool is for a pool that the program makes itself. Its hooks are kept and called.
func ExampleConfigurePool() {
	ctx := context.Background()
	cfg, err := pgxpool.ParseConfig("postgres://app@db.example/shop?tcp_user_timeout=5000")
	if err != nil {
		log.Fatal(err)
	}
	cfg.MaxConns = 8
	if err := retrypg.ConfigurePool(cfg); err != nil {
		log.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	err = retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{MaxAttempts: 5}, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "update counter set n = n + 1")
		return err
	})
	if err != nil {
		log.Print(err)
	}
}

func ExampleWithTx() {
	ctx, db := context.Background(), new(sql.DB) // of sql.Open("retrypg", dsn)
	err := retrypg.WithTx(ctx, db, retrypg.TxOptions{Name: "transfer"}, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "update account set balance = balance - 10 where id = 1"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "update account set balance = balance + 10 where id = 2")
		return err
	})
	switch {
	case err == nil:
		fmt.Println("transferred, once")
	case errors.Is(err, retrypg.ErrCommitUnknown):
		fmt.Println("COMMIT was sent and its answer lost: look for the transfer before doing it again")
	default:
		fmt.Println("not transferred:", err)
	}
}

// The result is that of the attempt that committed.
func ExampleWithTxResult() {
	ctx, db := context.Background(), new(sql.DB) // of sql.Open("retrypg", dsn)
	opts := retrypg.TxOptions{Isolation: sql.LevelSerializable}
	id, err := retrypg.WithTxResult(ctx, db, opts, func(ctx context.Context, tx *sql.Tx) (id int64, err error) {
		err = tx.QueryRowContext(ctx, "insert into booking (room) values ($1) returning id", 7).Scan(&id)
		return id, err
	})
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println("booked:", id)
}

// A nested call, found through its context, is a savepoint of the outer transaction.
func ExampleWithTx_nested() {
	ctx, db := context.Background(), new(sql.DB) // of sql.Open("retrypg", dsn)
	err := retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
		err := retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "insert into member (email) values ($1)", "a@example.com")
			return err
		})
		var pgErr *pgconn.PgError
		if err != nil && !(errors.As(err, &pgErr) && pgErr.Code == "23505") {
			return err
		}
		// A member already, perhaps: the savepoint was rolled back, and the transaction goes on.
		_, err = tx.ExecContext(ctx, "insert into login (email) values ($1)", "a@example.com")
		return err
	})
	if err != nil {
		log.Print(err)
	}
}

func ExampleWithPgxTx() {
	ctx, pool := context.Background(), new(retrypg.Pool) // of NewPool
	err := retrypg.WithPgxTx(ctx, pool, retrypg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into visit (page) values ($1)", "/")
		return err
	})
	if err != nil {
		log.Print(err)
	}
}

func ExampleWithPgxTxResult() {
	ctx, pool := context.Background(), new(retrypg.Pool) // of NewPool
	names, err := retrypg.WithPgxTxResult(ctx, pool, retrypg.TxOptions{ReadOnly: true}, func(ctx context.Context, tx pgx.Tx) ([]string, error) {
		rows, err := tx.Query(ctx, "select name from room")
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, pgx.RowTo[string])
	})
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println(names)
}

func ExampleAttemptFromContext() {
	ctx, db := context.Background(), new(sql.DB) // of sql.Open("retrypg", dsn)
	err := retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
		if n := retrypg.AttemptFromContext(ctx); n > 1 {
			log.Printf("attempt %d", n)
		}
		_, err := tx.ExecContext(ctx, "update counter set n = n + 1")
		return err
	})
	if err != nil {
		log.Print(err)
	}
}

// At the start of a program, and in a container's entry point (the command retrypg wait does the same).
func ExampleWaitReady() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := retrypg.WaitReady(ctx, os.Getenv("DATABASE_URL"), retrypg.WithReadyProgress(func(e retrypg.ReadyEvent) {
		log.Printf("database: %s (attempt %d, %v)", e.State, e.Attempts, e.Elapsed)
	}))
	if err != nil {
		log.Print(err)
	}
}

func ExampleClassify() {
	for _, err := range []error{
		&pgconn.PgError{Code: "40001", Severity: "ERROR", Routine: "CheckForSerializableConflictOut"},
		&pgconn.PgError{Code: "23505", Severity: "ERROR", Routine: "_bt_check_unique"},
		&pgconn.PgError{Code: "57P03", Severity: "FATAL", Routine: "ProcessStartupPacket"},
		fmt.Errorf("pay: %w", &retrypg.CommitUnknownError{Err: errors.New("connection reset")}),
		errors.New("out of paper"),
	} {
		c := retrypg.Classify(err)
		fmt.Printf("%-11s %-11s %s\n", c.Retry, c.Outcome, c.Reason)
	}
	// Output:
	// transaction rolled_back serialization_failure
	// never       rolled_back unique_violation
	// wait        not_started cannot_connect_now
	// never       unknown     commit outcome unknown
	// never       unknown     not a database error
}

// SQLState looks through wrapping and joining, and knows the errors of other drivers too.
func ExampleSQLState() {
	err := fmt.Errorf("add member: %w", &pgconn.PgError{Code: "23505", Severity: "ERROR", Routine: "_bt_check_unique"})
	fmt.Println(retrypg.SQLState(err))
	// Output: 23505
}

// Nobody listens on this socket. Waiting could heal that, so there are attempts until the deadline.
func ExampleExhaustedError() {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := retrypg.WaitReady(ctx, "host=/nonexistent user=app dbname=shop")

	var exhausted *retrypg.ExhaustedError
	if errors.As(err, &exhausted) {
		fmt.Println("reason:", exhausted.Reason)
		fmt.Println("several attempts:", exhausted.Attempts > 1)
		fmt.Println("last error of the server:", retrypg.Classify(exhausted.Last).Reason)
	}
	fmt.Println("deadline:", errors.Is(err, context.DeadlineExceeded))
	// Output:
	// reason: deadline
	// several attempts: true
	// last error of the server: socket missing
	// deadline: true
}

func ExampleDSNError() {
	_, err := retrypg.NewConnector("postgres://app:secret@db.example/shop?retry_max_atempts=5")
	fmt.Println(err)

	var wrong *retrypg.DSNError
	if errors.As(err, &wrong) {
		fmt.Println(wrong.Key, "->", wrong.Nearest)
	}
	// Output:
	// retrypg: dsn key retry_max_atempts is not known; did you mean "retry_max_attempts"?
	// retry_max_atempts -> retry_max_attempts
}

// Hooks run on the goroutine of the operation, which they delay. A panic of one is a panic of the operation.
func ExampleWithHooks() {
	db, err := retrypg.OpenDB("postgres://app@db.example/shop", retrypg.WithHooks(retrypg.Hooks{
		Backoff: func(_ context.Context, b retrypg.BackoffInfo) {
			log.Printf("%s %s: attempt %d failed (%s), next in %v", b.Operation, b.Name, b.Attempt, b.Class.Reason, b.Wait)
		},
		Breaker: func(from, to breaker.State) { log.Printf("breaker: %v, was %v", to, from) },
		CommitUnknown: func(_ context.Context, err *retrypg.CommitUnknownError) {
			log.Print("to be looked at by a person: ", err)
		},
	}))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
}

// A breaker refuses at once while the server is away, in place of waiting for it within the deadline.
func ExampleWithBreaker() {
	db, err := retrypg.OpenDB("postgres://app@db.example/shop",
		retrypg.WithBreaker(breaker.Options{Failures: 5, OpenFor: 2 * time.Second}))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	var open *breaker.OpenError
	if err := db.PingContext(context.Background()); errors.As(err, &open) {
		log.Printf("try again in %v", open.RetryAfter())
	}
}

// Raw gives the *pgx.Conn below, for COPY, LISTEN and the rest. The assertion holds for *stdlib.Conn of plain pgx too.
func ExampleConn() {
	ctx, db := context.Background(), new(sql.DB) // of sql.Open("retrypg", dsn)
	conn, err := db.Conn(ctx)
	if err != nil {
		log.Print(err)
		return
	}
	defer conn.Close()
	err = conn.Raw(func(driverConn any) error {
		pgxConn := driverConn.(interface{ Conn() *pgx.Conn }).Conn()
		rows := pgx.CopyFromRows([][]any{{"/"}, {"/about"}})
		_, err := pgxConn.CopyFrom(ctx, pgx.Identifier{"visit"}, []string{"page"}, rows)
		return err
	})
	if err != nil {
		log.Print(err)
	}
}

// A COMMIT whose outcome the server could not tell, because it was away or had crashed, is asked about again later.
func ExampleResolveCommit() {
	ctx, db := context.Background(), new(sql.DB) // of sql.Open("retrypg", dsn)
	err := retrypg.WithTx(ctx, db, retrypg.TxOptions{Name: "transfer"}, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "update account set balance = balance - 10 where id = 1")
		return err
	})
	var unknown *retrypg.CommitUnknownError
	if errors.As(err, &unknown) {
		committed, err := retrypg.ResolveCommit(ctx, db, unknown)
		if err != nil {
			log.Print("still not known: ", err)
			return
		}
		log.Print("committed: ", committed)
	}
}

// Ledger is for the transactions that must never be unknown, and Verify a check of the program's own for the rest: here by a
// key that the program chose, and that is unique.
func ExampleTxOptions() {
	ctx, db := context.Background(), new(sql.DB) // of sql.Open("retrypg", dsn)
	payment := "4b0d2f6e"
	pay := func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "insert into payment (key, amount) values ($1, 10)", payment)
		return err
	}
	err := retrypg.WithTx(ctx, db, retrypg.TxOptions{Commit: retrypg.Ledger}, pay)
	if err != nil {
		log.Print(err)
	}
	err = retrypg.WithTx(ctx, db, retrypg.TxOptions{
		Verify: func(ctx context.Context, db retrypg.Querier) (committed bool, err error) {
			err = db.QueryRow(ctx, "select exists (select from payment where key = $1)", payment).Scan(&committed)
			return committed, err
		},
	}, pay)
	if err != nil {
		log.Print(err)
	}
}
