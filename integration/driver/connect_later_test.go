package driver_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestServerThatTakesNoConnectionsYetOrAnyMoreIsWaitedFor(t *testing.T) {
	leak.Check(t)
	c := pgt.New(t, pgtest.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), pgt.Timeout)
	defer cancel()
	ping := func() <-chan error {
		done := make(chan error, 1)
		db, err := sql.Open(ours, c.DSN())
		require.NoError(t, err)
		go func() {
			defer db.Close()
			done <- db.PingContext(ctx)
		}()
		return done
	}

	// Shutting down: the smart shutdown waits for the last client, and takes no new one.
	last, err := pgx.Connect(ctx, c.DSN())
	require.NoError(t, err)
	process, err := os.FindProcess(c.PID())
	require.NoError(t, err)
	require.NoError(t, process.Signal(syscall.SIGTERM))
	code := refusal{text: "57P03", code: "57P03", retry: retrypg.RetryWait}
	requireSoon(t, ctx, c.DSN(), "57P03")
	code.requirePlain(t, ctx, c.DSN())
	code.requireOurs(t, t.Context(), c.DSN())
	done := ping()
	require.NoError(t, last.Close(ctx))
	require.NoError(t, c.StopFast(ctx))
	require.NoError(t, c.Start(ctx))
	require.NoError(t, <-done)

	// A standby without hot_standby never takes any.
	require.NoError(t, c.Exec(ctx, "alter system set hot_standby = off"))
	require.NoError(t, c.StopFast(ctx))
	signal := filepath.Join(c.DataDir(), "standby.signal")
	require.NoError(t, os.WriteFile(signal, nil, 0o644))
	require.NoError(t, c.StartAsync())
	requireSoon(t, ctx, c.DSN(), "Hot standby mode is disabled.")
	code.retry = retrypg.RetryFailover
	code.requirePlain(t, ctx, c.DSN())
	code.requireOurs(t, t.Context(), c.DSN())
	done = ping()
	require.NoError(t, c.StopImmediate(ctx))
	require.NoError(t, os.Remove(signal))
	require.NoError(t, c.Start(ctx))
	require.NoError(t, <-done)
}

// requireSoon connects until the server refuses with that code or detail.
func requireSoon(t *testing.T, ctx context.Context, dsn, text string) {
	t.Helper()
	for {
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			closeAtOnce(conn)
		}
		require.NoError(t, ctx.Err(), "the last answer was %v", err)
		for inner := err; inner != nil; inner = unwrapped(inner) {
			if pgErr, ok := inner.(*pgconn.PgError); ok && (pgErr.Code == text || pgErr.Detail == text) { //nolint:errorlint // this node only
				return
			}
		}
	}
}

func unwrapped(err error) error {
	switch e := err.(type) { //nolint:errorlint // walks the tree itself
	case interface{ Unwrap() error }:
		return e.Unwrap()
	case interface{ Unwrap() []error }:
		return e.Unwrap()[0]
	}
	return nil
}
