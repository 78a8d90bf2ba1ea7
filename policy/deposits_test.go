package policy

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// lacking returns a budget without a token that a hundred successes fill.
func lacking() *Budget {
	b := Must(NewBudget(BudgetOptions{Ratio: 0.1, NoMinimum: true, Burst: 10}))
	for b.Withdraw() {
	}
	return b
}

// fill reports enough successes to fill it, in whichever places they go: a stack that grows moves.
func fill(b *Budget) {
	for range 100 * depositors {
		b.Deposit()
	}
}

func TestABudgetThatSuccessesHaveFilledIsWrittenNoMore(t *testing.T) {
	b := lacking()
	for range 99 {
		b.Deposit()
	}
	require.NotZero(t, b.missing.Load())
	fill(b)
	require.Zero(t, b.missing.Load())
	require.EqualValues(t, b.full, b.units)
	fill(b)
	require.Zero(t, b.inDeposits())
}

func TestABudgetThatManyGoroutinesHaveFilledIsWrittenNoMore(t *testing.T) {
	b := lacking()
	var wg sync.WaitGroup
	for range 8 * depositors {
		wg.Go(func() {
			for range 100 {
				b.Deposit()
			}
		})
	}
	wg.Wait()
	fill(b) // for one that found somebody else at it
	require.Zero(t, b.missing.Load())
	require.True(t, b.Withdraw())
	require.Equal(t, 9.0, b.Tokens(), "what was put in above full is lost")
}

func TestWhoAlreadyFillsABudgetIsNotWaitedFor(t *testing.T) {
	b := lacking()
	b.mu.Lock()
	fill(b)
	require.NotZero(t, b.missing.Load())
	b.mu.Unlock()
	fill(b)
	require.Zero(t, b.missing.Load())
}

func TestGoroutinesDepositInPlacesOfTheirOwn(t *testing.T) {
	places := make(map[uintptr]bool)
	var mu sync.Mutex
	var all, wg sync.WaitGroup
	const goroutines = 4 * depositors
	all.Add(goroutines)
	for range goroutines {
		wg.Go(func() {
			place := depositor()
			mu.Lock()
			places[place] = true
			mu.Unlock()
			all.Done()
			all.Wait() // all stacks are there at the same time
		})
	}
	wg.Wait()
	require.Greater(t, len(places), depositors/2)
	for place := range places {
		require.Less(t, place, uintptr(depositors))
	}
}
