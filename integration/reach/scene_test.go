package reach_test

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// workers is how many callers there are, and connections, where nothing else is said.
const workers = 8

// warm is how many entries each caller writes before something happens.
const warm = 10

// limit ends a scenario that hangs. Nothing takes a fraction of it.
const limit = 4 * time.Minute

// within returns a context that ends before the test would hang for ever.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// each runs f with each kind of client, and sees to it that it leaves no goroutine behind.
func each(t *testing.T, kinds []kind, f func(t *testing.T, k kind)) {
	t.Helper()
	for _, k := range kinds {
		t.Run(strings.ReplaceAll(k.name, "/", " "), func(t *testing.T) {
			leak.Check(t)
			f(t, k)
		})
	}
}

// newServer starts a server whose log has times that can be read.
func newServer(t *testing.T, name string, settings map[string]string) *pgtest.Cluster {
	t.Helper()
	return pgt.New(t, readable(pgtest.Options{Name: name, Settings: settings}))
}

// newPair starts two such servers, a primary and its standby.
func newPair(t *testing.T, synchronous bool) (primary, standby *pgtest.Cluster) {
	t.Helper()
	return pgt.Pair(t, readable(pgtest.Options{}), synchronous)
}

// readable makes the times in a server's log such that they can be read.
func readable(opts pgtest.Options) pgtest.Options {
	settings := map[string]string{"log_timezone": "UTC"}
	maps.Copy(settings, opts.Settings)
	opts.Settings = settings
	return opts
}

// newRecord makes the table of entries, and a record of what is told of them.
func newRecord(ctx context.Context, t *testing.T, c *pgtest.Cluster) *audit.Record {
	t.Helper()
	require.NoError(t, c.Exec(ctx, audit.Schema))
	return audit.New(audit.OfStatement) // as clients are compared that know no ErrCommitUnknown
}

// eitherOf returns a connection string to that of the two which takes writes.
func eitherOf(one, two *pgtest.Cluster) string {
	return pgtest.DSN([]string{one.Addr(), two.Addr()}, "target_session_attrs=read-write")
}

// accepting returns when the server began to accept connections, or was promoted, since then, as its log has it: to ask
// the server takes as long as some of what is measured.
func accepting(ctx context.Context, t *testing.T, c *pgtest.Cluster, since time.Time) time.Time {
	t.Helper()
	const stamp = "2006-01-02 15:04:05.000 MST"
	for {
		for line := range strings.Lines(c.Log()) {
			if len(line) < len(stamp) || !strings.Contains(line, "ready to accept connections") {
				continue
			}
			at, err := time.Parse(stamp, line[:len(stamp)])
			require.NoError(t, err)
			if !at.Before(since.Truncate(time.Millisecond)) {
				return at
			}
		}
		select {
		case <-ctx.Done():
			require.NoError(t, ctx.Err(), "the log of server %s does not say that it accepts connections", c.Name())
		case <-time.After(time.Millisecond): // the log comes through a pipe, and sends no event
		}
	}
}
