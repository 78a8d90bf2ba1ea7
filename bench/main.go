// Command bench measures retrypg side by side with the libraries that do the same work, on the machine where it runs. All
// contenders of a group take turns within one run, so that a busy machine is busy for all of them; what is told is the
// median, and the ratio to the best of the others. "make bench" runs it and writes docs/benchmarks.md.
//
// Nothing here asserts a time. What must not allocate is asserted in the tests of the packages.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

func main() {
	out := flag.String("o", "", "file to write the tables to, beside the standard output")
	rounds := flag.Int("rounds", 400, "how often each contender has its turn")
	batch := flag.Duration("batch", 2*time.Millisecond, "how long a turn takes")
	only := flag.String("only", "", "run the groups whose titles hold this text")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, settings{rounds: *rounds, batch: *batch, only: *only, out: *out}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// settings say how much is measured, and where it is written.
type settings struct {
	rounds int
	batch  time.Duration
	only   string
	out    string
}

// run measures all groups and writes the report.
func run(ctx context.Context, s settings) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 24*time.Hour)
	defer cancel()
	groups, done, err := allGroups(ctx)
	if err != nil {
		return err
	}
	defer done()
	r := report{machine: thisMachine(), rounds: s.rounds, loadBefore: load()}
	if groups, err = selected(groups, s.only); err != nil {
		return err
	}
	for _, g := range groups {
		fmt.Fprintf(os.Stderr, "%s ...\n", g.title)
		results, err := measure(ctx, g, s.rounds, s.batch)
		if err != nil {
			return err
		}
		r.sections = append(r.sections, section{group: g, results: results})
	}
	r.loadAfter, r.took = load(), time.Since(began)
	text := r.markdown()
	if s.out != "" {
		if err := os.WriteFile(s.out, []byte(text), 0o644); err != nil { //nolint:gosec // a document for everybody
			return fmt.Errorf("write the tables: %w", err)
		}
	}
	_, err = os.Stdout.WriteString(text)
	return err
}
