package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test program be a process of the load, as the program itself is.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestEveryContenderMovesMoneyAndNoneMakesIt(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a PostgreSQL server")
	}
	dir := t.TempDir()
	s := settings{
		text: filepath.Join(dir, "c.md"), plot: filepath.Join(dir, "c.svg"), rounds: 1, turn: 50 * time.Millisecond,
		only: "serializable", tableOnly: true, workers: 4, processes: 2,
	}
	require.NoError(t, run(t.Context(), s)) // it compares the balances
	text, err := os.ReadFile(s.text)
	require.NoError(t, err)
	require.Contains(t, string(text), "4 workers in 2 processes")
	for _, c := range contenders() {
		require.Contains(t, string(text), "| "+c.name+" ")
	}
	require.FileExists(t, s.plot)
}

func TestTheAccountsOfAScenario(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	hot, own := map[int]bool{}, map[int]int{}
	for i := range 1000 {
		from, to := scenarios[0].accountsOf(r, i%16, 16)
		require.NotEqual(t, from, to)
		hot[from], hot[to] = true, true
		from, to = scenarios[2].accountsOf(r, i%16, 16)
		own[from], own[to] = i%16, i%16
		require.LessOrEqual(t, max(from, to), accounts)
	}
	require.Len(t, hot, hotAccounts)
	require.Len(t, own, 32)
}

func TestTheMedianAndTheRestOfAResult(t *testing.T) {
	require.Zero(t, median(nil))
	require.InDelta(t, 2, median([]float64{3, 1, 2}), 0)
	require.InDelta(t, 2.5, median([]float64{4, 1, 2, 3}), 0)
	var s samples
	s.add(tally{Commits: 50, Done: 60, Attempts: 90, Errors: 20, Times: []time.Duration{3, 1, 2}, Error: "no"}, 500*time.Millisecond)
	r := s.result("x")
	require.InDelta(t, 100, r.rate, 0)
	require.InDelta(t, 1.5, r.attempts, 0)
	require.InDelta(t, .25, r.errors, 0)
	require.Equal(t, time.Duration(3), r.worst)
	require.Equal(t, "no", r.example)
}
