package htmlreport

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
)

// figure is a number of a chart and of the table below it, or none.
type figure struct {
	value float64
	none  bool
}

func (f figure) String() string {
	if f.none {
		return "–"
	}
	return strconv.FormatFloat(f.value, 'f', -1, 64)
}

// MarshalJSON writes the number that String writes, or null.
func (f figure) MarshalJSON() ([]byte, error) {
	if f.none {
		return []byte("null"), nil
	}
	return []byte(f.String()), nil
}

func count(n int) figure { return figure{value: float64(n)} }

// seconds is a duration in seconds, to the millisecond.
func seconds(d time.Duration) figure {
	return figure{value: float64(d.Round(time.Millisecond).Milliseconds()) / 1000}
}

// chart is a chart and the table below it.
type chart struct {
	ID, Title, About string
	Unit             string // of its figures: "/s", "s", or none for a count
	Summary          string // for who cannot see the chart
	Lanes            bool   // bars, each program in a lane of its own
	Log              bool   // the axis of the figures is logarithmic
	Columns          []column
	Rows             []row
}

// column is what the chart shows of one program.
type column struct {
	Label   string
	Program int
	Figures []figure // of each interval
}

// row is a line of the table.
type row struct {
	Interval string
	Figures  []figure
}

// measure takes one figure from what was told in an interval.
type measure func(b demo.Bucket, i int) figure

// charts returns all charts, in the order in which they are shown.
func charts(report *demo.Report) []chart {
	t := report.Timeline
	whole := int(t.Length / t.Width) // intervals that the load filled
	rate := func(b demo.Bucket, i int) figure {
		if i >= whole {
			return figure{none: true} // the load ended meanwhile, which would look like a fault
		}
		// Rounded: a quotient of binary fractions has digits that mean nothing.
		return figure{value: float64(int64(float64(b.OK)/t.Width.Seconds()*1000+0.5)) / 1000}
	}
	told := func(b demo.Bucket) int { return b.OK + b.Errors + b.Unknown }
	all := []chart{
		{
			ID: "throughput", Title: "Transfers told ok, per second", Unit: "/s",
			About: "Higher is better.",
		},
		{
			ID: "errors", Title: "Errors told", Lanes: true,
			About: fmt.Sprintf("How many callers were told an error, or that the outcome is unknown, in each interval of %v s. Lower is better.", seconds(t.Width)),
		},
		{
			ID: "gaps", Title: "Time since the last success", Unit: "s",
			About: "It grows while no transfer succeeds; the highest point is the longest gap of the table above. Lower is better.",
		},
		{
			ID: "slowest", Title: "Slowest answer", Unit: "s", Log: true,
			About: "The longest wait of a caller who was answered in the interval, with whatever answer. " +
				"A program that tells an error at once is fast here, one that waits for the server is not. Logarithmic.",
		},
	}
	all[0].add(report, "", rate)
	all[1].add(report, " errors", func(b demo.Bucket, _ int) figure { return count(b.Errors) })
	all[1].add(report, " unknown", func(b demo.Bucket, _ int) figure { return count(b.Unknown) })
	all[2].add(report, "", func(b demo.Bucket, _ int) figure { return seconds(b.Gap) })
	all[3].add(report, "", func(b demo.Bucket, _ int) figure {
		if told(b) == 0 {
			return figure{none: true}
		}
		return seconds(max(b.Slowest, time.Millisecond)) // the axis begins at 1 ms
	})
	for i := range all {
		all[i].finish(t.Width)
	}
	return all
}

// add gives the chart a column for each program.
func (c *chart) add(report *demo.Report, suffix string, of measure) {
	for program, told := range report.Timeline.Told {
		col := column{Label: report.Programs[program].Name + suffix, Program: program}
		for i, b := range told {
			col.Figures = append(col.Figures, of(b, i))
		}
		c.Columns = append(c.Columns, col)
	}
}

// finish makes the table and the summary of the columns.
func (c *chart) finish(width time.Duration) {
	for i := range c.Columns[0].Figures {
		begin := time.Duration(i) * width
		r := row{Interval: fmt.Sprintf("%v to %v", seconds(begin), seconds(begin+width))}
		for _, col := range c.Columns {
			r.Figures = append(r.Figures, col.Figures[i])
		}
		c.Rows = append(c.Rows, r)
	}
	var highest []string
	for _, col := range c.Columns {
		top := figure{none: true}
		for _, f := range col.Figures {
			if !f.none && (top.none || f.value > top.value) {
				top = f
			}
		}
		highest = append(highest, fmt.Sprintf("%s %v%s", col.Label, top, c.Unit))
	}
	c.Summary = "Chart over time: " + c.Title + ". Highest: " + strings.Join(highest, ", ") + ". The table below has all figures."
}
