// Package load keeps a given PostgreSQL server under load through retrypg, and breaks it once in a while, so that
// dashboards and alerts have something to show: bank transfers that wait for the server however long it is away, and
// lookups that fail fast, behind a circuit breaker.
//
// The comparison with other ways to use pgx, on servers of its own, is package demo.
package load

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/breaker"
)

// The zero values of Options mean these, where nothing else is said.
const (
	// DefaultWorkers is how many transfers, and how many lookups, run at a time.
	DefaultWorkers = 8
	// MaxWorkers keeps all connections below max_connections of a server with default settings.
	MaxWorkers = 32
	// MinFaultInterval leaves the server time to recover from each fault.
	MinFaultInterval = time.Second
)

// schemaName is the database schema that the load makes, uses and drops.
const schemaName = "retrypg_load"

// applicationName is how the server sees the connections of the load.
const applicationName = "retrypg load"

// Options say what Run does.
type Options struct {
	DSN        string           // names the server, or several with target_session_attrs=read-write
	Workers    int              // transfers, and as many lookups, that run at a time: 1 to MaxWorkers
	Duration   time.Duration    // 0: until the context is done
	FaultEvery time.Duration    // at least MinFaultInterval; 0: no faults
	Retrypg    []retrypg.Option // for both database handles, such as where their telemetry goes
	Log        *slog.Logger     // nil: nothing is logged
}

// Validate reports what is wrong with o.
func (o Options) Validate() error {
	switch {
	case o.Workers < 0 || o.Workers > MaxWorkers:
		return fmt.Errorf("%d workers: give 1 to %d", o.Workers, MaxWorkers)
	case o.Duration < 0:
		return fmt.Errorf("duration %v: give a positive one, or 0 for no end", o.Duration)
	case o.FaultEvery != 0 && o.FaultEvery < MinFaultInterval:
		return fmt.Errorf("a fault every %v is too often: give at least %v, or 0 for none", o.FaultEvery, MinFaultInterval)
	}
	return nil
}

// ErrUnbalanced means that money was made or lost, which must not happen.
var ErrUnbalanced = errors.New("the balances of all accounts do not add up to what they were at the start")

// Run makes the schema retrypg_load anew, runs the load, and drops the schema. It waits for a server that is not there yet.
// It returns nil when the duration is over, the cause of ctx when that is done first, and ErrUnbalanced.
func Run(ctx context.Context, opts Options) (err error) {
	if err := opts.Validate(); err != nil {
		return err
	}
	if opts.Workers == 0 {
		opts.Workers = DefaultWorkers
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if err := retrypg.WaitReady(ctx, opts.DSN, retrypg.WithoutTelemetry()); err != nil {
		return err
	}
	r, err := open(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.makeBank(ctx); err != nil {
		return err
	}
	defer r.dropBank(ctx)
	return r.run(ctx)
}

// running is a load at work.
type running struct {
	opts      Options
	transfers *sql.DB
	lookups   *sql.DB
	admin     *sql.DB // causes the faults, and is spared by them; not in the telemetry
	nextID    atomic.Int64
	conflicts atomic.Bool // transfers seek conflicts
	counts    counts
}

func open(opts Options) (r *running, err error) {
	r = &running{opts: opts}
	r.transfers, err = r.handle(applicationName, append(pool("transfers"), opts.Retrypg...)...)
	if err == nil {
		// Who looks something up is better served by an error at once than by waiting.
		fast := retrypg.WithBreaker(breaker.Options{Failures: 5, OpenFor: 2 * time.Second})
		r.lookups, err = r.handle(applicationName, append(append(pool("lookups"), fast), opts.Retrypg...)...)
	}
	if err == nil {
		r.admin, err = r.handle(applicationName+" faults", retrypg.WithoutTelemetry())
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// pool names a handle in the telemetry: the two lead to one server and would add up.
func pool(name string) []retrypg.Option {
	return []retrypg.Option{retrypg.WithTelemetryAttributes(attribute.String("db.client.connection.pool.name", name))}
}

func (r *running) handle(application string, options ...retrypg.Option) (*sql.DB, error) {
	options = append(options, retrypg.WithConnConfig(func(cfg *pgx.ConnConfig) error {
		cfg.RuntimeParams["search_path"] = schemaName
		cfg.RuntimeParams["application_name"] = application
		return nil
	}))
	db, err := retrypg.OpenDB(r.opts.DSN, options...)
	if err != nil {
		return nil, err
	}
	// Fewer connections than workers, so that some wait for one, as in most programs.
	size := max(1, r.opts.Workers*3/4)
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db, nil
}

// close closes the handles that are open.
func (r *running) close() error {
	var errs []error
	for _, db := range []*sql.DB{r.transfers, r.lookups, r.admin} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// run starts the workers and causes faults until ctx is done or the duration is over.
func (r *running) run(ctx context.Context) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	if r.opts.Duration > 0 {
		end := time.AfterFunc(r.opts.Duration, stop)
		defer end.Stop()
	}
	var workers sync.WaitGroup
	for range r.opts.Workers {
		workers.Go(func() { r.transfer(working) })
		workers.Go(func() { r.lookUp(working) })
	}
	err := r.watch(working)
	stop()
	workers.Wait()
	r.tell("the load has ended")
	if err != nil {
		return err
	}
	return context.Cause(ctx) // nil where the duration is over
}

// watch causes the faults and looks after the balances until ctx is done.
func (r *running) watch(ctx context.Context) error {
	every := r.opts.FaultEvery
	if every == 0 {
		every = time.Minute
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := r.audit(ctx); err != nil {
			return err
		}
		r.tell("the load so far")
		if r.opts.FaultEvery > 0 {
			f := faults[n%len(faults)]
			r.opts.Log.Info("fault: "+f.name, "about", f.about)
			if err := f.cause(ctx, r); err != nil && ctx.Err() == nil {
				r.opts.Log.Warn("the fault could not be caused", "fault", f.name, "error", err.Error())
			}
		}
	}
}

// tell logs the counts.
func (r *running) tell(what string) { r.opts.Log.Info(what, r.counts.fields()...) }
