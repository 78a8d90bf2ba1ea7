package endpoint

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// shelf is a stock of things that are alike.
type shelf struct {
	mu     sync.Mutex
	things int
	looked int // how often somebody wanted to take one
}

func (s *shelf) stock() *Stock {
	return &Stock{
		Has: func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.things > 0
		},
		Take: func(context.Context) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.looked++
			if s.things == 0 {
				return ErrEmpty
			}
			s.things--
			return nil
		},
	}
}

// put puts a thing there, and lets those that wait look.
func (s *shelf) put() {
	s.mu.Lock()
	s.things++
	s.mu.Unlock()
	time.Sleep(lookAtStock)
	synctest.Wait()
}

// withoutServer runs f with a gate whose server is away for as long as f runs, while one caller looks for it.
func withoutServer(t *testing.T, f func(t *testing.T, g *Gate)) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Backoff: every(time.Second)})
		ctx, cancel := context.WithCancel(t.Context())
		prober := make(chan error, 1)
		go func() { prober <- g.Do(ctx, Call{Healable: away}, refuse) }()
		synctest.Wait()
		f(t, g)
		_, down := g.Down()
		require.True(t, down, "nothing was learned of the server")
		cancel()
		require.Error(t, <-prober)
		requireIdle(t, g)
	})
}

func refuse(context.Context) error { return errAway }

func TestACallIsServedFromItsStockWhileTheServerIsAway(t *testing.T) {
	withoutServer(t, func(t *testing.T, g *Gate) {
		var mine, others shelf
		var calls sync.WaitGroup
		var served atomic.Int32
		for range 3 {
			calls.Go(func() {
				require.NoError(t, g.Do(t.Context(), Call{Healable: away, Stock: mine.stock()}, refuse))
				served.Add(1)
			})
			synctest.Wait()
		}
		others.put()
		require.Zero(t, served.Load(), "it was another's")
		for n := range int32(3) {
			mine.put()
			require.Equal(t, n+1, served.Load())
		}
		calls.Wait()
	})
}

// TestWhatCameIntoTheStockBeforeACallWaitedServesIt: nobody will say so again.
func TestWhatCameIntoTheStockBeforeACallWaitedServesIt(t *testing.T) {
	withoutServer(t, func(t *testing.T, g *Gate) {
		s := shelf{things: 1}
		began := time.Now()
		require.NoError(t, g.Do(t.Context(), Call{Healable: away, Stock: s.stock()}, refuse))
		require.Equal(t, began, time.Now())
	})
}

// TestAStockThatSeemsFullAndIsEmptyDoesNotOutlastTheCall: connections may be found dead when they are taken.
func TestAStockThatSeemsFullAndIsEmptyDoesNotOutlastTheCall(t *testing.T) {
	withoutServer(t, func(t *testing.T, g *Gate) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stock := &Stock{Has: func() bool { return true }, Take: func(context.Context) error {
			time.Sleep(100 * time.Millisecond)
			return ErrEmpty
		}}
		require.ErrorIs(t, g.Do(ctx, Call{Healable: away, Stock: stock}, refuse), context.DeadlineExceeded)
	})
}

func TestAnErrorOfTheStockEndsTheCall(t *testing.T) {
	withoutServer(t, func(t *testing.T, g *Gate) {
		stock := &Stock{Has: func() bool { return true }, Take: func(context.Context) error { return context.Canceled }}
		require.Equal(t, context.Canceled, g.Do(t.Context(), Call{Healable: away, Stock: stock}, refuse))
	})
}

// TestACallThatEndsWhileItTakesTellsOfTheServer: the end of its context alone would not.
func TestACallThatEndsWhileItTakesTellsOfTheServer(t *testing.T) {
	withoutServer(t, func(t *testing.T, g *Gate) {
		stock := &Stock{Has: func() bool { return true }, Take: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := g.Do(ctx, Call{Healable: away, Stock: stock}, refuse)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, exhausted(t, err), errAway)
		err = g.Do(t.Context(), Call{Healable: away, Stock: stock, Limit: time.Second}, refuse)
		require.NotErrorIs(t, err, context.DeadlineExceeded, "it was the limit")
		require.ErrorIs(t, exhausted(t, err), errAway)
	})
}

// TestWhoWaitsForAPlaceHoldsNoTurn: callers of another stock need none.
func TestWhoWaitsForAPlaceHoldsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Backoff: every(time.Second)})
		var back atomic.Bool
		connect := func(context.Context) error {
			if back.Load() {
				return nil
			}
			return errAway
		}
		ctx, cancel := context.WithCancel(t.Context())
		var full, others sync.WaitGroup
		var ended atomic.Int32
		// They have no place, from the first one that looks for the server to the last one that is let in.
		places := &Stock{Has: func() bool { return false }, Take: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		first := true
		for range 10 * rampUp {
			full.Go(func() {
				require.Error(t, g.Do(ctx, Call{Healable: away, Stock: places}, func(context.Context) error {
					if first {
						first = false
						return errAway
					}
					return ErrNoPlace
				}))
				ended.Add(1)
			})
			synctest.Wait()
		}
		for range rampUp {
			others.Go(func() { require.NoError(t, g.Do(t.Context(), Call{Healable: away}, connect)) })
			synctest.Wait()
		}
		back.Store(true)
		others.Wait()
		require.Zero(t, ended.Load(), "they wait on")
		cancel()
		full.Wait()
		requireIdle(t, g)
	})
}

// TestAnAttemptThatWasServedFromTheStockTellsNothingOfTheServer: it neither opens the gate nor ends the search.
func TestAnAttemptThatWasServedFromTheStockTellsNothingOfTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Backoff: every(time.Second)})
		attempts := 0
		require.NoError(t, g.Do(t.Context(), Call{Healable: away}, func(context.Context) error {
			if attempts++; attempts == 1 {
				return errAway
			}
			return ErrInStock
		}))
		_, down := g.Down()
		require.True(t, down)
		requireIdle(t, g)
		require.NoError(t, g.Do(t.Context(), Call{Healable: away}, func(context.Context) error { return nil }))
		_, down = g.Down()
		require.False(t, down, "the next one looks")
		require.NoError(t, g.Do(t.Context(), Call{Healable: away}, func(context.Context) error { return ErrInStock }))
	})
}

// TestACallThatFoundTheStockEmptyGoesBackToItsPlace: else those that came later would overtake it again and again.
func TestACallThatFoundTheStockEmptyGoesBackToItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Backoff: every(100 * time.Millisecond)})
		var mu sync.Mutex
		var tried []string
		attempt := func(name string) func(context.Context) error {
			return func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				tried = append(tried, name)
				return errAway
			}
		}
		var calls sync.WaitGroup
		call := func(name string, how Call) {
			calls.Go(func() { require.Error(t, g.Do(t.Context(), how, attempt(name))) })
		}
		call("prober", Call{Healable: away, Limit: 3 * time.Second})
		time.Sleep(time.Second)
		looks := 0
		stock := &Stock{
			Has:  func() bool { looks++; return looks == 50 }, // a second later
			Take: func(context.Context) error { return ErrEmpty },
		}
		call("first", Call{Healable: away, Limit: 10 * time.Second, Stock: stock})
		time.Sleep(500 * time.Millisecond)
		call("second", Call{Healable: away, Limit: 10 * time.Second})
		calls.Wait()
		require.Greater(t, looks, 50)
		i := slices.IndexFunc(tried, func(name string) bool { return name != "prober" })
		require.Equal(t, "first", tried[i])
	})
}
