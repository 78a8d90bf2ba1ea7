package endpoint

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestEveryCallerReturnsInTimeAndTheLivingAreServed runs random outages, callers and accidents. The seed is in the name
// of the subtest.
func TestEveryCallerReturnsInTimeAndTheLivingAreServed(t *testing.T) {
	seeds := 400
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomDay(t, uint64(seed)) })
		})
	}
}

// caller is one call of a random day.
type caller struct {
	at       time.Duration // when it calls
	patience time.Duration // its deadline, counted from then; 0: it has none, and its limit is an hour
	cancel   time.Duration // when it is cancelled, counted from then; 0: never
	trouble  int           // one in so many of its attempts ends badly; 0: none
}

func randomDay(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	upTo := func(d time.Duration) time.Duration { return 1 + time.Duration(r.Int64N(int64(d))) }

	const day = 10 * time.Second
	var outages [][2]time.Duration
	for at := upTo(time.Second); at < day-2*time.Second; at += upTo(2 * time.Second) {
		end := at + upTo(2*time.Second)
		outages = append(outages, [2]time.Duration{at, end})
		at = end
	}
	longestLatency := 80 * time.Millisecond
	if r.IntN(4) == 0 {
		longestLatency = 1500 * time.Millisecond // attempts outlast outages and up-times
	}
	s := newServer(setup{Backoff: every(upTo(250 * time.Millisecond))}, 0, outages...)

	var accidents atomic.Int64
	callers := make([]caller, 1+r.IntN(60))
	for i := range callers {
		c := caller{at: upTo(day)}
		switch r.IntN(4) {
		case 0:
			c.patience = upTo(300 * time.Millisecond)
		case 1:
			c.patience = upTo(5 * time.Second)
		case 2:
			c.patience = time.Hour
		}
		if r.IntN(5) == 0 {
			c.cancel = upTo(3 * time.Second)
		}
		if r.IntN(4) == 0 {
			c.trouble = 1 + r.IntN(5)
		}
		callers[i] = c
	}

	var calls sync.WaitGroup
	for _, c := range callers {
		own := rand.New(rand.NewPCG(seed, r.Uint64()))
		calls.Go(func() {
			time.Sleep(c.at)
			ctx, limit := t.Context(), time.Hour
			if c.patience > 0 {
				ctx, limit = within(t, c.patience), 0
			}
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			if c.cancel > 0 {
				time.AfterFunc(c.cancel, cancel)
			}
			panicked, err := s.troubled(ctx, limit, func() bool {
				hit := c.trouble > 0 && own.IntN(c.trouble) == 0
				if hit {
					accidents.Add(1)
				}
				return hit
			}, own, longestLatency)
			took := s.now() - c.at
			if c.patience > 0 {
				require.LessOrEqual(t, took, c.patience, "a call outlasts its deadline")
			}
			if c.cancel > 0 {
				require.LessOrEqual(t, took, c.cancel, "a call outlasts its cancellation")
			}
			if (c.patience == 0 || c.patience == time.Hour) && c.cancel == 0 && !panicked && !errors.Is(err, errPassword) {
				require.NoError(t, err, "the server is there, and the call had time")
				// The last outage is over: what remains are a backoff, the ramp-up, and an outage for each accident.
				outage := time.Second + longestLatency + 250*time.Millisecond
				require.Less(t, s.now(), day+7*outage+time.Duration(accidents.Load())*outage)
			}
		})
	}
	calls.Wait()
	require.False(t, s.overlap, "two attempts at once while the gate was down")
	requireIdle(t, s.gate.Gate)
}

// troubled makes a call some of whose attempts panic, get a final answer, or hang until their context ends or a second is
// over. A caller that hangs is still bounded: its attempts time out, as real ones do.
func (s *server) troubled(ctx context.Context, limit time.Duration, accident func() bool, r *rand.Rand, latency time.Duration) (panicked bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			panicked = true
		}
	}()
	err = s.gate.Do(ctx, limit, func(ctx context.Context) error {
		return s.track(ctx, func(ctx context.Context) error {
			if err := pass(ctx, time.Duration(r.Int64N(int64(latency)))); err != nil {
				return err
			}
			if accident() {
				switch r.IntN(3) {
				case 0:
					panic("attempt")
				case 1:
					return errPassword
				}
				return errors.Join(pass(ctx, time.Second), errAway)
			}
			if !s.up() {
				return errAway
			}
			return nil
		})
	})
	return false, err
}
