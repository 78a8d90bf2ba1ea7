package demo

import (
	"fmt"
	"io"
	"strings"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// Mark says whether a number of the table is good or bad.
type Mark uint8

const (
	Plain Mark = iota // neither
	Good
	Bad
)

func marked(look terminal.Look, text string, m Mark) string {
	switch m {
	case Good:
		return look.Good(text)
	case Bad:
		return look.Bad(text)
	}
	return text
}

// Line is one line of the table: one number of each program.
type Line struct {
	Label string
	Note  string // what the number is, where the label does not say it
	Of    bool   // a part of the line above
	Ruled bool   // what follows is compared with the ledger
	Cells []Cell // of each program, in the order of Report.Programs
}

// Cell is one number of the table as people read it.
type Cell struct {
	Text string
	Mark Mark
}

// lines are those of the table.
var lines = []struct {
	line Line // without its cells
	cell func(Row) Cell
}{
	{Line{Label: "asked for"}, number(func(r Row) int { return r.Asked })},
	{Line{Label: "told ok"}, number(func(r Row) int { return r.OK })},
	{Line{Label: "told error"}, number(func(r Row) int { return r.Errors })},
	{Line{Label: "told unknown", Note: "COMMIT sent, answer lost"}, number(func(r Row) int { return r.Unknown })},
	{Line{Label: "of these applied", Of: true}, number(func(r Row) int { return r.UnknownApplied })},
	{Line{Label: "lost", Note: "told ok, not in ledger", Ruled: true}, zero(func(r Row) int { return r.Lost })},
	{Line{Label: "duplicated", Note: "in ledger more than once"}, zero(func(r Row) int { return r.Duplicated })},
	{Line{Label: "false errors", Note: "told error, in ledger"}, zero(func(r Row) int { return r.FalseErrors })},
	{Line{Label: "accounts off", Note: "balance is not as told"}, zero(func(r Row) int { return r.AccountsOff })},
	{Line{Label: "longest gap", Note: "without a success"}, func(r Row) Cell { return Cell{Text: Seconds(r.LongestGap)} }},
}

func number(f func(Row) int) func(Row) Cell {
	return func(r Row) Cell { return Cell{Text: terminal.Grouped(f(r))} }
}

// zero is a number that should be 0.
func zero(f func(Row) int) func(Row) Cell {
	return func(r Row) Cell {
		if n := f(r); n != 0 {
			return Cell{terminal.Grouped(n), Bad}
		}
		return Cell{"0", Good}
	}
}

// Table returns the numbers of all programs as people read them.
func (r *Report) Table() []Line {
	table := make([]Line, len(lines))
	for i, l := range lines {
		table[i] = l.line
		for _, row := range r.Programs {
			table[i].Cells = append(table[i].Cells, l.cell(row))
		}
	}
	return table
}

// Write writes the table for people, at most 80 columns wide.
func (r *Report) Write(w io.Writer, look terminal.Look) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-*s", tableLabel, "transfers")
	for _, row := range r.Programs {
		fmt.Fprintf(&b, "%*s", tableColumn, row.Name)
	}
	b.WriteString("\n")
	rule := strings.Repeat("-", tableLabel+tableColumn*len(r.Programs)) + "\n"
	b.WriteString(rule)
	for _, l := range r.Table() {
		if l.Ruled {
			b.WriteString(rule)
		}
		label := l.Label
		if l.Of {
			label = "  " + label
		}
		fmt.Fprintf(&b, "%-*s", tableLabel, label)
		for _, cell := range l.Cells {
			b.WriteString(strings.Repeat(" ", max(1, tableColumn-len(cell.Text))))
			b.WriteString(marked(look, cell.Text, cell.Mark))
		}
		if l.Note != "" {
			b.WriteString("  " + look.Dim(l.Note))
		}
		b.WriteString("\n")
	}
	if len(r.Check()) == 0 {
		b.WriteString("\n" + r.Finding() + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Widths of the table's columns: with the notes it has 80 in all.
const (
	tableLabel  = 18
	tableColumn = 12
)

// Seconds writes a time as the table does.
func Seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }
