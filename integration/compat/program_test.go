package compat_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	_ "github.com/retrypg/retrypg" // registers "retrypg"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// limit ends a test that hangs. Nothing takes a fraction of it.
const limit = 60 * time.Second

// The values of default_query_exec_mode. In which of pgx's ways a statement is sent decides what bytes its arguments and
// results are, and which errors come when.
const (
	cacheStatement = "cache_statement"
	cacheDescribe  = "cache_describe"
	describeExec   = "describe_exec"
	exec           = "exec"
	simple         = "simple_protocol"
)

var allModes = []string{cacheStatement, cacheDescribe, describeExec, exec, simple}

// program is what a library does with a database. It notes whatever it sees.
type program func(t *testing.T, s *stage)

// stage is what a program runs on.
type stage struct {
	notes
	ctx    context.Context
	driver string // "pgx" or "retrypg"
	mode   string
	dsn    string
	db     *sql.DB
}

// newStage returns a stage of "retrypg" on an empty database of its own, for what plain pgx cannot do.
func newStage(t *testing.T) *stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	s := &stage{ctx: ctx, driver: "retrypg", mode: cacheStatement, dsn: pgt.Shared(t).DSN()}
	requireNoLeaks(t)
	s.db = s.open(t)
	return s
}

// open opens a handle with the stage's driver, closed at the end of the test.
func (s *stage) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open(s.driver, s.dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// exec runs statements that must succeed and are no subject of the test.
func (s *stage) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		_, err := s.db.ExecContext(s.ctx, statement)
		require.NoError(t, err, statement)
	}
}

// sameOverBoth runs a program in each mode over both drivers, each time on an empty schema of the same name, and requires
// that it noted the same.
func sameOverBoth(t *testing.T, modes []string, f program) {
	t.Helper()
	server := pgt.Shared(t)
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			requireNoLeaks(t)
			dsn := server.DSN("default_query_exec_mode=" + mode)
			plain := perform(t, "pgx", mode, dsn, "pgx", f)
			require.NotEmpty(t, plain, "a program that notes nothing proves nothing")
			t.Log(strings.Join(plain, "\n"))
			ours := perform(t, "retrypg", mode, dsn, "retrypg", f)
			require.Equal(t, strings.Join(plain, "\n"), strings.Join(ours, "\n"))
		})
	}
}

// perform runs a program as a subtest and returns what it noted.
func perform(t *testing.T, driver, mode, dsn, name string, f program) (seen []string) {
	t.Helper()
	ok := t.Run(name, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		t.Cleanup(cancel)
		s := &stage{ctx: ctx, driver: driver, mode: mode, dsn: dsn}
		s.db = s.open(t)
		s.exec(t, "drop schema public cascade", "create schema public")
		f(t, s)
		seen = s.seen
	})
	if !ok {
		t.FailNow()
	}
	return seen
}

// requireNoLeaks fails the test if a goroutine that it started is there after its end. It must be called before anything
// is opened that the test is to end with.
func requireNoLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	gorm := goleak.IgnoreTopFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1") // GORM never ends it
	t.Cleanup(func() { goleak.VerifyNone(t, before, gorm) })
}
