package htmlreport

import (
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// document is what the layout shows.
type document struct {
	Policy  string
	Style   template.CSS
	Script  template.JS
	Licence string

	Began       string
	Kept        bool
	Finding     string
	Verdict     string
	Programs    []string
	Table       []demo.Line
	LastErrors  []demo.Row // those that have one
	Phases      []phase
	Width       figure
	Charts      []chart
	Environment []entry
	Command     string
	Data        data
}

// phase is a phase of the load, with its number where it has a fault.
type phase struct {
	Number            int
	Name, When, About string
	Events            []event
}

type event struct{ When, Text string }

// entry is a line of a list of names and values.
type entry struct{ Name, Value string }

func newDocument(report *demo.Report, env Environment) document {
	t := report.Timeline
	d := document{
		Style: template.CSS(chartStyle + "\n" + style), Script: template.JS(chartScript + "\n" + script), Licence: chartLicence, //nolint:gosec // embedded files

		Began:   t.Began.Format("2006-01-02 15:04:05 MST"),
		Kept:    len(report.Check()) == 0,
		Finding: report.Finding(),
		Verdict: verdict(report),
		Table:   report.Table(),
		Width:   seconds(t.Width),
		Charts:  charts(report),

		Environment: env.entries(report),
		Command:     command(report),
	}
	d.Policy = policy(string(d.Style), string(d.Script))
	for _, row := range report.Programs {
		d.Programs = append(d.Programs, row.Name)
		if row.LastError != "" {
			d.LastErrors = append(d.LastErrors, row)
		}
	}
	number := 0
	for _, p := range t.Phases {
		shown := phase{Name: p.Name, When: between(p.Begin, p.End), About: p.About}
		if p.Fault != (demo.Span{}) {
			number++
			shown.Number, shown.When = number, between(p.Fault.Begin, p.Fault.End)
		}
		for _, e := range p.Events {
			shown.Events = append(shown.Events, event{moment(e.At), e.Text})
		}
		d.Phases = append(d.Phases, shown)
	}
	d.Data = newData(report, d.Charts)
	return d
}

// moment writes a time since the begin of the load, as on the terminal.
func moment(at time.Duration) string { return demo.Seconds(at.Seconds()) }

func between(begin, end time.Duration) string {
	return fmt.Sprintf("%.1f s to %s", begin.Seconds(), moment(end))
}

// verdict says in one sentence what decides, retrypg first.
func verdict(report *demo.Report) string {
	var clauses []string
	for _, row := range slices.Backward(report.Programs) {
		clauses = append(clauses, clause(row))
	}
	return "Under the same faults, " + strings.Join(clauses, "; ") + "."
}

// clause is what decides of one program.
func clause(row demo.Row) string {
	unknown := ""
	if row.Unknown > 0 {
		unknown = " and " + several(row.Unknown, "unknown outcome")
	}
	return fmt.Sprintf("of %s %s lost %s, duplicated %s, falsely reported %s as failed, told %s%s, and was without a success for %s at the longest",
		several(row.Asked, "transfer"), row.Name, terminal.Grouped(row.Lost), terminal.Grouped(row.Duplicated), terminal.Grouped(row.FalseErrors),
		several(row.Errors, "error"), unknown, demo.Seconds(row.LongestGap))
}

// several is a number of things.
func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return terminal.Grouped(n) + " " + what + "s"
}

// command is what repeats the run, in a checkout of the project.
func command(report *demo.Report) string {
	return fmt.Sprintf("go run ./cmd/retrypg demo --duration %v --workers %d --seed %d",
		time.Duration(report.Seconds*float64(time.Second)), report.Workers, report.Seed)
}
