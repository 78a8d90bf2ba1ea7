package endpoint

import (
	"context"
	"sync"
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
		Owner: s,
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

func (s *shelf) put(g *Gate) {
	s.mu.Lock()
	s.things++
	s.mu.Unlock()
	g.Stocked(s)
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
		served := 0
		for range 3 {
			calls.Go(func() {
				require.NoError(t, g.Do(t.Context(), Call{Healable: away, Stock: mine.stock()}, refuse))
				served++
			})
			synctest.Wait()
		}
		others.put(g)
		synctest.Wait()
		require.Zero(t, served, "it was another's")
		for n := range 3 {
			mine.put(g)
			synctest.Wait()
			require.Equal(t, n+1, served)
		}
		calls.Wait()
		require.Equal(t, 3, mine.looked, "one is woken for each thing")
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

// TestACallThatFoundItsStockEmptyWaitsOn: another one was faster.
func TestACallThatFoundItsStockEmptyWaitsOn(t *testing.T) {
	withoutServer(t, func(t *testing.T, g *Gate) {
		var s shelf
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- g.Do(ctx, Call{Healable: away, Stock: s.stock()}, refuse) }()
		synctest.Wait()
		g.Stocked(&s)
		synctest.Wait()
		require.Equal(t, 1, s.looked)
		require.ErrorIs(t, <-done, context.DeadlineExceeded)
	})
}

// TestAStockThatSeemsFullAndIsEmptyDoesNotOutlastTheCall: connections may be found dead when they are taken.
func TestAStockThatSeemsFullAndIsEmptyDoesNotOutlastTheCall(t *testing.T) {
	withoutServer(t, func(t *testing.T, g *Gate) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stock := &Stock{Owner: 1, Has: func() bool { return true }, Take: func(context.Context) error {
			time.Sleep(100 * time.Millisecond)
			return ErrEmpty
		}}
		require.ErrorIs(t, g.Do(ctx, Call{Healable: away, Stock: stock}, refuse), context.DeadlineExceeded)
	})
}

func TestAnErrorOfTheStockEndsTheCall(t *testing.T) {
	withoutServer(t, func(t *testing.T, g *Gate) {
		stock := &Stock{Owner: 1, Has: func() bool { return true }, Take: func(context.Context) error { return context.Canceled }}
		require.Equal(t, context.Canceled, g.Do(t.Context(), Call{Healable: away, Stock: stock}, refuse))
	})
}

// TestATakerThatRanOutOfTimeLeavesItToTheNext: it was woken at the moment at which its time was over.
func TestATakerThatRanOutOfTimeLeavesItToTheNext(t *testing.T) {
	withoutServer(t, func(t *testing.T, g *Gate) {
		var s shelf
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- g.Do(ctx, Call{Healable: away, Stock: s.stock()}, refuse) }()
		synctest.Wait()
		go func() { second <- g.Do(t.Context(), Call{Healable: away, Stock: s.stock()}, refuse) }()
		synctest.Wait()
		cancel()
		s.put(g) // the first has not run yet: it finds both
		err := <-first
		if err != nil {
			require.NoError(t, <-second)
			return
		}
		s.put(g)
		require.NoError(t, <-second)
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
