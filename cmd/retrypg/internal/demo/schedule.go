package demo

import (
	"context"
	"fmt"
	"time"
)

// act is what a phase has to work with.
type act struct {
	stage   *stage
	load    *load
	screen  *Screen
	journal *journal
	length  time.Duration
}

// part is a part of the phase's length.
func (a *act) part(share float64) time.Duration { return time.Duration(share * float64(a.length)) }

// event shows and notes what was done to the servers, or what came of it.
func (a *act) event(format string, args ...any) {
	a.screen.event(format, args...)
	a.journal.event(format, args...)
}

// phase is a part of the schedule: what it does to the servers, and for how long.
type phase struct {
	name   string
	about  string
	weight float64 // its part of the whole duration, relative to the others
	run    func(context.Context, *act) error
}

// schedule holds the phases in their order. The weights are the seconds of DefaultDuration.
var schedule = []phase{
	{"start-up delay", "the programs begin; the server is not there yet", 5, lateStart},
	{"calm", "nothing fails", 2, calm},
	{"backend kills", "the server ends 3 random connections of each program again and again", 4, backendKills},
	{"conflicts", "transfers deadlock, and half of them are SERIALIZABLE", 4, conflicts},
	{"lost COMMITs", "the network takes COMMITs, or only the answers to them", 5, lostCommits},
	{"crash restart", "kill -9 of the primary, which then recovers", 5, crashRestart},
	{"failover", "kill -9 of the primary; the standby is promoted and takes its place", 7, failover},
}

// runSchedule runs all phases, one after the other, within total, and notes them.
func runSchedule(ctx context.Context, st *stage, l *load, screen *Screen, j *journal, total time.Duration) error {
	var weights float64
	for _, p := range schedule {
		weights += p.weight
	}
	for _, p := range schedule {
		a := &act{stage: st, load: l, screen: screen, journal: j, length: time.Duration(float64(total) * p.weight / weights)}
		end := time.Now().Add(a.length)
		before := l.snapshot()
		l.enter(p.name)
		j.enter(p)
		screen.phase(p)
		if err := p.run(ctx, a); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return fmt.Errorf("phase %q: %w", p.name, err)
		}
		if err := pause(ctx, time.Until(end)); err != nil {
			return err
		}
		j.leave()
		screen.phaseEnd(l.snapshot().since(before))
	}
	return nil
}

func calm(context.Context, *act) error { return nil }

func lateStart(ctx context.Context, a *act) error {
	a.journal.faultBegins()
	if err := pause(ctx, a.part(0.5)); err != nil {
		return err
	}
	a.event("the primary is started")
	began := time.Now()
	if err := a.stage.startPrimary(ctx); err != nil {
		return err
	}
	a.journal.faultEnds()
	a.event("the primary takes connections, %v later", readable(time.Since(began)))
	return nil
}

func backendKills(ctx context.Context, a *act) error {
	const rounds, each = 8, 3
	for round := range rounds {
		if err := pause(ctx, a.part(0.9/rounds)); err != nil {
			return err
		}
		if round == 0 {
			a.journal.faultBegins()
		}
		if err := a.stage.killBackends(ctx, each); err != nil {
			return err
		}
	}
	a.journal.faultEnds()
	a.event("connections ended: %s", a.stage.perLane(func(l *lane) int { return l.killed }))
	return nil
}

func conflicts(ctx context.Context, a *act) error {
	a.load.conflicts.Store(true)
	a.journal.faultBegins()
	defer func() {
		a.load.conflicts.Store(false)
		a.journal.faultEnds()
	}()
	return pause(ctx, a.part(0.9))
}

func lostCommits(ctx context.Context, a *act) error {
	const rounds = 16
	defer a.stage.disarm()
	a.journal.faultBegins()
	for round := range rounds {
		a.stage.cutCommits(round%2 == 0)
		if err := pause(ctx, a.part(0.9/rounds)); err != nil {
			return err
		}
	}
	a.stage.disarm()
	a.journal.faultEnds()
	a.event("COMMITs lost on the way: %s", a.stage.perLane(func(l *lane) int { return l.cutBefore }))
	a.event("answers to COMMIT lost:  %s", a.stage.perLane(func(l *lane) int { return l.cutAfter }))
	return nil
}

func crashRestart(ctx context.Context, a *act) error {
	if err := pause(ctx, a.part(0.1)); err != nil {
		return err
	}
	a.journal.faultBegins()
	if err := a.stage.killPrimary(ctx); err != nil {
		return err
	}
	a.event("the primary is killed")
	if err := pause(ctx, a.part(0.25)); err != nil {
		return err
	}
	began := time.Now()
	if err := a.stage.startPrimary(ctx); err != nil {
		return err
	}
	a.journal.faultEnds()
	a.event("the primary is back; recovery took %v", readable(time.Since(began)))
	return nil
}

func failover(ctx context.Context, a *act) error {
	if err := pause(ctx, a.part(0.1)); err != nil {
		return err
	}
	a.journal.faultBegins()
	if err := a.stage.killPrimary(ctx); err != nil {
		return err
	}
	a.event("the primary is killed, for good")
	// What a cluster manager needs to be sure of it.
	if err := pause(ctx, a.part(0.25)); err != nil {
		return err
	}
	began := time.Now()
	if err := a.stage.standby.Promote(ctx); err != nil {
		return err
	}
	a.journal.faultEnds()
	a.event("the standby is promoted, which took %v", readable(time.Since(began)))
	return nil
}

// readable rounds a duration to what a reader wants to know.
func readable(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
