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
