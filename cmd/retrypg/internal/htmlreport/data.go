package htmlreport

import (
	"time"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
)

// data is what the script draws, as JSON. Times are seconds since the begin of the load.
type data struct {
	Programs []string    `json:"programs"`
	Width    figure      `json:"width"` // of an interval
	End      figure      `json:"end"`   // of the last interval
	Times    []figure    `json:"times"` // the middle of each interval
	Phases   []dataSpan  `json:"phases"`
	Faults   []dataSpan  `json:"faults"`
	Charts   []dataChart `json:"charts"`
}

type dataSpan struct {
	Number int    `json:"number,omitempty"`
	Name   string `json:"name"`
	Begin  figure `json:"begin"`
	End    figure `json:"end"`
}

type dataChart struct {
	ID      string       `json:"id"`
	Unit    string       `json:"unit"`
	Lanes   bool         `json:"lanes"`
	Log     bool         `json:"log"`
	Columns []dataColumn `json:"columns"`
}

type dataColumn struct {
	Label   string   `json:"label"`
	Program int      `json:"program"`
	Figures []figure `json:"figures"`
}

func newData(report *demo.Report, charts []chart) data {
	t := report.Timeline
	d := data{Width: seconds(t.Width)}
	for _, r := range report.Programs {
		d.Programs = append(d.Programs, r.Name)
	}
	for _, p := range t.Phases {
		d.Phases = append(d.Phases, dataSpan{Name: p.Name, Begin: seconds(p.Begin), End: seconds(p.End)})
		if p.Fault != (demo.Span{}) {
			d.Faults = append(d.Faults, dataSpan{len(d.Faults) + 1, p.Name, seconds(p.Fault.Begin), seconds(p.Fault.End)})
		}
	}
	for i := range charts[0].Rows {
		d.Times = append(d.Times, seconds(time.Duration(i)*t.Width+t.Width/2))
	}
	d.End = seconds(max(t.Length, time.Duration(len(d.Times))*t.Width))
	for _, c := range charts {
		dc := dataChart{ID: c.ID, Unit: c.Unit, Lanes: c.Lanes, Log: c.Log}
		for _, col := range c.Columns {
			dc.Columns = append(dc.Columns, dataColumn(col))
		}
		d.Charts = append(d.Charts, dc)
	}
	return d
}
