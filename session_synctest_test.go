package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// brokenWrites is a connection whose writes fail from some moment on before any byte of them is taken.
type brokenWrites struct {
	net.Conn
	broken *atomic.Bool
}

var errWrite = errors.New("write: broken pipe")

func (c brokenWrites) Write(p []byte) (int, error) {
	if c.broken.Load() {
		return 0, errWrite
	}
	return c.Conn.Write(p)
}

// breakable makes the connections that are open when broken is set fail to write; later ones work.
func breakable(s *script.Server) (o Option, breakAll func()) {
	var mu sync.Mutex
	var flags []*atomic.Bool
	o = WithConnConfig(func(cfg *pgx.ConnConfig) error {
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := s.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			flags = append(flags, new(atomic.Bool))
			return brokenWrites{conn, flags[len(flags)-1]}, nil
		}
		return nil
	})
	return o, func() {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range flags {
			f.Store(true)
		}
	}
}

func TestAStatementOfWhichNothingWasSentGoesToAnotherConnection(t *testing.T) {
	for name, way := range statementWays {
		if strings.Contains(name, "pinned") {
			continue // there is no other
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := script.New()
				o, breakAll := breakable(s)
				db := scripted(t, s, o)
				db.SetMaxIdleConns(5)
				holdAndRelease(t, db, 5)
				breakAll()
				require.NoError(t, way(t.Context(), db, "insert into t values (1)"))
				require.Equal(t, 1, ran(s, "insert"))
			})
		})
	}
}

// holdAndRelease leaves n idle connections in the pool.
func holdAndRelease(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	var held []*sql.Conn
	for range n {
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		held = append(held, conn)
	}
	for _, conn := range held {
		require.NoError(t, conn.Close())
	}
	require.Equal(t, n, db.Stats().Idle)
}

func TestAPinnedConnectionThatIsLostTellsWhyAndNotErrBadConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New()
		o, breakAll := breakable(s)
		db := scripted(t, s, o)
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.ExecContext(t.Context(), "select 1")
		require.NoError(t, err)
		breakAll()
		_, err = conn.ExecContext(t.Context(), "insert into t values (1)")
		require.ErrorIs(t, err, errWrite)
		require.NotErrorIs(t, err, driver.ErrBadConn)
		require.Zero(t, ran(s, "insert"))
	})
}

func TestAStatementThatMayHaveRunIsNeverSentAgain(t *testing.T) {
	for name, way := range statementWays {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, func(_ *script.Session, sql string) script.Result {
					return script.Result{Close: strings.HasPrefix(sql, "insert")} // it ran, and the answer is lost
				})
				err := way(t.Context(), db, "insert into t values (1)")
				require.Error(t, err)
				require.Equal(t, 1, ran(s, "insert"))
				require.NotErrorIs(t, err, driver.ErrBadConn)
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, "what ended it: not merely that it is closed")
				require.Equal(t, OutcomeUnknown, Classify(err).Outcome)
			})
		})
	}
}

func TestTheErrorOfAStatementWhoseDeadlineEndsIsTheContexts(t *testing.T) {
	for name, way := range statementWays {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s := scriptedFor(t, func(_ *script.Session, sql string) script.Result {
					return script.Result{Hang: strings.HasPrefix(sql, "insert")}
				})
				start := time.Now()
				err := way(within(t, time.Second), db, "insert into t values (1)")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, driver.ErrBadConn)
				require.LessOrEqual(t, time.Since(start), time.Second)
				require.Equal(t, 1, ran(s, "insert"))
			})
		})
	}
}

func TestAnArgumentThatCannotBeEncodedLeavesTheConnectionUsable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, nil)
		db.SetMaxOpenConns(1)
		_, err := db.ExecContext(t.Context(), "insert into t values ($1)", make(chan int))
		require.Error(t, err)
		require.NotErrorIs(t, err, driver.ErrBadConn)
		require.Zero(t, ran(s, "insert"))
		_, err = db.ExecContext(t.Context(), "insert into t values (1)")
		require.NoError(t, err)
		require.Len(t, s.Attempts(), 1)
	})
}

func TestAStatementBehindOpenRowsIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, func(_ *script.Session, sql string) script.Result {
			if strings.HasPrefix(sql, "select") {
				return script.Text("a", "b", "c")
			}
			return script.Result{}
		})
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		rows, err := tx.QueryContext(t.Context(), "select v from t")
		require.NoError(t, err)
		defer rows.Close()
		_, err = tx.ExecContext(t.Context(), "insert into t values (1)")
		require.Error(t, err)
		require.NotErrorIs(t, err, driver.ErrBadConn)
		require.ErrorContains(t, err, "busy")
		require.NoError(t, rows.Close())
		require.NoError(t, rows.Err())
		_, err = tx.ExecContext(t.Context(), "insert into t values (2)")
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		require.Equal(t, 1, ran(s, "insert"))
	})
}

func TestBeginThatMeetsADeadConnectionTakesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost atomic.Int32
		s := script.New(script.Accept(func(_ *script.Session, sql string) script.Result {
			// The first two connections end when BEGIN arrives: it was sent, and has no effect that outlives them.
			return script.Result{Close: sql == "begin" && lost.Add(1) <= 2}
		}))
		db := scripted(t, s, WithLazyBegin(false))
		holdAndRelease(t, db, 2)
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		require.Equal(t, 3, ran(s, "begin"))
	})
}

func TestAnIdleConnectionIsPingedBeforeItIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reasons []string
		s := script.New()
		o, breakAll := breakable(s)
		db := scripted(t, s, o, WithHooks(Hooks{Evicted: func(reason string) { reasons = append(reasons, reason) }}))
		_, err := db.ExecContext(t.Context(), "insert into t values (1)")
		require.NoError(t, err)
		breakAll()
		time.Sleep(2 * time.Second)
		_, err = db.ExecContext(t.Context(), "insert into t values (2)")
		require.NoError(t, err)
		require.Equal(t, []string{"ping"}, reasons)
		require.Equal(t, 2, ran(s, "insert"))
	})
}

func TestAConnectionLeftInATransactionIsNotReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, nil)
		_, err := db.ExecContext(t.Context(), "begin")
		require.NoError(t, err)
		_, err = db.ExecContext(t.Context(), "insert into t values (1)")
		require.NoError(t, err)
		require.Len(t, s.Attempts(), 2)
	})
}

// database/sql asks one connection only.
func TestAPingThatFailsTellsWhyAndDropsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New()
		o, breakAll := breakable(s)
		db := scripted(t, s, o)
		holdAndRelease(t, db, 1)
		breakAll()
		require.ErrorIs(t, db.PingContext(t.Context()), errWrite)
		require.Zero(t, db.Stats().OpenConnections)
		require.NoError(t, db.PingContext(t.Context()))
		require.Len(t, s.Attempts(), 2)
	})
}
