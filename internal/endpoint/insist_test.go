package endpoint

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInsistingReachesAServerSoonAfterItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(10 * time.Second)
		var attempts atomic.Int32
		_, err := Insist(t.Context(), 250*time.Millisecond, func(ctx context.Context) (int32, error) {
			n := attempts.Add(1)
			if time.Now().Before(back) {
				<-ctx.Done() // what was sent is lost
				return 0, ctx.Err()
			}
			return n, nil
		}, func(int32) { t.Error("nothing to discard") })
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(back), 250*time.Millisecond)
	})
}

func TestTheFirstOfInsistentAttemptsDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := Insist(t.Context(), time.Second, func(ctx context.Context) (int, error) { return 0, errAway }, func(int) {})
		require.ErrorIs(t, err, errAway)

		var attempts, discarded atomic.Int32
		value, err := Insist(t.Context(), time.Second, func(ctx context.Context) (int32, error) {
			n := attempts.Add(1)
			time.Sleep(3500 * time.Millisecond) // whatever becomes of ctx
			return n, nil
		}, func(int32) { discarded.Add(1) })
		require.NoError(t, err)
		require.EqualValues(t, 1, value)
		require.EqualValues(t, 4, attempts.Load())
		require.EqualValues(t, 3, discarded.Load())
	})
}

func TestInsistingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var most, now atomic.Int32
		start := time.Now()
		_, err := Insist(ctx, 250*time.Millisecond, func(ctx context.Context) (int, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			<-ctx.Done()
			return 0, ctx.Err()
		}, func(int) {})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(start))
		require.LessOrEqual(t, most.Load(), int32(maxInsisting+1), "one of them is ending")
		require.Zero(t, now.Load())
	})
}
