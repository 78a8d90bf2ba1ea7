package demo

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"

	"github.com/retrypg/retrypg"
)

// programKinds are the three programs, in the order in which they are shown.
var programKinds = [...]struct {
	name, database string
	open           func(dsn string, opts Options) (*sql.DB, error)
	move           func(context.Context, *sql.DB, transfer) error
}{
	{"pgx", "bank_pgx", openPgx, moveOnce},
	{"pgx + loop", "bank_loop", openPgx, moveInLoop},
	{"retrypg", "bank_retrypg", openRetrypg, moveWithTx},
}

func openPgx(dsn string, _ Options) (*sql.DB, error) { return sql.Open("pgx", dsn) }

func openRetrypg(dsn string, opts Options) (*sql.DB, error) {
	return retrypg.OpenDB(dsn, opts.Retrypg...)
}

// retrypgProgram is the index of the program that runs through retrypg.
const retrypgProgram = 2

// program is one of the three at work: its database handle and what it told.
type program struct {
	name  string
	db    *sql.DB
	move  func(context.Context, *sql.DB, transfer) error
	tally *tally
}

// programs are all of them, in the order of programKinds.
type programs [len(programKinds)]*program

func openPrograms(st *stage, opts Options) (all programs, err error) {
	for i, kind := range programKinds {
		db, err := kind.open(st.lanes[i].dsn(), opts)
		if err != nil {
			return all, errors.Join(err, all.close())
		}
		all[i] = &program{name: kind.name, db: db, move: kind.move, tally: newTally()}
	}
	return all, nil
}

// close closes their database handles. It may be called again.
func (all programs) close() error {
	var errs []error
	for _, p := range all {
		if p != nil {
			errs = append(errs, p.db.Close())
		}
	}
	return errors.Join(errs...)
}

// transfer is money that moves from one account to another.
type transfer struct {
	id        int64
	from, to  int
	amount    int64
	ordered   bool // lock the accounts in the order of their numbers, which avoids deadlocks
	isolation sql.IsolationLevel
}

// in does the work of the transfer in an open transaction. All three programs share it.
func (t transfer) in(ctx context.Context, tx *sql.Tx) error {
	const move = "update accounts set balance = balance + $1 where id = $2"
	steps := [2]struct {
		account int
		amount  int64
	}{{t.from, -t.amount}, {t.to, t.amount}}
	if t.ordered && t.from > t.to {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, step := range steps {
		if _, err := tx.ExecContext(ctx, move, step.amount, step.account); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, "insert into ledger (id, debit, credit, amount) values ($1, $2, $3, $4)",
		t.id, t.from, t.to, t.amount)
	return err
}

// moveOnce is the transfer as a careful person writes it with database/sql.
func moveOnce(ctx context.Context, db *sql.DB, t transfer) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: t.isolation})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if err := t.in(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// The loop of the second program: what general retry libraries do by default or are commonly told to.
const (
	loopAttempts = 10
	loopFirst    = 50 * time.Millisecond
	loopLongest  = time.Second
)

// moveInLoop runs the transfer again whatever the error was, as loops do that know nothing of transactions.
func moveInLoop(ctx context.Context, db *sql.DB, t transfer) error {
	wait := loopFirst
	for attempt := 1; ; attempt++ {
		err := moveOnce(ctx, db, t)
		if err == nil || attempt == loopAttempts {
			return err
		}
		if pause(ctx, wait/2+rand.N(wait/2)) != nil {
			return err
		}
		wait = min(2*wait, loopLongest)
	}
}

// moveWithTx is the transfer through retrypg.
func moveWithTx(ctx context.Context, db *sql.DB, t transfer) error {
	return retrypg.WithTx(ctx, db, retrypg.TxOptions{Isolation: t.isolation, Name: "transfer"}, t.in)
}
