package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// MinMajor is the oldest PostgreSQL that a [Cluster] is made with: the settings it writes (wal_keep_size) and the
// functions that retrypg asks for (pg_current_xact_id) appeared in version 13.
const MinMajor = 13

// Environment variables read by [Find] and [ExternalDSN].
const (
	EnvBin     = "RETRYPG_PG_BIN"
	EnvVersion = "RETRYPG_PG_VERSION"
	EnvCache   = "RETRYPG_CACHE"
	EnvDSN     = "RETRYPG_TEST_DSN"
)

// Installation is a set of PostgreSQL server programs. It is a value: copy it freely.
type Installation struct {
	BinDir  string // absolute directory that holds postgres and initdb
	Version string // as the server prints it: "15.18", "18beta1"
	Major   int    // 15
	Source  string // how it was found, for messages: "RETRYPG_PG_BIN", "installed" or "npm"
}

// NotFoundError says that no PostgreSQL server programs could be used, what was looked at, and what to do.
type NotFoundError struct {
	Major int      // the major version asked for, 0 for any
	Tried []string // one line for each place, with the reason it was not taken
}

// Error implements error.
func (e *NotFoundError) Error() string {
	what := "PostgreSQL server programs"
	if e.Major != 0 {
		what = fmt.Sprintf("PostgreSQL %d server programs", e.Major)
	}
	return fmt.Sprintf("no usable %s found; looked at:\n  %s\n"+
		"install a server (apt-get install postgresql, dnf install postgresql-server, brew install postgresql), "+
		"or set %s to the directory of postgres and initdb, or install npm, which is used to fetch server programs",
		what, strings.Join(e.Tried, "\n  "), EnvBin)
}

// ExternalDSN returns the DSN in RETRYPG_TEST_DSN, for tests that are content with one running server and never stop
// it. ok is false when the variable is empty.
func ExternalDSN() (dsn string, ok bool) {
	dsn = os.Getenv(EnvDSN)
	return dsn, dsn != ""
}

var found struct {
	mu    sync.Mutex
	byEnv map[string]*Installation
}

// Find returns the server programs to use, in this order: the directory in RETRYPG_PG_BIN; an installed server, the
// highest version first; a server fetched earlier into the cache; one fetched now with npm, from a pinned version whose
// checksum is compared. RETRYPG_PG_VERSION restricts all of them to one major version. The answer is remembered for
// the life of the process. The error is a [*NotFoundError] when nothing fits. Safe for concurrent use; it blocks
// while programs are asked for their version or fetched, until ctx is done.
func Find(ctx context.Context) (*Installation, error) {
	key := strings.Join([]string{os.Getenv(EnvBin), os.Getenv(EnvVersion), os.Getenv(EnvCache), os.Getenv("PATH")}, "\x00")
	found.mu.Lock()
	defer found.mu.Unlock()
	if inst, ok := found.byEnv[key]; ok {
		return inst, nil
	}
	inst, err := find(ctx)
	if err != nil {
		return nil, err
	}
	if found.byEnv == nil {
		found.byEnv = make(map[string]*Installation)
	}
	found.byEnv[key] = inst
	return inst, nil
}

func find(ctx context.Context) (*Installation, error) {
	if !supported {
		return nil, &NotFoundError{Tried: []string{"this operating system: throwaway clusters need Linux, macOS or a BSD"}}
	}
	major, err := wantedMajor()
	if err != nil {
		return nil, err
	}
	missing := &NotFoundError{Major: major}
	if dir := os.Getenv(EnvBin); dir != "" {
		inst, err := inspect(ctx, dir, EnvBin, major)
		if err != nil {
			missing.Tried = []string{fmt.Sprintf("%s=%s: %v", EnvBin, dir, err)}
			return nil, missing
		}
		return inst, nil
	}
	var best *Installation
	for _, dir := range installedDirs(ctx) {
		inst, err := inspect(ctx, dir, "installed", major)
		if err != nil {
			missing.Tried = append(missing.Tried, fmt.Sprintf("%s: %v", dir, err))
			continue
		}
		if best == nil || newer(inst.Version, best.Version) {
			best = inst
		}
	}
	if best != nil {
		return best, nil
	}
	if len(missing.Tried) == 0 {
		missing.Tried = append(missing.Tried, "pg_config, PATH and the usual directories: no server there")
	}
	inst, err := fetched(ctx, major)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("looking for PostgreSQL server programs: %w", err)
		}
		missing.Tried = append(missing.Tried, fmt.Sprintf("npm: %v", err))
		return nil, missing
	}
	return inst, nil
}

func wantedMajor() (int, error) {
	text := os.Getenv(EnvVersion)
	if text == "" {
		return 0, nil
	}
	head, _, _ := strings.Cut(text, ".")
	major, err := strconv.Atoi(head)
	if err != nil || major < MinMajor {
		return 0, fmt.Errorf("%s=%q: want a major version from %d up, such as 17", EnvVersion, text, MinMajor)
	}
	return major, nil
}

// installedDirs lists directories that may hold server programs, without repeats.
func installedDirs(ctx context.Context) []string {
	var dirs []string
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",         // Debian, Ubuntu
		"/usr/pgsql-*/bin",                  // PGDG on Red Hat
		"/usr/lib/postgresql*/bin",          // SUSE, Gentoo
		"/usr/libexec/postgresql*",          // Alpine
		"/usr/local/pgsql/bin",              // built from source
		"/opt/homebrew/opt/postgresql*/bin", // Homebrew on Apple silicon
		"/usr/local/opt/postgresql*/bin",    // Homebrew on Intel
		"/opt/local/lib/postgresql*/bin",    // MacPorts
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		matches, _ := filepath.Glob(pattern) // the only error is a malformed pattern
		dirs = append(dirs, matches...)
	}
	var unique []string
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err != nil {
			continue // pg_config without a server, or a client package
		}
		if resolved, err := filepath.EvalSymlinks(dir); err == nil {
			dir = resolved
		}
		if !slices.Contains(unique, dir) {
			unique = append(unique, dir)
		}
	}
	return unique
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)[^\s]*)`)

// inspect reads the version of the programs in dir and checks that they can be run by the server's user.
func inspect(ctx context.Context, dir, source string, major int) (*Installation, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return nil, errors.New("there is no initdb")
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("running postgres --version: %w", err)
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("postgres --version printed %q", out)
	}
	inst := &Installation{BinDir: dir, Version: string(m[1]), Source: source}
	if inst.Major, err = strconv.Atoi(string(m[2])); err != nil {
		return nil, err
	}
	switch {
	case major != 0 && inst.Major != major:
		return nil, fmt.Errorf("it is version %s, and %s asks for %d", inst.Version, EnvVersion, major)
	case inst.Major < MinMajor:
		return nil, fmt.Errorf("version %s is too old, %d is the oldest supported", inst.Version, MinMajor)
	}
	if err := reachable(dir); err != nil {
		return nil, err
	}
	return inst, nil
}

// newer compares two versions number by number; a version in testing counts as older than its release.
func newer(a, b string) bool {
	return slices.Compare(versionNumbers(a), versionNumbers(b)) > 0
}

func versionNumbers(v string) []int {
	var numbers []int
	for _, part := range strings.Split(v, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			// "18beta1": its number, then less than any minor version.
			digits := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
			n, _ = strconv.Atoi(part[:digits])
			return append(numbers, n, -1)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

func (i *Installation) program(name string) string { return filepath.Join(i.BinDir, name) }
