package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

// foreignDriver is another driver: each call of its connections is noted, and fails as results say.
type foreignDriver struct {
	mu      sync.Mutex
	results map[string][]error // by call, one after the other; none are left: success
	calls   []string
}

func (d *foreignDriver) call(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, name)
	if len(d.results[name]) == 0 {
		return nil
	}
	err := d.results[name][0]
	d.results[name] = d.results[name][1:]
	return err
}

func (d *foreignDriver) called(name string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.calls {
		if c == name {
			n++
		}
	}
	return n
}

func (d *foreignDriver) Connect(context.Context) (driver.Conn, error) {
	return foreignConn{d}, d.call("connect")
}

func (d *foreignDriver) Driver() driver.Driver { return nil }

type foreignConn struct{ d *foreignDriver }

func (c foreignConn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (c foreignConn) Begin() (driver.Tx, error)           { return nil, errors.ErrUnsupported }
func (c foreignConn) Close() error                        { return nil }

func (c foreignConn) BeginTx(_ context.Context, o driver.TxOptions) (driver.Tx, error) {
	if err := c.d.call(fmt.Sprintf("begin %d %v", o.Isolation, o.ReadOnly)); err != nil {
		return nil, err
	}
	return foreignTx(c), nil
}

func (c foreignConn) ExecContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.ResultNoRows, c.d.call(query)
}

type foreignTx struct{ d *foreignDriver }

func (t foreignTx) Commit() error   { return t.d.call("commit") }
func (t foreignTx) Rollback() error { return t.d.call("rollback") }

// stateError is a server error of another driver: all of them offer this method.
type stateError string

func (e stateError) Error() string    { return "server error " + string(e) }
func (e stateError) SQLState() string { return string(e) }

const plainBegin = "begin 0 false"

// foreign runs test in a bubble with a database of another driver.
func foreign(t *testing.T, results map[string][]error, test func(t *testing.T, db *sql.DB, d *foreignDriver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := &foreignDriver{results: results}
		db := sql.OpenDB(d)
		defer db.Close()
		test(t, db, d)
	})
}

func TestAConflictOfAnotherDriverRunsTheTransactionAgain(t *testing.T) {
	for _, at := range []string{"update t set v = v", "commit", plainBegin} {
		t.Run(at, func(t *testing.T) {
			conflicts := map[string][]error{at: {stateError("40001"), stateError("40P01"), fmt.Errorf("wrapped: %w", stateError("40001"))}}
			foreign(t, conflicts, func(t *testing.T, db *sql.DB, d *foreignDriver) {
				require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
				require.Equal(t, 4, d.called(plainBegin))
			})
		})
	}
}

func TestACommitOfAnotherDriverThatTheServerDidNotAnswerIsUnknown(t *testing.T) {
	for _, commit := range []error{driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF, errors.New("broken pipe"), stateError("08006"), context.DeadlineExceeded} {
		t.Run(commit.Error(), func(t *testing.T) {
			foreign(t, map[string][]error{"commit": {commit}}, func(t *testing.T, db *sql.DB, d *foreignDriver) {
				err := WithTx(t.Context(), db, TxOptions{}, update)
				require.ErrorIs(t, err, ErrCommitUnknown)
				require.ErrorIs(t, err, commit)
				require.Equal(t, 1, d.called("commit"))
				require.Equal(t, 1, d.called(plainBegin))
			})
		})
	}
}

func TestACommitThatTheServerOfAnotherDriverRefusedIsItsError(t *testing.T) {
	foreign(t, map[string][]error{"commit": {stateError("23505")}}, func(t *testing.T, db *sql.DB, d *foreignDriver) {
		err := WithTx(t.Context(), db, TxOptions{}, update)
		require.Equal(t, stateError("23505"), err)
		require.Equal(t, 1, d.called(plainBegin))
	})
}

