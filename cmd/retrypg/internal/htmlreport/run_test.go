package htmlreport

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
)

const width = 200 * time.Millisecond

// newRun returns the report of a run of 20 s that was thought up: the server is away for the first 2 s and from 10 s to
// 13 s; "pgx" tells errors meanwhile, "pgx + loop" a few, and retrypg says once that it does not know.
func newRun() *demo.Report {
	away := []demo.Span{{End: 2 * time.Second}, {Begin: 10 * time.Second, End: 13 * time.Second}}
	report := &demo.Report{PostgreSQL: "17.2", Seconds: 20, Workers: 8, Seed: 7}
	timeline := &demo.Timeline{
		Began:  time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		Length: 19900 * time.Millisecond, Width: width,
		Phases: []demo.Phase{
			{
				Name: "start-up delay", About: "the server is not there yet", End: 4 * time.Second, Fault: away[0],
				Events: []demo.Event{{At: 1500 * time.Millisecond, Text: "the primary is started"}, {At: 2 * time.Second, Text: "the primary takes connections"}},
			},
			{Name: "calm", About: "nothing fails", Begin: 4 * time.Second, End: 8 * time.Second},
			{
				Name: "failover", About: "kill -9 of the primary", Begin: 8 * time.Second, End: 19800 * time.Millisecond, Fault: away[1],
				Events: []demo.Event{{At: 10 * time.Second, Text: "the primary is killed, for good"}},
			},
		},
	}
	for program, name := range []string{"pgx", "pgx + loop", "retrypg"} {
		row := demo.Row{Name: name, Balanced: true, Lost: program % 2, Duplicated: 1111 * (program % 2)}
		var told []demo.Bucket
		for i := range 100 {
			begin := time.Duration(i) * width
			b := demo.Bucket{OK: 30 + (i*7+program*3)%5, Gap: time.Duration(20+i%9) * time.Millisecond, Slowest: time.Duration(40+15*program+i%17) * time.Millisecond}
			for _, a := range away {
				if begin >= a.Begin && begin < a.End {
					b = demo.Bucket{Gap: begin + width - a.Begin}
					if program == 0 || program == 1 && i == 60 {
						b.Errors, b.Slowest = 8+i%3, 2*time.Millisecond
					}
				}
			}
			if i == 51 && program == 2 {
				b.Unknown, b.Slowest = 1, 1234567*time.Microsecond
			}
			row.OK, row.Errors, row.Unknown = row.OK+b.OK, row.Errors+b.Errors, row.Unknown+b.Unknown
			row.LongestGap = max(row.LongestGap, b.Gap.Seconds())
			told = append(told, b)
		}
		row.Asked = row.OK + row.Errors + row.Unknown
		if row.Errors > 0 {
			row.FalseErrors, row.LastError = 3, "FATAL: the database system is starting up (SQLSTATE 57P03)"
		}
		report.Programs, timeline.Told = append(report.Programs, row), append(timeline.Told, told)
	}
	report.Timeline, report.Kept = timeline, true
	return report
}

var testEnvironment = Environment{Retrypg: "v0.1.0", PGX: "v5.12.0", Go: "go1.25.0", System: "linux/amd64, 2 processors"}

// written returns the HTML of a report.
func written(t *testing.T, report *demo.Report) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(&b, report, testEnvironment))
	return b.String()
}
