package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"
)

// side says what a contender is compared as.
type side int

const (
	peer  side = iota // a library that does the same work
	ours              // retrypg
	floor             // code without any library: what is left when everything is taken away
)

// contender is one way to do the work of a group.
type contender struct {
	name string
	side side
	// run does the work n times. An error ends the measurement: what fails is not the work.
	run func(n int) error
	// renew, if not nil, makes anew what one instance of may be slower than another by chance: a connection with the process
	// that serves it.
	renew func()
}

const (
	renewEvery = 10 // rounds
	warmUp     = 20 // pieces of work after it, which count for nothing
)

// group is some work, and the ways to do it.
type group struct {
	title string
	work  string // what is done, and what each contender is set up as
	aim   string // what retrypg should reach
	note  string // what a reader must know to read the numbers; may be empty
	// base is the name of the contender that all are compared with; empty: the fastest peer.
	base string
	// trips, if not nil, is a counter of round trips on the network. How many a piece of work takes is told then.
	trips      func() int
	contenders []contender
}

// result is what a contender needed for one piece of work.
type result struct {
	contender
	median float64 // nanoseconds
	spread float64 // half the distance between the quartiles, as a share of the median
	allocs float64 // median
	trips  float64 // median, where the group counts them
	ratio  float64 // to the base, the median over the rounds
	more   float64 // nanoseconds more than the base, the median over the rounds
	base   bool
}

// samples are the turns of one contender.
type samples struct {
	times  []float64 // nanoseconds for one piece of work
	allocs []float64
	trips  []float64
}

// measure lets the contenders take turns: each has one in every round, in random order.
func measure(ctx context.Context, g group, rounds int, batch time.Duration) ([]result, error) {
	sizes := make([]int, len(g.contenders))
	for i, c := range g.contenders {
		var err error
		if sizes[i], err = batchSize(c, batch); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", g.title, c.name, err)
		}
	}
	all := make([]samples, len(g.contenders))
	for round := range rounds {
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(errors.New("interrupted"), err)
		}
		if round%renewEvery == 0 {
			if err := renewAll(g); err != nil {
				return nil, err
			}
		}
		for _, i := range rand.Perm(len(g.contenders)) {
			before := g.tripsSoFar()
			took, allocs, err := turnOf(g.contenders[i], sizes[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", g.title, g.contenders[i].name, err)
			}
			all[i].times = append(all[i].times, took)
			all[i].allocs = append(all[i].allocs, allocs)
			all[i].trips = append(all[i].trips, float64(g.tripsSoFar()-before)/float64(sizes[i]))
		}
	}
	return compare(g, all)
}

// tripsSoFar reads the counter of round trips, if there is one.
func (g group) tripsSoFar() int {
	if g.trips == nil {
		return 0
	}
	return g.trips()
}

// batchSize returns how often the work is done in one turn of the given length. The work is done often enough before for
// caches of statements and pools to be filled.
func batchSize(c contender, batch time.Duration) (int, error) {
	for n := 1; ; n *= 2 {
		took := time.Duration(math.MaxInt64)
		for range 3 { // one may have been interrupted
			began := time.Now()
			if err := c.run(n); err != nil {
				return 0, err
			}
			took = min(took, time.Since(began))
		}
		if took >= batch {
			return max(1, int(float64(n)*float64(batch)/float64(took))), nil
		}
	}
}

func renewAll(g group) error {
	for _, c := range g.contenders {
		if c.renew == nil {
			continue
		}
		c.renew()
		if err := c.run(warmUp); err != nil {
			return fmt.Errorf("%s: %s: %w", g.title, c.name, err)
		}
	}
	return nil
}

// turnOf measures one turn. The counters of the heap stop the world; they are read outside of the time.
func turnOf(c contender, n int) (took, allocs float64, err error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	err = c.run(n)
	elapsed := time.Since(began)
	runtime.ReadMemStats(&after)
	return float64(elapsed) / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n), err
}

// compare makes the results of a group of its samples. Ratios and differences are taken within each round, whose turns had
// the same machine, before their median is.
func compare(g group, all []samples) ([]result, error) {
	results := make([]result, len(all))
	for i, s := range all {
		times := slices.Clone(s.times)
		slices.Sort(times)
		slices.Sort(s.allocs)
		q := len(times) / 4
		results[i] = result{
			contender: g.contenders[i],
			median:    times[len(times)/2],
			spread:    (times[len(times)-1-q] - times[q]) / 2 / times[len(times)/2],
			allocs:    math.Round(s.allocs[len(s.allocs)/2]),
		}
		if g.trips != nil {
			slices.Sort(s.trips)
			results[i].trips = s.trips[len(s.trips)/2]
		}
	}
	base := baseOf(g, results)
	if base < 0 {
		return nil, fmt.Errorf("%s: there is nothing to compare with", g.title)
	}
	results[base].base = true
	for i := range results {
		ratios, more := make([]float64, len(all[i].times)), make([]float64, len(all[i].times))
		for round, t := range all[i].times {
			ratios[round] = t / all[base].times[round]
			more[round] = t - all[base].times[round]
		}
		slices.Sort(ratios)
		slices.Sort(more)
		results[i].ratio, results[i].more = ratios[len(ratios)/2], more[len(more)/2]
	}
	return results, nil
}

// baseOf returns the contender that the others are compared with.
func baseOf(g group, results []result) int {
	base := -1
	for i, r := range results {
		switch {
		case g.base != "":
			if r.name == g.base {
				return i
			}
		case r.side == peer && (base < 0 || r.median < results[base].median):
			base = i
		}
	}
	return base
}
