package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// section is a group with its results.
type section struct {
	group   group
	results []result
}

// report is one run.
type report struct {
	machine    machine
	sections   []section
	rounds     int
	loadBefore string
	loadAfter  string
	took       time.Duration
}

const preface = `# Benchmarks

Written by ` + "`make bench`" + `, which takes a few minutes. All contenders of a table take turns within one run, in an order that is
drawn for each round. Each does the same work in the way that its documentation shows. The time is the median for one piece of work, "±" half the distance of
its quartiles. A ratio is the median of the ratios within each round; **bold** is what all others are compared with. Allocations
are those of the whole program. Absolute times say more about the machine than about the code: compare within a table.

No test asserts a time. The tests of each package assert what must not allocate.
`

// markdown returns the whole document.
func (r report) markdown() string {
	var b strings.Builder
	b.WriteString(preface)
	m := r.machine
	fmt.Fprintf(&b, "\nMeasured on %s with %s on %s, %s, %d cores, in %v, %d turns each. Load averages: %s before, %s after.\n",
		m.date, m.toolkit, m.system, m.cpu, m.cores, r.took.Round(time.Second), r.rounds, r.loadBefore, r.loadAfter)
	b.WriteString("\n| module | version |\n|---|---|\n")
	for _, v := range m.versions {
		path, version, _ := strings.Cut(v, " ")
		fmt.Fprintf(&b, "| %s | %s |\n", path, version)
	}
	for _, s := range r.sections {
		s.write(&b)
	}
	return b.String()
}

func (s section) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n\nAim: %s\n", capitalized(s.group.title), s.group.work, s.group.aim)
	if s.group.note != "" {
		fmt.Fprintf(b, "\n%s\n", s.group.note)
	}
	rows := [][]string{{"", "time", "±", "allocations", "ratio"}}
	if s.group.base != "" {
		rows[0] = append(rows[0], "more")
	}
	if s.group.trips != nil {
		rows[0] = append(rows[0], "round trips")
	}
	for _, r := range s.results {
		name, ratio := r.name, fmt.Sprintf("%.2f", r.ratio)
		if r.base {
			name, ratio = "**"+name+"**", "**1.00**"
		}
		row := []string{name, duration(r.median), fmt.Sprintf("%.0f %%", r.spread*100), fmt.Sprintf("%.0f", r.allocs), ratio}
		if s.group.base != "" {
			more := ""
			if !r.base {
				more = signed(r.more)
			}
			row = append(row, more)
		}
		if s.group.trips != nil {
			row = append(row, strconv.FormatFloat(r.trips, 'f', -1, 64))
		}
		rows = append(rows, row)
	}
	b.WriteByte('\n')
	writeTable(b, rows)
}

// writeTable writes a table of Markdown that can be read as it is. All columns but the first are aligned to the right.
func writeTable(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				fmt.Fprintf(b, "| %s%s ", cell, pad)
			} else {
				fmt.Fprintf(b, "| %s%s ", pad, cell)
			}
		}
		b.WriteString("|\n")
		if n > 0 {
			continue
		}
		for i, width := range widths {
			if i == 0 {
				fmt.Fprintf(b, "|%s", strings.Repeat("-", width+2))
			} else {
				fmt.Fprintf(b, "|%s:", strings.Repeat("-", width+1))
			}
		}
		b.WriteString("|\n")
	}
}

func capitalized(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// duration writes nanoseconds with three digits that count.
func duration(ns float64) string {
	switch {
	case ns < 10:
		return fmt.Sprintf("%.2f ns", ns)
	case ns < 100:
		return fmt.Sprintf("%.1f ns", ns)
	case ns < 1000:
		return fmt.Sprintf("%.0f ns", ns)
	case ns < 10_000:
		return fmt.Sprintf("%.2f µs", ns/1000)
	case ns < 100_000:
		return fmt.Sprintf("%.1f µs", ns/1000)
	}
	switch {
	case ns < 1e6:
		return fmt.Sprintf("%.0f µs", ns/1000)
	case ns < 1e7:
		return fmt.Sprintf("%.2f ms", ns/1e6)
	case ns < 1e8:
		return fmt.Sprintf("%.1f ms", ns/1e6)
	}
	return fmt.Sprintf("%.0f ms", ns/1e6)
}

func signed(ns float64) string {
	if ns < 0 {
		return "-" + duration(-ns)
	}
	return "+" + duration(ns)
}
