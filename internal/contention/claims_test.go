package contention

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestNoKeyIsHeldTwiceAndNoWaitIsForEver lets many owners ask for keys, and for more of them while they hold some, in any order, and give up.
func TestNoKeyIsHeldTwiceAndNoWaitIsForEver(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			k := claims[int]{queues: make(map[int]*claimQueue[int]), enough: time.Hour}
			var holders [6]atomic.Int32
			var circles, granted atomic.Int32
			var wg sync.WaitGroup
			began := time.Now()
			for w := range 30 {
				r := rand.New(rand.NewPCG(seed, uint64(w)))
				wg.Go(func() {
					for n := range 30 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+r.IntN(20))*time.Millisecond)
						var o owner[int]
						held := map[int]bool{}
						for range 1 + r.IntN(3) {
							var keys []int
							for range 1 + r.IntN(2) {
								if key := r.IntN(len(holders)); !held[key] {
									held[key] = true
									keys = append(keys, key)
								}
							}
							_, err := k.hold(ctx, &o, keys, uint64(30*n+w))
							if err != nil {
								if errors.Is(err, ErrCircle) {
									circles.Add(1)
								}
								for _, key := range keys {
									delete(held, key)
								}
								break
							}
							granted.Add(1)
							for _, key := range once(keys) {
								if holders[key].Add(1) != 1 {
									t.Errorf("key %d is held twice", key)
								}
							}
							time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
						}
						for key := range held {
							holders[key].Add(-1)
						}
						k.drop(&o)
						cancel()
					}
				})
			}
			wg.Wait()
			require.Empty(t, k.queues)
			require.Zero(t, k.waiting)
			require.Positive(t, circles.Load())
			require.Positive(t, granted.Load())
			require.Less(t, time.Since(began), time.Minute, "who waits in a circle waits for his context to end")
		})
	}
}

func TestWhoHoldsSomethingGoesBeforeThoseWhoHoldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := claims[int]{queues: make(map[int]*claimQueue[int]), enough: time.Hour}
		var first, old, late owner[int]
		_, err := k.hold(t.Context(), &first, []int{1}, 1)
		require.NoError(t, err)
		_, err = k.hold(t.Context(), &late, []int{2}, 3)
		require.NoError(t, err)
		var order []string
		var wg sync.WaitGroup
		wait := func(o *owner[int], name string, seq uint64) {
			wg.Go(func() {
				if _, err := k.hold(t.Context(), o, []int{1}, seq); err != nil {
					t.Error(err)
				}
				order = append(order, name)
				k.drop(o)
			})
			synctest.Wait()
		}
		wait(&old, "old", 2)
		wait(&late, "holds", 3)
		k.drop(&first)
		wg.Wait()
		require.Equal(t, []string{"holds", "old"}, order)
	})
}

func TestKeysThatTheCallerChangesAfterwardsAreHeldAsTheyWere(t *testing.T) {
	k := claims[string]{queues: make(map[string]*claimQueue[string]), enough: time.Hour}
	var o owner[string]
	keys := []string{"a"}
	_, err := k.hold(t.Context(), &o, keys, 1)
	require.NoError(t, err)
	keys[0] = "b"
	k.drop(&o)
	require.Empty(t, k.queues)
}
