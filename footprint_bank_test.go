package retrypg

import (
	"context"
	"database/sql"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// bankTx is a transaction over database/sql or pgx.
type bankTx interface {
	exec(ctx context.Context, query string, args ...any) error
	value(ctx context.Context, query string, args ...any) (string, error)
	commit(ctx context.Context) error
}

type bankClosure = func(ctx context.Context, tx bankTx) error

type sqlBankTx struct{ *sql.Tx }

func (t sqlBankTx) exec(ctx context.Context, query string, args ...any) error {
	_, err := t.ExecContext(ctx, query, args...)
	return err
}

func (t sqlBankTx) value(ctx context.Context, query string, args ...any) (v string, err error) {
	err = t.QueryRowContext(ctx, query, args...).Scan(&v)
	return v, err
}

func (t sqlBankTx) commit(context.Context) error { return t.Commit() }

type pgxBankTx struct{ pgx.Tx }

func (t pgxBankTx) exec(ctx context.Context, query string, args ...any) error {
	_, err := t.Exec(ctx, query, args...)
	return err
}

func (t pgxBankTx) value(ctx context.Context, query string, args ...any) (v string, err error) {
	err = t.QueryRow(ctx, query, args...).Scan(&v)
	return v, err
}

func (t pgxBankTx) commit(ctx context.Context) error { return t.Commit(ctx) }

// bank is a handle on a real server with accounts 1 to 4, of 100 each, and a journal.
type bank struct {
	t     *testing.T
	core  *core
	run   func(ctx context.Context, opts TxOptions, fn bankClosure) error
	plain *pgx.Conn // somebody outside
	app   string    // application_name of the handle's connections
}

const (
	readAccount = "select balance::text from account where id = $1"
	addOne      = "update account set balance = balance + 1 where id = $1"
	note        = "insert into journal values ($1)"
	// A deadlock that the server must find is one that the test does not survive.
	neverLooked = "deadlock_timeout=10min"
)

// eachBank runs a test over database/sql and over a Pool, in transactions of a level.
func eachBank(t *testing.T, levels []sql.IsolationLevel, test func(t *testing.T, b *bank, opts TxOptions)) {
	t.Helper()
	eachBankWith(t, neverLooked, levels, test)
}

// eachBankWith is eachBank with a parameter of the connections.
func eachBankWith(t *testing.T, param string, levels []sql.IsolationLevel, test func(t *testing.T, b *bank, opts TxOptions)) {
	t.Helper()
	server := pgt.Shared(t)
	plain, err := pgx.Connect(t.Context(), server.DSN())
	require.NoError(t, err)
	t.Cleanup(func() { _ = plain.Close(context.Background()) })
	for _, level := range levels {
		for _, kind := range []string{"sql.DB", "Pool"} {
			t.Run(level.String()+" "+kind, func(t *testing.T) {
				_, err := plain.Exec(t.Context(), `drop table if exists account, journal; create table account (id int primary key, balance int not null);
					insert into account select i, 100 from generate_series(1, 4) i; create table journal (entry text)`)
				require.NoError(t, err)
				b := &bank{t: t, plain: plain, app: "bank_" + strconv.Itoa(int(level)) + kind[:2]}
				dsn := server.DSN("application_name="+b.app, param)
				if kind == "Pool" {
					pool, err := NewPool(t.Context(), dsn+"&pool_max_conns=16")
					require.NoError(t, err)
					t.Cleanup(pool.Close)
					b.core = pool.core
					b.run = func(ctx context.Context, opts TxOptions, fn bankClosure) error {
						return WithPgxTx(ctx, pool, opts, func(ctx context.Context, tx pgx.Tx) error { return fn(ctx, pgxBankTx{tx}) })
					}
				} else {
					db, err := OpenDB(dsn)
					require.NoError(t, err)
					t.Cleanup(func() { _ = db.Close() })
					b.over(db)
				}
				test(t, b, TxOptions{Name: "transfer", Isolation: level})
			})
		}
	}
}

// over makes the bank work over a handle of database/sql.
func (b *bank) over(db TxBeginner) {
	var err error
	b.core, err = coreOf(b.t.Context(), db)
	require.NoError(b.t, err)
	b.run = func(ctx context.Context, opts TxOptions, fn bankClosure) error {
		return WithTx(ctx, db, opts, func(ctx context.Context, tx *sql.Tx) error { return fn(ctx, sqlBankTx{tx}) })
	}
}

func (b *bank) context() context.Context { return within(b.t, time.Minute) }

var errInTheWay = &pgconn.PgError{Severity: "ERROR", Code: "40001", Message: "as if"}

// teach makes transactions of a name wait where they run addOne with the same argument. No account is changed.
func (b *bank) teach(opts TxOptions) {
	b.t.Helper()
	opts.MaxAttempts = 1
	conflict := func(fn bankClosure) {
		err := b.run(b.context(), opts, func(ctx context.Context, tx bankTx) error {
			if err := fn(ctx, tx); err != nil {
				return err
			}
			return errInTheWay
		})
		if SQLState(err) != "40001" {
			b.t.Errorf("teach: %v", err)
		}
	}
	for range 6 { // there is contention
		conflict(func(context.Context, bankTx) error { return nil })
	}
	// What is held is taken away after some times as long as a transaction takes: here after a second
	require.NoError(b.t, b.run(b.context(), opts, func(ctx context.Context, tx bankTx) error {
		return tx.exec(ctx, "select pg_sleep(0.1)")
	}))
	touch := func(ctx context.Context, tx bankTx) error { return tx.exec(ctx, addOne, -1) }
	conflict(touch) // from now on some run at a time, to learn
	for range 8 {   // pairs: as many attempts as it takes
		var met, work sync.WaitGroup
		met.Add(2)
		for range 2 {
			work.Go(func() {
				conflict(func(ctx context.Context, tx bankTx) error {
					err := touch(ctx, tx)
					met.Done()
					met.Wait()
					return err
				})
			})
		}
		work.Wait()
	}
}

// holder is a transaction that has added one to account 1, and goes on when it is told to.
type holder struct {
	pid  string
	goOn chan error // what its closure is to return
	done chan error
}

func (b *bank) hold(opts TxOptions) *holder {
	b.t.Helper()
	h := &holder{goOn: make(chan error), done: make(chan error, 1)}
	holds := make(chan struct{})
	opts.MaxAttempts = 1
	go func() {
		h.done <- b.run(b.context(), opts, func(ctx context.Context, tx bankTx) (err error) {
			if h.pid, err = tx.value(ctx, "select pg_backend_pid()::text"); err != nil {
				return err
			}
			if err := tx.exec(ctx, addOne, 1); err != nil {
				return err
			}
			close(holds)
			select {
			case err := <-h.goOn:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	select {
	case <-holds:
	case err := <-h.done:
		b.t.Fatalf("the holder has ended: %v", err)
	}
	return h
}

// end makes the holder's closure return err, and waits for the end of its transaction.
func (h *holder) end(err error) error {
	h.goOn <- err
	return <-h.done
}

// waiting waits until n transactions wait for another one.
func (b *bank) waiting(n int) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return b.core.contention.State().Waiting == n }, time.Minute, time.Millisecond)
}

func (b *bank) ask(query string, args ...any) string {
	b.t.Helper()
	var v string
	require.NoError(b.t, b.plain.QueryRow(b.t.Context(), "select ("+query+")::text", args...).Scan(&v))
	return v
}

// balances returns what is there of the accounts 1 and 2, and the journal.
func (b *bank) balances() string {
	b.t.Helper()
	return b.ask("select string_agg(balance::text, ' ' order by id) from account where id < 3") + ": " +
		b.ask("select coalesce(string_agg(entry, ' ' order by entry), '') from journal")
}

// atRest requires that no connection of the handle has a transaction open, and that nobody holds what the next one waits for.
func (b *bank) atRest(opts TxOptions) {
	b.t.Helper()
	require.Equal(b.t, "0", b.ask("select count(*) from pg_stat_activity where application_name = $1 and state <> 'idle'", b.app))
	done := make(chan error, 1)
	go func() {
		done <- b.run(b.context(), opts, func(ctx context.Context, tx bankTx) error {
			for _, account := range []int{1, 2, -1} {
				if err := tx.exec(ctx, addOne, account); err != nil {
					return err
				}
			}
			return errRollBack
		})
	}()
	for {
		select {
		case err := <-done:
			require.ErrorIs(b.t, err, errRollBack)
			return
		default:
			require.Zero(b.t, b.core.contention.State().Waiting, "somebody holds what was not given back")
		}
	}
}

// kill ends the idle transactions of the handle but one, and returns how many those were.
func (b *bank) kill(but string) string {
	b.t.Helper()
	return b.ask(`select count(*) filter (where pg_terminate_backend(pid, 60000)) from pg_stat_activity
		where application_name = $1 and state = 'idle in transaction' and pid <> $2::text::int`, b.app, but)
}
