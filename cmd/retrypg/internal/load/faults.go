package load

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg"
)

// faultTimeout bounds what it takes to cause a fault.
const faultTimeout = 10 * time.Second

// conflictsFor is how long conflicts are sought.
const conflictsFor = 10 * time.Second

// fault is something that breaks the server or its work. All of them need SQL alone, so that the load can run anywhere.
type fault struct {
	name, about string
	cause       func(context.Context, *running) error
}

// faults are caused in turn.
var faults = []fault{
	{"terminated connections", "the server ends all connections of the load", terminate},
	{"conflicts", "all transfers are SERIALIZABLE and use the same few accounts for a while", conflict},
	{"crash", "a server process is killed; the server ends all others and recovers", crash},
	{"restart", "the server is shut down at once; whoever looks after it starts it again", shutDown},
}

func terminate(ctx context.Context, r *running) error {
	return r.command(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", applicationName)
}

func conflict(ctx context.Context, r *running) error {
	r.conflicts.Store(true)
	defer r.conflicts.Store(false)
	timer := time.NewTimer(min(conflictsFor, r.opts.FaultEvery/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// crash kills the server process of its own connection, which is the parent of the shell.
func crash(ctx context.Context, r *running) error { return r.onServer(ctx, `kill -KILL "$PPID"`) }

// shutDown is pg_ctl stop -m immediate. The server runs programs in its data directory.
func shutDown(ctx context.Context, r *running) error {
	return r.onServer(ctx, `kill -QUIT "$(head -n 1 postmaster.pid)"`)
}

// onServer has the server run a shell command that takes the connection away, which is not an error then.
func (r *running) onServer(ctx context.Context, command string) error {
	err := r.command(ctx, "copy (select) to program '"+command+"'")
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Severity == "ERROR" {
		return err
	}
	return nil
}

// command runs a statement that breaks something, once: what was broken is not to be healed here.
func (r *running) command(ctx context.Context, statement string, args ...any) error {
	ctx, cancel := context.WithTimeout(retrypg.NoRetry(ctx), faultTimeout)
	defer cancel()
	_, err := r.admin.ExecContext(ctx, statement, args...)
	return err
}