func TestAClosureThatEndsTheTransactionOfAnotherDriverIsToldSo(t *testing.T) {
	for name, end := range map[string]func(*sql.Tx) error{"commit": (*sql.Tx).Commit, "rollback": (*sql.Tx).Rollback} {
		for _, own := range []error{nil, stateError("40001")} {
			t.Run(fmt.Sprintf("%s %v", name, own), func(t *testing.T) {
				foreign(t, nil, func(t *testing.T, db *sql.DB, d *foreignDriver) {
					err := WithTx(t.Context(), db, TxOptions{}, func(_ context.Context, tx *sql.Tx) error {
						require.NoError(t, end(tx))
						return own
					})
					require.ErrorIs(t, err, ErrTxEnded)
					require.Equal(t, 1, d.called(plainBegin))
					require.Equal(t, 1, len(d.calls)-2, "connect, begin, and the closure's own")
				})
			})
		}
	}
}

func TestTheOptionsOfATransactionReachAnotherDriver(t *testing.T) {
	foreign(t, nil, func(t *testing.T, db *sql.DB, d *foreignDriver) {
		opts := TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true, Deferrable: true}
		require.NoError(t, WithTx(t.Context(), db, opts, func(context.Context, *sql.Tx) error { return nil }))
		require.Equal(t, []string{"connect", "begin 6 true", "set transaction deferrable", "commit"}, d.calls)
	})
}

func TestATransactionThatAnotherDriverCannotMakeDeferrableIsRolledBack(t *testing.T) {
	results := map[string][]error{"set transaction deferrable": {stateError("0A000")}}
	foreign(t, results, func(t *testing.T, db *sql.DB, d *foreignDriver) {
		err := WithTx(t.Context(), db, TxOptions{Deferrable: true}, update)
		require.Equal(t, stateError("0A000"), err)
		require.Equal(t, 1, d.called("rollback"))
		require.Zero(t, d.called("update t set v = v"))
		require.Zero(t, db.Stats().InUse)
	})
}

func TestAPanicWithAnotherDriverRollsBack(t *testing.T) {
	foreign(t, nil, func(t *testing.T, db *sql.DB, d *foreignDriver) {
		require.PanicsWithValue(t, "closure", func() {
			_ = WithTx(t.Context(), db, TxOptions{}, func(context.Context, *sql.Tx) error { panic("closure") })
		})
		require.Equal(t, 1, d.called("rollback"))
		require.Zero(t, db.Stats().InUse)
	})
}

func TestAContextThatEndsWithAnotherDriverIsNoUnknownCommit(t *testing.T) {
	foreign(t, nil, func(t *testing.T, db *sql.DB, d *foreignDriver) {
		ctx, cancel := context.WithCancel(t.Context())
		err := WithTx(ctx, db, TxOptions{}, func(context.Context, *sql.Tx) error {
			cancel()
			synctest.Wait() // database/sql rolls back
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, ErrCommitUnknown)
		require.Zero(t, d.called("commit"))
		require.Equal(t, 1, d.called("rollback"))
	})
}

func TestAnotherDriversServerThatIsAwayIsTriedWithBackoff(t *testing.T) {
	foreign(t, map[string][]error{"connect": {stateError("57P03"), stateError("57P03")}}, func(t *testing.T, db *sql.DB, d *foreignDriver) {
		start := time.Now()
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Equal(t, 3, d.called("connect"))
		require.LessOrEqual(t, time.Since(start), 3*DefaultInitialDelay)
	})
}

func TestAttemptsWithAnotherDriverAreBounded(t *testing.T) {
	conflicts := make([]error, 100)
	for i := range conflicts {
		conflicts[i] = stateError("40001")
	}
	foreign(t, map[string][]error{"commit": conflicts}, func(t *testing.T, db *sql.DB, d *foreignDriver) {
		e := requireExhausted(t, WithTx(t.Context(), db, TxOptions{MaxAttempts: 4}, update))
		require.Equal(t, policy.StopMaxAttempts, e.Reason)
		require.Equal(t, 4, e.Attempts)
		require.Equal(t, 4, d.called("commit"))
	})
}
