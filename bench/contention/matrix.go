package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

// cell is what is measured together: the contenders take turns in it.
type cell struct {
	workers   int // of all processes
	processes int
}

// matrix is one scenario, measured in all cells.
type matrix struct {
	server   *server
	scenario scenario
	settings settings
	hand     string // the best of the loops by hand
	trials   []result
	cells    map[cell][]result
}

// measure measures all cells of a scenario.
func (m *matrix) measure(ctx context.Context) error {
	m.cells = make(map[cell][]result)
	table := cell{workers: m.settings.workers, processes: m.settings.processes}
	var names []string
	if !m.scenario.alone && (m.settings.contender == "" || strings.Contains(handName, m.settings.contender)) {
		for _, c := range contenders() {
			if isByHand(c.name) {
				names = append(names, c.name)
			}
		}
		var err error
		if m.trials, err = m.turns(ctx, table, names, m.settings.rounds); err != nil {
			return err
		}
		m.hand = slices.MaxFunc(m.trials, func(a, b result) int { return int(a.rate - b.rate) }).name
	}
	names = nil
	for _, c := range contenders() {
		if (!isByHand(c.name) || c.name == m.hand) && strings.Contains(c.name, m.settings.contender) && (!m.scenario.alone || c.name != limitName) {
			names = append(names, c.name)
		}
	}
	cells := []cell{table}
	if !m.settings.tableOnly && !m.scenario.alone {
		for _, w := range curve {
			if w != m.settings.workers {
				cells = append(cells, cell{workers: w, processes: 1})
			}
		}
		for _, p := range processes {
			if p > 1 {
				cells = append(cells, cell{workers: tableWorkers, processes: p})
			}
		}
	}
	for _, c := range cells {
		rounds := m.settings.rounds
		if c == table {
			rounds *= 3
		}
		var err error
		if m.cells[c], err = m.turns(ctx, c, names, rounds); err != nil {
			return err
		}
	}
	return nil
}

// turns measures one cell.
func (m *matrix) turns(ctx context.Context, c cell, names []string, rounds int) (_ []result, err error) {
	list := make([]*process, c.processes)
	for i := range list {
		if list[i], err = startProcess(ctx); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, list[i].close()) }()
	}
	sums := make([]samples, len(names))
	for range rounds {
		for _, i := range rand.Perm(len(names)) {
			if err := ctx.Err(); err != nil {
				return nil, errors.Join(errors.New("interrupted"), err)
			}
			t, err := m.turn(list, c, names[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", names[i], err)
			}
			sums[i].add(t, m.settings.turn)
		}
	}
	results := make([]result, len(names))
	for i, s := range sums {
		results[i] = s.result(names[i])
		for j, base := range names {
			ratios := make([]float64, rounds)
			for round := range ratios {
				ratios[round] = s.rates[round] / max(sums[j].rates[round], 1)
			}
			switch {
			case base == limitName:
				results[i].ofLimit = median(ratios)
			case base == plainName:
				results[i].ofPlain = median(ratios)
			case isByHand(base):
				results[i].ofHand = median(ratios)
			}
		}
		fmt.Fprintf(os.Stderr, "%s, %d workers, %d processes: %s\n", m.scenario.name, c.workers, c.processes, results[i])
	}
	return results, nil
}

// turn lets one contender have its turn. What works in one process only has all workers in the first one.
func (m *matrix) turn(list []*process, c cell, name string) (all tally, err error) {
	if contender, _ := contenderNamed(name); !contender.processes {
		list = list[:1]
	}
	share := c.workers / len(list)
	for i, p := range list {
		err := p.tell(order{
			Scenario: m.scenario.name, Contender: name, DSN: m.server.DSN(),
			Workers: share, First: i * share, Total: c.workers, Turn: m.settings.turn,
		})
		if err != nil {
			return all, err
		}
	}
	for _, p := range list {
		t, err := p.answer()
		if err != nil {
			return all, err
		}
		all.add(t)
	}
	return all, nil
}

// samples are the turns of one contender in one cell.
type samples struct {
	rates []float64 // commits per second, by round
	all   tally
}

func (s *samples) add(t tally, turn time.Duration) {
	s.rates = append(s.rates, float64(t.Commits)/turn.Seconds())
	s.all.add(t)
}

// result is what came of one contender in one cell.
type result struct {
	name     string
	rate     float64 // commits per second, the median of the turns
	attempts float64 // per commit
	p50, p99 time.Duration
	worst    time.Duration
	errors   float64 // share of the calls
	example  string  // of an error
	// Ratios of the rate to that of others, the medians of those within the rounds; 0 where they were not measured.
	ofLimit, ofHand, ofPlain float64
}

func (s *samples) result(name string) result {
	r := result{name: name, example: s.all.Error}
	r.rate = median(s.rates)
	if calls := s.all.Done + s.all.Errors; calls > 0 {
		r.errors = float64(s.all.Errors) / float64(calls)
	}
	if s.all.Done > 0 {
		r.attempts = float64(s.all.Attempts) / float64(s.all.Done)
		t := s.all.Times
		slices.Sort(t)
		r.p50, r.p99, r.worst = t[len(t)/2], t[len(t)*99/100], t[len(t)-1]
	}
	return r
}

func (r result) String() string {
	text := fmt.Sprintf("%-26s %6.0f/s %6.2f attempts  p50 %v  p99 %v  worst %v", r.name, r.rate, r.attempts, short(r.p50), short(r.p99), short(r.worst))
	if r.ofLimit > 0 {
		text += fmt.Sprintf("  %.2f of limit", r.ofLimit)
	}
	if r.ofHand > 0 {
		text += fmt.Sprintf("  %.2f of by hand", r.ofHand)
	}
	if r.errors > 0 {
		text += fmt.Sprintf("  errors %.2f %% (%s)", 100*r.errors, r.example)
	}
	return text
}

// median returns the median of numbers; 0 of none.
func median(numbers []float64) float64 {
	n := len(numbers)
	if n == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(numbers))
	return (sorted[n/2] + sorted[(n-1)/2]) / 2
}

// short rounds a time to what can be told of it.
func short(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}
