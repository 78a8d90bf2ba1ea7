// Package demo shows what retrypg does while servers fail: the same bank transfers run through plain pgx, through pgx
// with a loop that repeats what failed, and through retrypg, at the same time, on the same servers, under the same
// faults. Afterwards the ledger in the database is compared with what each of the three told its caller.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// The zero values of Options mean these.
const (
	// DefaultDuration is how long the load runs: long enough for each fault to be seen at work, and with start and
	// check well below a minute on two cores.
	DefaultDuration = 32 * time.Second
	// MinDuration is the shortest load that leaves each fault room.
	MinDuration = 8 * time.Second
	// DefaultWorkers is how many transfers each program runs at a time.
	DefaultWorkers = 8
	// MaxWorkers keeps the connections of all programs below max_connections of a server with default settings.
	MaxWorkers = 24
)

// Options say how the demo runs. The zero value is right.
type Options struct {
	Duration time.Duration // how long the load runs, at least MinDuration; all faults are spread over it
	Workers  int           // transfers that each program runs at a time, 1 to MaxWorkers
	Seed     uint64        // which accounts and amounts the transfers have; the timing is not repeatable
	Screen   *Screen       // shows progress; nil: nothing is shown
	Log      io.Writer     // receives the logs of the servers; nil: nothing does

	// Retrypg are options of the program that runs through retrypg, such as where its telemetry goes.
	Retrypg []retrypg.Option
}

func (o Options) withDefaults() (Options, error) {
	if o.Duration == 0 {
		o.Duration = DefaultDuration
	}
	if o.Workers == 0 {
		o.Workers = DefaultWorkers
	}
	if o.Screen == nil {
		o.Screen = NewScreen(io.Discard, terminal.Look{})
	}
	if o.Duration < MinDuration {
		return o, fmt.Errorf("duration %v is too short: give at least %v", o.Duration, MinDuration)
	}
	if o.Workers < 0 || o.Workers > MaxWorkers {
		return o, fmt.Errorf("%d workers: give 1 to %d", o.Workers, MaxWorkers)
	}
	return o, nil
}

// Validate reports what is wrong with o.
func (o Options) Validate() error {
	_, err := o.withDefaults()
	return err
}

// drainTimeout bounds how long the transfers that are running when the load ends may take. A transfer's own deadline is
// shorter.
const drainTimeout = transferTimeout + 5*time.Second

// Run runs the demo and returns what the ledger says. It blocks for the duration of the load and some seconds more, or
// until ctx is done. Whatever happens, the servers are stopped and their directories removed before it returns. The
// error says why the demo could not be run to its end; it is a *pgtest.NotFoundError where there is no PostgreSQL.
func Run(ctx context.Context, opts Options) (report *Report, err error) {
	opts, err = opts.withDefaults()
	if err != nil {
		return nil, err
	}
	screen := opts.Screen
	screen.introduce()
	st, err := setUp(ctx, opts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	screen.servers(st)

	all, err := openPrograms(st, opts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, all.close()) }()

	load := startLoad(ctx, all, opts)
	defer load.stop()
	stopShowing := screen.follow(load)
	notes := &journal{began: load.began}
	err = runSchedule(ctx, st, load, screen, notes, opts.Duration)
	stopShowing()
	if err != nil {
		return nil, err
	}
	if err := load.drain(ctx, drainTimeout); err != nil {
		return nil, err
	}
	report, err = audit(ctx, st, all, opts)
	if err != nil {
		return nil, err
	}
	report.Timeline = notes.timeline(load)
	return report, nil
}

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// forEach runs f for all of items at the same time, waits, and returns what failed.
func forEach[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var group sync.WaitGroup
	for i, item := range items {
		group.Go(func() { errs[i] = f(item) })
	}
	group.Wait()
	return errors.Join(errs...)
}
