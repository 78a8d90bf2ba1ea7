package demo

import (
	"fmt"
	"time"
)

// Timeline says what happened when: what was done to the servers, and what each program told meanwhile. Durations that
// are moments count from the begin of the load.
type Timeline struct {
	Began  time.Time     // of the load
	Length time.Duration // of the load; what is told later was asked for before
	Width  time.Duration // of the interval of a bucket
	Phases []Phase
	Told   [][]Bucket // of each program, in the order of Report.Programs; all of the same length
}

// Phase is a part of the load.
type Phase struct {
	Name, About string
	Begin, End  time.Duration
	// Fault is when something was wrong on purpose; the zero value: nothing was.
	Fault  Span
	Events []Event
}

// Span is the time from one moment to another.
type Span struct{ Begin, End time.Duration }

// Event is what was done to the servers at a moment, or what came of it.
type Event struct {
	At   time.Duration
	Text string
}

// journal notes the phases while they run. Only the goroutine that runs the schedule uses it.
type journal struct {
	began  time.Time
	phases []Phase
}

func (j *journal) clock() time.Duration { return time.Since(j.began) }

// phase returns the phase that is running.
func (j *journal) phase() *Phase { return &j.phases[len(j.phases)-1] }

func (j *journal) enter(p phase) {
	j.phases = append(j.phases, Phase{Name: p.name, About: p.about, Begin: j.clock()})
}

func (j *journal) leave() { j.phase().End = j.clock() }

func (j *journal) event(format string, args ...any) {
	j.phase().Events = append(j.phase().Events, Event{j.clock(), fmt.Sprintf(format, args...)})
}

func (j *journal) faultBegins() { j.phase().Fault.Begin = j.clock() }

func (j *journal) faultEnds() { j.phase().Fault.End = j.clock() }

// timeline joins the phases with what the programs told. The load must have ended.
func (j *journal) timeline(l *load) *Timeline {
	all := make([]*series, len(l.programs))
	for i, p := range l.programs {
		all[i] = p.tally.series
	}
	t := &Timeline{Began: j.began, Length: l.ended.Sub(j.began), Width: align(all), Phases: j.phases}
	for _, s := range all {
		t.Told = append(t.Told, s.buckets)
	}
	return t
}
