// Command contention measures what transactions cost that are in each other's way: commits per second, attempts per commit,
// the time of a call and errors, for retrypg and for what a program would do without it. "make contention" runs it and
// writes docs/contention.md and docs/contention.svg.
//
// The load runs in processes of their own, started from the same program: one, two or four of them share a database. All
// contenders of a cell take turns within it, so that a busy machine is busy for all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

func main() {
	if os.Getenv(childVariable) != "" {
		if err := child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "contention, a process of the load:", err)
			os.Exit(1)
		}
		return
	}
	var s settings
	flag.StringVar(&s.text, "o", "", "file to write the tables to, beside the standard output")
	flag.StringVar(&s.plot, "plot", "", "file to draw the curves into, .svg")
	flag.IntVar(&s.rounds, "rounds", 2, "how often each contender has its turn in a cell of the curves; in that of the table three times as often")
	flag.DurationVar(&s.turn, "turn", 800*time.Millisecond, "how long a turn takes")
	flag.StringVar(&s.only, "only", "", "run the scenarios whose names hold this text")
	flag.BoolVar(&s.tableOnly, "table", false, "measure the table only, without the curves and the processes")
	flag.BoolVar(&s.fsync, "fsync", false, "let the server sync to disk")
	flag.StringVar(&s.contender, "contender", "", "measure the contenders whose names hold this text only")
	flag.IntVar(&s.workers, "workers", tableWorkers, "how many transactions run at a time in the table")
	flag.IntVar(&s.processes, "processes", 1, "in how many processes they run in the table")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "contention:", err)
		stop()
		os.Exit(1)
	}
}

// settings say how much is measured, and where it is written.
type settings struct {
	text, plot string
	rounds     int
	turn       time.Duration
	only       string
	contender  string
	workers    int
	processes  int
	tableOnly  bool
	fsync      bool
}

// The sizes that are measured. The table is of tableWorkers in one process, if nothing else is asked for.
const tableWorkers = 16

var (
	curve     = []int{1, 2, 4, 8, 16, 32, 64}
	processes = []int{1, 2, 4}
)

// run measures all scenarios and writes the report.
func run(ctx context.Context, s settings) (err error) {
	began := time.Now()
	server, err := startServer(ctx, s.fsync)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	r := report{settings: s, version: server.version, loadBefore: load()}
	for _, sc := range selected(s.only) {
		m := matrix{server: server, scenario: sc, settings: s}
		if err := m.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
		r.sections = append(r.sections, m)
	}
	if err := server.audit(ctx); err != nil {
		return err
	}
	r.loadAfter, r.took = load(), time.Since(began)
	return r.write()
}
