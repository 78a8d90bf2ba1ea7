package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// Report is what the ledger says of the three programs. Its JSON form is what retrypg demo --json prints.
type Report struct {
	PostgreSQL string  `json:"postgresql"` // version of the servers
	Seconds    float64 `json:"seconds"`    // how long the load ran
	Workers    int     `json:"workers"`    // of each program
	Seed       uint64  `json:"seed"`
	Kept       bool    `json:"kept"` // Check found nothing
	Programs   []Row   `json:"programs"`
}

// Row is the result of one program. All numbers are transfers where nothing else is said.
type Row struct {
	Name           string  `json:"name"`
	Asked          int     `json:"asked"`           // asked for
	OK             int     `json:"ok"`              // told: applied
	Errors         int     `json:"errors"`          // told: an error
	Unknown        int     `json:"unknown"`         // told: the outcome is not known
	UnknownApplied int     `json:"unknown_applied"` // of these, in the ledger
	Lost           int     `json:"lost"`            // told ok, and not in the ledger
	Duplicated     int     `json:"duplicated"`      // more than once in the ledger, whatever was told
	FalseErrors    int     `json:"false_errors"`    // told an error, and in the ledger
	AccountsOff    int     `json:"accounts_off"`    // accounts that have not what follows from what was told
	Balanced       bool    `json:"balanced"`        // every account has what the ledger says
	LongestGap     float64 `json:"longest_gap"`     // seconds without a transfer that succeeded
	GapIn          string  `json:"gap_in"`          // the phase in which that began
	Killed         int     `json:"killed"`          // connections that the server ended on demand
	CutBefore      int     `json:"commits_lost"`    // COMMITs that did not reach the server
	CutAfter       int     `json:"answers_lost"`    // COMMITs whose answer did not come back
	LastError      string  `json:"last_error,omitempty"`
}

// Check returns what retrypg did that it must not do, or nil. What the other programs did does not count.
func (r *Report) Check() []string {
	if len(r.Programs) <= retrypgProgram {
		return []string{"there is no result of retrypg"}
	}
	row := r.Programs[retrypgProgram]
	var broken []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{row.Lost, "transfers reported as done that are not in the ledger"},
		{row.Duplicated, "transfers applied more than once"},
		{row.FalseErrors, "transfers reported as failed that are in the ledger"},
	} {
		if c.n > 0 {
			broken = append(broken, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if !row.Balanced {
		broken = append(broken, "accounts that do not have what the ledger says")
	}
	if row.OK == 0 {
		broken = append(broken, "no transfer succeeded, so nothing was shown")
	}
	return broken
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// mark says whether a number of the table is good or bad.
type mark uint8

const (
	plain mark = iota
	good
	bad
)

func marked(look terminal.Look, text string, m mark) string {
	switch m {
	case good:
		return look.Good(text)
	case bad:
		return look.Bad(text)
	}
	return text
}

// line is one line of the table.
type line struct {
	label, note string
	value       func(Row) (string, mark)
}

var table = []line{
	{"asked for", "", number(func(r Row) int { return r.Asked })},
	{"told ok", "", number(func(r Row) int { return r.OK })},
	{"told error", "", number(func(r Row) int { return r.Errors })},
	{"told unknown", "COMMIT sent, answer lost", number(func(r Row) int { return r.Unknown })},
	{"  of these applied", "", number(func(r Row) int { return r.UnknownApplied })},
	{"lost", "told ok, not in ledger", zero(func(r Row) int { return r.Lost })},
	{"duplicated", "in ledger more than once", zero(func(r Row) int { return r.Duplicated })},
	{"false errors", "told error, in ledger", zero(func(r Row) int { return r.FalseErrors })},
	{"accounts off", "balance is not as told", zero(func(r Row) int { return r.AccountsOff })},
	{"longest gap", "without a success", func(r Row) (string, mark) { return fmt.Sprintf("%.1f s", r.LongestGap), plain }},
}

func number(f func(Row) int) func(Row) (string, mark) {
	return func(r Row) (string, mark) { return terminal.Grouped(f(r)), plain }
}

// zero is a number that should be 0.
func zero(f func(Row) int) func(Row) (string, mark) {
	return func(r Row) (string, mark) {
		if n := f(r); n != 0 {
			return terminal.Grouped(n), bad
		}
		return "0", good
	}
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
	for _, l := range table {
		if l.label == "lost" {
			b.WriteString(rule)
		}
		fmt.Fprintf(&b, "%-*s", tableLabel, l.label)
		for _, row := range r.Programs {
			text, m := l.value(row)
			b.WriteString(strings.Repeat(" ", max(1, tableColumn-len(text))))
			b.WriteString(marked(look, text, m))
		}
		if l.note != "" {
			b.WriteString("  " + look.Dim(l.note))
		}
		b.WriteString("\n")
	}
	if len(r.Check()) == 0 {
		b.WriteString("\nretrypg lost nothing, duplicated nothing, and denied nothing that was applied.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Widths of the table's columns: with the notes it has 80 in all.
const (
	tableLabel  = 18
	tableColumn = 12
)
