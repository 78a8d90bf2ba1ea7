package htmlreport

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
)

// Environment says with what a report was made.
type Environment struct {
	Retrypg string // version of the program and of the library
	PGX     string // version of pgx
	Go      string // version of Go
	System  string // operating system, architecture, processors
}

// Here returns the environment of the running program, whose version it is told.
func Here(version string) Environment {
	env := Environment{
		Retrypg: version, PGX: "unknown", Go: runtime.Version(),
		System: fmt.Sprintf("%s/%s, %d processors", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/jackc/pgx/v5" {
				env.PGX = m.Version
			}
		}
	}
	return env
}

// entries lists the environment and the settings of the run.
func (e Environment) entries(report *demo.Report) []entry {
	t := report.Timeline
	return []entry{
		{"PostgreSQL", report.PostgreSQL},
		{"retrypg", e.Retrypg},
		{"pgx", e.PGX},
		{"Go", e.Go},
		{"system", e.System},
		{"begun", t.Began.Format("2006-01-02 15:04:05 MST")},
		{"duration", fmt.Sprintf("%v asked for, %v run", time.Duration(report.Seconds*float64(time.Second)), t.Length.Round(100*time.Millisecond))},
		{"workers", fmt.Sprintf("%d of each program", report.Workers)},
		{"seed", fmt.Sprint(report.Seed)},
	}
}
