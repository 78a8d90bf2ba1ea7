package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is one run.
type report struct {
	settings   settings
	version    string
	sections   []matrix
	loadBefore string
	loadAfter  string
	took       time.Duration
}

const preface = `# Contention

Written by ` + "`make contention`" + `, which takes less than ten minutes. Transactions of several workers that are in each other's way, on a
PostgreSQL server over TCP on the same machine. All contenders of a table take turns within one run, in an order that is
drawn for each round; a ratio is the median of those within the rounds. Absolute figures say more about the machine than
about the code.

- **without retry**: the error of a conflict is the caller's.
- **loop by hand**: what a careful program has. Conflicts are run again until they succeed, after a wait with full jitter that
  doubles up to 1 s. Several first waits are tried, and the one with the most commits is compared.
- **limit**: a program that knows the accounts, and locks them in the process, by mutexes, in one order, around a transaction of
  pgxpool. It meets no conflict. It is one process in any case.
- **Keys**: retrypg is told the accounts in ` + "`TxOptions.Keys`" + `. It takes them in another order than a mutex does, so it may be above the limit.
- **advisory**: with ` + "`ContentionOptions.AdvisoryLocks`" + `, by which processes exclude each other while they are in each other's way.
- **NoCheck**: without the check of commits, which at SERIALIZABLE costs a round trip of each transaction and which the other
  contenders do not have.

What a contender learns in its first half second counts for nothing, nor does that half second. A worker's call ends with its commit or its last error: p50, p99 and worst are of calls that committed, with all of their
attempts and waits. Errors are a share of the calls.
`

// write writes the report to where the settings say.
func (r report) write() error {
	var b bytes.Buffer
	b.WriteString(preface)
	synced := "does not sync to disk, as in `make bench`"
	if r.settings.fsync {
		synced = "syncs to disk"
	}
	fmt.Fprintf(&b, "\nMeasured on %s with %s on %s/%s, %d cores, PostgreSQL %s, which %s, in %v, with turns of %v. Load averages: %s before, %s after.\n",
		time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), r.version, synced,
		r.took.Round(time.Second), r.settings.turn, r.loadBefore, r.loadAfter)
	for _, m := range r.sections {
		m.write(&b)
	}
	if r.settings.plot != "" {
		if err := r.draw(r.settings.plot); err != nil {
			return err
		}
		b.WriteString("\n## Curves\n\nCommits in a second by the number of workers, one process.\n\n![Commits in a second over 1 to 64 workers, a panel for each kind of transaction and a line for each contender](contention.svg)\n")
	}
	if r.settings.text != "" {
		if err := os.WriteFile(r.settings.text, b.Bytes(), 0o644); err != nil { //nolint:gosec // a document for everybody
			return fmt.Errorf("write the tables: %w", err)
		}
	}
	_, err := os.Stdout.Write(b.Bytes())
	return err
}

// write writes the tables of a scenario.
func (m matrix) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n\nAim: %s\n", m.scenario.title, m.scenario.work, m.scenario.aim)
	if len(m.trials) > 0 {
		b.WriteString("\nThe loops by hand, at the same load:\n\n")
		table(b, m.trials)
	}
	for _, c := range m.ordered() {
		fmt.Fprintf(b, "\n%s:\n\n", c)
		table(b, m.cells[c])
	}
}

func (c cell) String() string {
	processes := "in one process"
	if c.processes > 1 {
		processes = fmt.Sprintf("in %d processes", c.processes)
	}
	if c.workers == 1 {
		return "1 worker " + processes
	}
	return fmt.Sprintf("%d workers %s", c.workers, processes)
}

// ordered returns the cells that have a table: those of the size of the table, by processes.
func (m matrix) ordered() (list []cell) {
	for c := range m.cells {
		if c.workers == m.settings.workers {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b cell) int { return a.processes - b.processes })
	return list
}

// table writes results in Markdown, with columns that are aligned.
func table(w io.Writer, results []result) {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, "| "+strings.Join(cells, "\t| ")+"\t|") }
	row("", "commits/s", "of limit", "of the loop", "of plain", "attempts per commit", "p50", "p99", "worst", "errors")
	row("---", "---:", "---:", "---:", "---:", "---:", "---:", "---:", "---:", "---:")
	for _, r := range results {
		row(r.name, fmt.Sprintf("%.0f", r.rate), ratio(r.ofLimit), ratio(r.ofHand), ratio(r.ofPlain), fmt.Sprintf("%.2f", r.attempts),
			short(r.p50).String(), short(r.p99).String(), short(r.worst).String(), share(r.errors))
	}
	_ = t.Flush() // into memory
}

func ratio(x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", x)
}

func share(x float64) string {
	if x == 0 {
		return "0"
	}
	return fmt.Sprintf("%.2g %%", 100*x)
}

// load returns the load averages where the system tells them.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(b))
	return strings.Join(fields[:min(3, len(fields))], " ")
}
