package connect_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// limit ends a test that hangs. Nothing takes a fraction of it.
const limit = 60 * time.Second

// password is in the connection strings of tests that look for it in errors.
const password = "hunter2-geheim"

// within returns a context that ends before the test would hang for ever.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// newCluster starts a cluster of the test's own, and sees to it that the test leaves no goroutine behind.
func newCluster(t *testing.T, opts pgtest.Options) *pgtest.Cluster {
	t.Helper()
	leak.Check(t)
	return pgt.New(t, opts)
}

// newDatabase returns a fresh database of the shared cluster, and sees to it that the test leaves no goroutine behind.
func newDatabase(t *testing.T) *pgt.Database {
	t.Helper()
	d := pgt.Shared(t)
	leak.Check(t)
	return d
}

// newProxied returns a fresh database of the shared cluster and a proxy before it.
func newProxied(t *testing.T) (*pgt.Database, *pgtest.Proxy) {
	t.Helper()
	d := newDatabase(t)
	return d, pgt.Proxy(t, d.Cluster.Addr())
}

// through returns a connection string to database d through proxy p, with a password in it.
func through(p *pgtest.Proxy, d *pgt.Database, params ...string) string {
	return p.DSN(append([]string{"dbname=" + d.Name, "password=" + password}, params...)...)
}

// open opens a database handle that is closed when the test ends.
func open(t *testing.T, dsn string, opts ...retrypg.Option) *sql.DB {
	t.Helper()
	db, err := retrypg.OpenDB(dsn, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() }) // some tests have closed it
	return db
}

// newPool opens a pool that is closed when the test ends.
func newPool(t *testing.T, dsn string, opts ...retrypg.Option) *retrypg.Pool {
	t.Helper()
	pool, err := retrypg.NewPool(t.Context(), dsn, opts...)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// mark returns a context by which watch tells one caller from another.
func mark(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, markKey{}, name)
}

type markKey struct{}

// watch counts what the hooks tell, and lets a test wait for it: the schedules of these tests are made of such events,
// not of times.
type watch struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each event
	backoffs []retrypg.BackoffInfo
	callers  []string // who waited, by mark
	downs    []error
	ups      []int // attempts
	evicted  []string
}

func newWatch() *watch { return &watch{changed: make(chan struct{})} }

func (w *watch) note(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watch) option() retrypg.Option {
	return retrypg.WithHooks(retrypg.Hooks{
		Backoff: func(ctx context.Context, b retrypg.BackoffInfo) {
			name, _ := ctx.Value(markKey{}).(string)
			w.note(func() { w.backoffs, w.callers = append(w.backoffs, b), append(w.callers, name) })
		},
		ServerDown: func(err error) { w.note(func() { w.downs = append(w.downs, err) }) },
		ServerUp:   func(_ time.Duration, n int) { w.note(func() { w.ups = append(w.ups, n) }) },
		Evicted:    func(reason string) { w.note(func() { w.evicted = append(w.evicted, reason) }) },
	})
}

// until blocks until condition, which is asked with w.mu held, is true.
func (w *watch) until(ctx context.Context, condition func() bool) error {
	for {
		w.mu.Lock()
		ok, changed := condition(), w.changed
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waits blocks until n waits between connection attempts have begun in all.
func (w *watch) waits(ctx context.Context, n int) error {
	return w.until(ctx, func() bool { return len(w.backoffs) >= n })
}

// down blocks until the server was found to be away.
func (w *watch) down(ctx context.Context) error {
	return w.until(ctx, func() bool { return len(w.downs) > 0 })
}

// counts returns how many waits were begun.
func (w *watch) counts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.backoffs)
}

// reasons returns the reasons for which there were waits, each once.
func (w *watch) reasons() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := make(map[string]bool)
	for _, b := range w.backoffs {
		found[b.Class.Reason] = true
	}
	return found
}

// later runs f on another goroutine; the result is f's.
func later(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// done returns what the goroutine of later ended with.
func done(t *testing.T, ch <-chan error) error {
	t.Helper()
	select {
	case err := <-ch:
		return err
	case <-time.After(limit):
		require.FailNow(t, "the goroutine does not end")
		return nil
	}
}

// harmless requires what holds for every error of connecting: no password, nothing that database/sql would take for an
// invitation to start over.
func harmless(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotErrorIs(t, err, driver.ErrBadConn)
	for e := err; e != nil; {
		require.NotContains(t, e.Error(), password)
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			break
		}
		e = u.Unwrap()
	}
}

// exhausted requires an error that says how long and how often connecting was tried.
func exhausted(t *testing.T, err error) *retrypg.ExhaustedError {
	t.Helper()
	harmless(t, err)
	var e *retrypg.ExhaustedError
	require.ErrorAs(t, err, &e)
	require.Positive(t, e.Attempts)
	require.Positive(t, e.Elapsed)
	require.Error(t, e.Last)
	return e
}
