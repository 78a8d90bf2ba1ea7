package htmlreport

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// parse returns the document of a report.
func parse(t *testing.T, text string) *html.Node {
	t.Helper()
	root, err := html.Parse(strings.NewReader(text))
	require.NoError(t, err)
	return root
}

// all returns the elements of that name below a node, in their order.
func all(n *html.Node, name string) (found []*html.Node) {
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == name {
			found = append(found, d)
		}
	}
	return found
}

// byID returns the element with that id.
func byID(t *testing.T, root *html.Node, id string) *html.Node {
	t.Helper()
	for d := range root.Descendants() {
		if d.Type == html.ElementNode && attribute(d, "id") == id {
			return d
		}
	}
	require.Failf(t, "no such element", "id %s", id)
	return nil
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.TrimSpace(b.String())
}

// cells returns the texts of a table, without its head.
func cells(table *html.Node) (rows [][]string) {
	for _, tr := range all(all(table, "tbody")[0], "tr") {
		var row []string
		for cell := range tr.ChildNodes() {
			if cell.Type == html.ElementNode {
				row = append(row, textOf(cell))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func TestTheSummaryHasTheNumbersOfTheTerminal(t *testing.T) {
	report := newRun()
	rows := cells(byID(t, parse(t, written(t, report)), "summary"))
	var screen strings.Builder
	require.NoError(t, report.Write(&screen, terminal.Look{}))
	lines := 0
	for _, line := range strings.Split(screen.String(), "\n") {
		for _, row := range rows {
			label, _, _ := strings.Cut(line, "  ")
			if line != "" && strings.HasPrefix(row[0], strings.TrimSpace(label)) && label != "" {
				lines++
				require.Regexp(t, regexp.QuoteMeta(row[1])+" +"+regexp.QuoteMeta(row[2])+" +"+regexp.QuoteMeta(row[3]), line)
			}
		}
	}
	require.Len(t, rows, 10)
	require.Equal(t, 9, lines, "all but the one that is indented there")
}

// shown is the data of the charts.
type shown struct {
	Programs []string
	Width    float64
	End      float64
	Times    []float64
	Faults   []struct {
		Number     int
		Name       string
		Begin, End float64
	}
	Charts []struct {
		ID      string
		Columns []struct {
			Program int
			Figures []*float64
		}
	}
}

func dataOf(t *testing.T, root *html.Node) (d shown) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(textOf(byID(t, root, "figures"))), &d))
	return d
}

func TestEveryFigureOfChartAndTableIsThatOfTheRun(t *testing.T) {
	report := newRun()
	root := parse(t, written(t, report))
	d := dataOf(t, root)
	told := report.Timeline.Told
	want := map[string]func(column, i int) string{
		"throughput": func(column, i int) string {
			if i == 99 {
				return "–" // the load ended within it
			}
			return fmt.Sprint(5 * told[column][i].OK)
		},
		"errors": func(column, i int) string {
			if column < 3 {
				return fmt.Sprint(told[column][i].Errors)
			}
			return fmt.Sprint(told[column-3][i].Unknown)
		},
		"gaps": func(column, i int) string { return fmt.Sprint(told[column][i].Gap.Seconds()) },
		"slowest": func(column, i int) string {
			if b := told[column][i]; b.OK+b.Errors+b.Unknown == 0 {
				return "–"
			}
			return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", told[column][i].Slowest.Seconds()), "0"), ".")
		},
	}
	require.Len(t, d.Charts, len(want))
	for _, c := range d.Charts {
		rows := cells(all(byID(t, root, c.ID), "table")[0])
		require.Len(t, rows, 100)
		for i, row := range rows {
			require.Equal(t, fmt.Sprintf("%v to %v", float64(i*2)/10, float64(i*2+2)/10), row[0])
			require.Len(t, row, 1+len(c.Columns))
			for column := range c.Columns {
				require.Equal(t, want[c.ID](column, i), row[1+column], "%s, column %d, interval %d", c.ID, column, i)
				drawn := "–"
				if v := c.Columns[column].Figures[i]; v != nil {
					drawn = fmt.Sprint(*v)
				}
				require.Equal(t, row[1+column], drawn)
			}
		}
	}
	require.Equal(t, []string{"pgx", "pgx + loop", "retrypg"}, d.Programs)
	require.InDelta(t, 0.1, d.Times[0], 0)
	require.InDelta(t, 20, d.End, 0)
}

func TestEachFaultIsInTheListAndInTheChartsWithTheSameNumber(t *testing.T) {
	root := parse(t, written(t, newRun()))
	d := dataOf(t, root)
	require.Len(t, d.Faults, 2)
	require.Equal(t, "start-up delay", d.Faults[0].Name)
	require.Equal(t, 2, d.Faults[1].Number)
	require.InDelta(t, 10, d.Faults[1].Begin, 0)
	require.InDelta(t, 13, d.Faults[1].End, 0)
	var phases []string
	for li := range byID(t, root, "phases").ChildNodes() {
		if li.Type == html.ElementNode {
			phases = append(phases, strings.Join(strings.Fields(textOf(li)), " "))
		}
	}
	require.Equal(t, []string{
		"1 start-up delay 0.0 s to 2.0 sthe server is not there yet 1.5 s the primary is started2.0 s the primary takes connections",
		"calm 4.0 s to 8.0 snothing fails",
		"2 failover 10.0 s to 13.0 skill -9 of the primary 10.0 s the primary is killed, for good",
	}, phases)
}

func TestTheVerdictHasTheNumbersThatDecide(t *testing.T) {
	report := newRun()
	root := parse(t, written(t, report))
	verdict := textOf(byID(t, root, "verdict"))
	for _, row := range report.Programs {
		clause := fmt.Sprintf("of %s transfers %s lost %d, duplicated %s, falsely reported %d as failed, told %d error",
			terminal.Grouped(row.Asked), row.Name, row.Lost, terminal.Grouped(row.Duplicated), row.FalseErrors, row.Errors)
		require.Contains(t, verdict, clause)
	}
	require.Contains(t, verdict, "told 0 errors and 1 unknown outcome, and was without a success for 3.0 s at the longest")
	require.Equal(t, 1, strings.Count(verdict, ". ")+1, "it is one sentence")
}

func TestABrokenPromiseIsSaidFirst(t *testing.T) {
	report := newRun()
	require.Contains(t, written(t, report), `<p class="finding good">retrypg lost nothing`)
	report.Programs[2].Lost = 4
	require.Contains(t, written(t, report), `<p class="finding bad">retrypg broke its promise: 4 transfers reported as done`)
}

func TestTextOfAServerIsTextInTheReport(t *testing.T) {
	const evil = `</script><script>alert("1")</script><img src=x onerror='alert(1)'>&amp;`
	report := newRun()
	report.PostgreSQL = evil
	report.Programs[0].LastError, report.Programs[0].Name = evil, evil
	report.Timeline.Phases[0].Name, report.Timeline.Phases[0].About, report.Timeline.Phases[0].Events[0].Text = evil, evil, evil
	clean, root := parse(t, written(t, newRun())), parse(t, written(t, report))
	for _, name := range []string{"script", "img", "a", "style", "iframe"} {
		require.Len(t, all(root, name), len(all(clean, name)), "%s", name)
	}
	require.Equal(t, evil, dataOf(t, root).Programs[0])
	require.Contains(t, textOf(byID(t, root, "phases")), evil)
	require.Contains(t, textOf(byID(t, root, "environment")), evil)
	require.Contains(t, textOf(byID(t, root, "verdict")), evil)
}

func TestTheReportNamesNothingToLoad(t *testing.T) {
	text := written(t, newRun())
	root := parse(t, text)
	for d := range root.Descendants() {
		for _, a := range d.Attr {
			require.NotContains(t, []string{"src", "href", "srcset", "action", "data", "poster", "background", "style", "onload", "onerror"}, a.Key, "of <%s>", d.Data)
		}
	}
	for _, name := range []string{"link", "img", "iframe", "object", "embed", "base", "form"} {
		require.Empty(t, all(root, name), "%s", name)
	}
	for _, style := range all(root, "style") {
		require.NotRegexp(t, `@import|url\(`, textOf(style))
	}
	require.Less(t, len(text), 300_000)
}

func TestThePolicyAllowsTheStyleAndTheScriptOfTheFileOnly(t *testing.T) {
	root := parse(t, written(t, newRun()))
	var policies []string
	for _, m := range all(root, "meta") {
		if attribute(m, "http-equiv") == "Content-Security-Policy" {
			policies = append(policies, attribute(m, "content"))
		}
	}
	require.Len(t, all(root, "style"), 1)
	require.Len(t, all(root, "script"), 2)
	require.Equal(t, "application/json", attribute(all(root, "script")[0], "type"))
	style, script := all(root, "style")[0].FirstChild.Data, all(root, "script")[1].FirstChild.Data
	require.Equal(t, []string{
		"default-src 'none'; style-src " + source(style) + "; script-src " + source(script) + "; base-uri 'none'; form-action 'none'",
	}, policies)
}

func TestTheReportSaysHowItWasMade(t *testing.T) {
	root := parse(t, written(t, newRun()))
	made := textOf(byID(t, root, "environment"))
	for _, s := range []string{"17.2", "v0.1.0", "v5.12.0", "go1.25.0", "linux/amd64", "2026-03-04 05:06:07 UTC", "20s asked for, 19.9s run", "8 of each program", "seed7"} {
		require.Contains(t, made, s)
	}
	require.Contains(t, textOf(root), "demo --duration 20s --workers 8 --seed 7")
	require.Contains(t, textOf(root), "Copyright (c)", "uPlot's licence asks for it")
}

func TestAReportWithoutATimelineIsAnError(t *testing.T) {
	require.ErrorContains(t, Write(&strings.Builder{}, &demo.Report{}, testEnvironment), "no timeline")
}

func TestTheProgramKnowsItsVersions(t *testing.T) {
	env := Here("v1")
	require.Equal(t, "v1", env.Retrypg)
	require.Regexp(t, `^(v5\..*|unknown)$`, env.PGX) // a test of a library does not know it
	require.Contains(t, env.Go, "go1.")
	require.Regexp(t, `^\w+/\w+, \d+ processors$`, env.System)
}

func TestTheChartLibraryIsTheOneThatItsNoteNames(t *testing.T) {
	note, err := os.ReadFile("uplot/README.md")
	require.NoError(t, err)
	sums := regexp.MustCompile("(?m)^\\| `(.+)` \\| `([0-9a-f]{64})` \\|$").FindAllStringSubmatch(string(note), -1)
	require.Len(t, sums, 3)
	for _, s := range sums {
		content, err := os.ReadFile("uplot/" + s[1])
		require.NoError(t, err)
		require.Equal(t, s[2], fmt.Sprintf("%x", sha256.Sum256(content)), s[1])
	}
}
