package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// tally is what came of one turn, of one process or of all.
type tally struct {
	Commits  int             `json:"commits"`  // within the turn
	Attempts int             `json:"attempts"` // runs of closures, of all calls that began in the turn
	Done     int             `json:"done"`     // calls that committed, those that ended after the turn included
	Errors   int             `json:"errors"`   // calls that failed
	Times    []time.Duration `json:"times"`    // of the calls that committed
	Error    string          `json:"error"`    // one of the errors
}

// drain bounds how long calls may go on that were under way when their turn was over.
const drain = 30 * time.Second

// turn lets workers run transfers one after another, until the turn is over, and waits for those that are under way. first is
// the number of its first worker among total.
func turn(ctx context.Context, run call, sc scenario, workers, first, total int, length time.Duration) tally {
	ctx, cancel := context.WithTimeout(ctx, length+drain)
	defer cancel()
	end := time.Now().Add(length)
	parts := make([]tally, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			var t tally
			attempt := func() { t.Attempts++ }
			for {
				began := time.Now()
				if began.After(end) {
					break
				}
				from, to := sc.accountsOf(r, first+w, total)
				err := run(ctx, from, to, attempt)
				now := time.Now()
				if err != nil {
					t.Errors++
					t.Error = err.Error()
					continue
				}
				t.Done++
				t.Times = append(t.Times, now.Sub(began))
				if !now.After(end) {
					t.Commits++
				}
			}
			parts[w] = t
		})
	}
	wg.Wait()
	var all tally
	for _, t := range parts {
		all.add(t)
	}
	return all
}

func (t *tally) add(o tally) {
	t.Commits += o.Commits
	t.Attempts += o.Attempts
	t.Done += o.Done
	t.Errors += o.Errors
	t.Times = append(t.Times, o.Times...)
	if o.Error != "" {
		t.Error = o.Error
	}
}
