package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// scriptedDSN is the DSN of scripted servers. Nothing listens there: the dial function goes to the script.
const scriptedDSN = "postgres://app:s3cr3t-pass@db.invalid:5432/app?sslmode=disable"

// onScript makes connections go to a scripted server.
func onScript(s *script.Server) Option {
	return WithConnConfig(func(cfg *pgx.ConnConfig) error {
		s.Configure(&cfg.Config)
		return nil
	})
}

// scripted opens a database on a scripted server. Both are closed at the end of the bubble.
func scripted(t *testing.T, s *script.Server, opts ...Option) *sql.DB {
	t.Helper()
	db := sql.OpenDB(scriptedConnector(t, s, opts...))
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func scriptedConnector(t *testing.T, s *script.Server, opts ...Option) *Connector {
	t.Helper()
	t.Cleanup(s.Close)
	// A script does not know who it is, and its statements are counted.
	c, err := NewConnector(scriptedDSN, append([]Option{onScript(s), WithCommitCheck(NoCheck)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// scriptedFor is scripted for a server that answers statements with run.
func scriptedFor(t *testing.T, run func(s *script.Session, sql string) script.Result, opts ...Option) (*sql.DB, *script.Server) {
	t.Helper()
	s := script.New(script.Accept(run))
	return scripted(t, s, opts...), s
}

// failing returns a Run that answers the first n executions of statements that begin with prefix with e.
func failing(prefix string, n int, e *pgproto3.ErrorResponse) func(*script.Session, string) script.Result {
	var mu sync.Mutex
	return func(_ *script.Session, sql string) script.Result {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(sql, prefix) && n > 0 {
			n--
			return script.Result{Err: e}
		}
		return script.Result{}
	}
}

// serverError is an ERROR as PostgreSQL itself sends it.
func serverError(code, message string) *pgproto3.ErrorResponse {
	e := script.Error(code, message)
	e.Routine = "errfinish"
	return e
}

func conflictError() *pgproto3.ErrorResponse {
	return serverError("40001", "could not serialize access due to concurrent update")
}

// waits is a Hooks.Backoff that keeps what it is told.
type waits struct {
	mu   sync.Mutex
	list []BackoffInfo
}

func (w *waits) hook(_ context.Context, i BackoffInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, i)
}

func (w *waits) all() []BackoffInfo {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

// within returns a context that ends after d and with the test.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func requireExhausted(t *testing.T, err error) *ExhaustedError {
	t.Helper()
	var e *ExhaustedError
	require.ErrorAs(t, err, &e)
	return e
}

func requireNotExhausted(t *testing.T, err error) {
	t.Helper()
	var e *ExhaustedError
	require.False(t, errors.As(err, &e), "%v", err)
}

// ran returns how many of the statements that the server ran begin with prefix.
func ran(s *script.Server, prefix string) int {
	n := 0
	for _, q := range s.Queries() {
		if strings.HasPrefix(q, prefix) {
			n++
		}
	}
	return n
}
