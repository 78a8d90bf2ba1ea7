package pgtest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// adminPoll is how often a condition on the server is asked for where the server sends no event.
const adminPoll = 5 * time.Millisecond

// Exec runs SQL, one statement or several separated by semicolons, as user postgres in database postgres on a
// connection of its own. It blocks until the server has answered or ctx is done.
func (c *Cluster) Exec(ctx context.Context, sql string) error {
	_, err := c.ask(ctx, sql)
	return err
}

// Value runs SQL as Exec does and returns the first column of the first row of the last result as text, "" for NULL
// and for no row.
func (c *Cluster) Value(ctx context.Context, sql string) (string, error) { return c.ask(ctx, sql) }

func (c *Cluster) ask(ctx context.Context, sql string) (string, error) {
	conn, err := pgconn.Connect(ctx, c.adminDSN())
	if err != nil {
		return "", fmt.Errorf("ask server %s: %w", c.Name(), err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", fmt.Errorf("server %s: %s: %w", c.Name(), sql, err)
	}
	if len(results) == 0 {
		return "", nil
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 || len(last.Rows[0]) == 0 {
		return "", nil
	}
	return string(last.Rows[0][0]), nil
}

// until asks for a boolean until it is true or ctx is done.
func (c *Cluster) until(ctx context.Context, what, sql string) error {
	ticker := time.NewTicker(adminPoll)
	defer ticker.Stop()
	for {
		value, err := c.ask(ctx, sql)
		if err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		if value == "t" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// Set changes a setting with ALTER SYSTEM, reloads, and waits until new connections see it; a connection that is open
// sees it soon after. A setting that needs a restart is not in force before Restart. It works on a standby too.
func (c *Cluster) Set(ctx context.Context, name, value string) error {
	literal := "'" + strings.ReplaceAll(value, "'", "''") + "'"
	return c.reload(ctx, "alter system set "+pgx.Identifier{name}.Sanitize()+" = "+literal)
}

// Reset undoes Set.
func (c *Cluster) Reset(ctx context.Context, name string) error {
	return c.reload(ctx, "alter system reset "+pgx.Identifier{name}.Sanitize())
}

func (c *Cluster) reload(ctx context.Context, alter string) error {
	if err := c.Exec(ctx, alter); err != nil {
		return err
	}
	before, err := c.Value(ctx, "select pg_conf_load_time()::text from pg_reload_conf()")
	if err != nil {
		return err
	}
	return c.until(ctx, "the configuration is reloaded", "select pg_conf_load_time() > '"+before+"'::timestamptz")
}

// CreateDatabase makes a database, a copy of template1.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	return c.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize())
}

// TerminateBackends ends the client connections for which the SQL condition on pg_stat_activity holds, all for "",
// except those of this package itself; their clients are told 57P01. It returns how many.
func (c *Cluster) TerminateBackends(ctx context.Context, where string) (int, error) {
	return c.signalBackends(ctx, "pg_terminate_backend(pid)", where)
}

// CancelBackends cancels the running statements of the client connections for which the condition holds, as
// TerminateBackends does with connections; their clients are told 57014.
func (c *Cluster) CancelBackends(ctx context.Context, where string) (int, error) {
	return c.signalBackends(ctx, "pg_cancel_backend(pid)", where)
}

func (c *Cluster) signalBackends(ctx context.Context, call, where string) (int, error) {
	if where == "" {
		where = "true"
	}
	// The backend of an earlier question may still be leaving: it does not count.
	text, err := c.Value(ctx, "select count(*) filter (where "+call+") from pg_stat_activity"+
		" where application_name <> '"+adminName+"' and backend_type = 'client backend' and ("+where+")")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// WaitUntil asks on connections of its own, every 5 ms, until the SQL expression is true; NULL counts as false. It
// ends with an error when the server cannot be asked or ctx is done.
func (c *Cluster) WaitUntil(ctx context.Context, condition string) error {
	return c.until(ctx, condition, "select coalesce(("+condition+"), false)")
}
