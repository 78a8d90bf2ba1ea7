package retrypg

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// TestCallersOfAPoolShareWhatItHasWhileTheServerHasNoRoomForMore: however it is given back.
func TestCallersOfAPoolShareWhatItHasWhileTheServerHasNoRoomForMore(t *testing.T) {
	const held, callers = 50 * time.Millisecond, 20
	for name, use := range map[string]func(ctx context.Context, pool *Pool) error{
		"Release": func(ctx context.Context, pool *Pool) error {
			conn, err := pool.Acquire(ctx)
			if err != nil {
				return err
			}
			time.Sleep(held)
			conn.Release()
			return nil
		},
		"AcquireFunc": func(ctx context.Context, pool *Pool) error {
			return pool.AcquireFunc(ctx, func(*pgxpool.Conn) error { time.Sleep(held); return nil })
		},
		"WithPgxTx": func(ctx context.Context, pool *Pool) error {
			return WithPgxTx(ctx, pool, TxOptions{}, func(context.Context, pgx.Tx) error { time.Sleep(held); return nil })
		},
		"Query": func(ctx context.Context, pool *Pool) error {
			rows, err := pool.Query(ctx, "select 1")
			if err != nil {
				return err
			}
			time.Sleep(held)
			rows.Close()
			return rows.Err()
		},
		"SendBatch": func(ctx context.Context, pool *Pool) error {
			batch := pool.SendBatch(ctx, &pgx.Batch{})
			time.Sleep(held)
			return batch.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := script.New(script.Accept(nil), script.Fatal("53300", "sorry, too many clients already"))
				pool := scriptedPool(t, s)
				began := time.Now()
				var calls sync.WaitGroup
				for range callers {
					calls.Go(func() { require.NoError(t, use(t.Context(), pool)) })
				}
				calls.Wait()
				took := time.Since(began)
				// Those that wait look for a connection every 20 ms.
				require.LessOrEqual(t, took, callers*(held+20*time.Millisecond)+held, "the connection was idle while callers waited")
				// Those that came together do not know of one another.
				require.LessOrEqual(t, len(s.Attempts()), callers+int(took/probeMaxDelay*2)+4)
			})
		})
	}
}

// TestAnIdleConnectionIsNoSignThatTheServerLetsSomebodyIn: it is an old one.
func TestAnIdleConnectionIsNoSignThatTheServerLetsSomebodyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script.New(script.Accept(nil), script.Fatal("53300", "sorry, too many clients already"))
		up := 0
		pool := scriptedPool(t, s, WithHooks(Hooks{ServerUp: func(time.Duration, int) { up++ }}))
		conn, err := pool.Acquire(t.Context())
		require.NoError(t, err)
		go func() {
			time.Sleep(time.Second)
			conn.Release()
		}()
		_, err = pool.Exec(t.Context(), "select 1")
		require.NoError(t, err)
		require.Zero(t, up)
	})
}

// TestAFullPoolKeepsNoTurnThatCallersOfAnotherHandleWaitFor: its callers wait for what others of it hold.
func TestAFullPoolKeepsNoTurnThatCallersOfAnotherHandleWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := script.Fatal("53300", "sorry, too many clients already")
		s := script.New(append([]script.Conversation{script.Accept(nil)}, append(script.Times(3, full), script.Accept(nil))...)...)
		t.Cleanup(s.Close)
		pool, err := NewPool(t.Context(), scriptedDSN+"&pool_max_conns=2", onScript(s), WithCommitCheck(NoCheck))
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		c := scriptedConnector(t, s)
		c.core.gate = pool.core.gate // as where nothing of the user's takes part in connecting
		ctx, cancel := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		hold := func() {
			if conn, err := pool.Acquire(ctx); err == nil {
				<-ctx.Done()
				conn.Release()
			}
		}
		for range 20 { // one gets a connection, one looks for room, and the others wait
			calls.Go(hold)
			synctest.Wait()
		}
		_, down := pool.core.gate.Down()
		require.True(t, down)
		conn, err := c.Connect(within(t, 5*time.Second))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.EqualValues(t, 2, pool.Stat().AcquiredConns())
		cancel()
		calls.Wait()
	})
}
