package retrypg

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const modulePath = "github.com/retrypg/retrypg"

// importRule bounds what a package needs, directly or not, outside of its tests.
type importRule struct {
	packages []string // below the module's path; "" is the root; a final /... is all below
	reason   string
	allowed  []string // import paths besides the standard library; a final /... is all below. Nil: anything
	denied   []string
}

// The arrows point one way: root -> internal -> policy, breaker.
var importRules = []importRule{
	{
		packages: []string{"policy", "breaker"},
		reason:   "they are of use without a database, and a user of them alone must get nothing else",
		allowed:  []string{},
	},
	{
		packages: []string{"metrics"},
		reason:   "it is fed by the packages above it, and the user chooses the SDK",
		// What the OpenTelemetry API itself needs is its own matter.
		allowed: []string{"go.opentelemetry.io/otel/...", "go.opentelemetry.io/auto/sdk/...", "github.com/go-logr/...", "github.com/cespare/xxhash/v2"},
		denied:  []string{"go.opentelemetry.io/otel/sdk/...", "go.opentelemetry.io/otel/exporters/..."},
	},
	{
		packages: []string{"internal/contention", "internal/dsntext", "internal/piggyback", "internal/sqlstate", "internal/transport"},
		reason:   "queues, texts, bytes, a table and a net.Conn, which need nothing to be tested",
		allowed:  []string{},
	},
	{
		packages: []string{"internal/endpoint"},
		reason:   "it is handed what it needs to know of errors and telemetry when it is made",
		allowed:  []string{modulePath + "/policy"},
	},
	{
		packages: []string{"internal/outcome"},
		reason:   "its rules are about what servers answer, and it is handed the connections to ask over",
		allowed: []string{
			"github.com/jackc/pgx/v5", "github.com/jackc/pgx/v5/...", "github.com/jackc/pgpassfile", "github.com/jackc/pgservicefile",
			"github.com/jackc/puddle/v2/...", "golang.org/x/...",
		},
	},
	{
		packages: []string{"internal/..."},
		reason:   "nothing imports the root from below, or the parts could not be tested without the whole",
		denied:   []string{modulePath, modulePath + "/metrics", "go.opentelemetry.io/..."},
	},
	{
		packages: []string{"", "policy", "breaker", "metrics", "internal/piggyback", "internal/sqlstate", "internal/transport", "internal/endpoint", "internal/outcome"},
		reason:   "a program that uses the library must not be linked with test libraries, servers or exporters",
		denied: []string{
			modulePath + "/internal/pgtest/...", "testing", "github.com/stretchr/...", "github.com/testcontainers/...",
			"go.opentelemetry.io/otel/sdk/...", "go.opentelemetry.io/otel/exporters/...", "google.golang.org/...",
		},
	},
}

func TestImportsPointOneWay(t *testing.T) {
	packages := listPackages(t)
	for _, rule := range importRules {
		paths := matching(packages, rule.packages)
		require.NotEmpty(t, paths, "no package is %v", rule.packages)
		for _, path := range paths {
			for _, dep := range packages[path].Deps {
				switch {
				case matches(dep, rule.denied), rule.allowed != nil && !packages[dep].Standard && dep != path && !matches(dep, rule.allowed):
					t.Errorf("%s needs %s\nby way of: %s\nthe rule: %s",
						path, dep, strings.Join(wayTo(packages, path, dep), " -> "), rule.reason)
				}
			}
		}
	}
}

func TestEveryPackageOfTheModuleHasAnImportRule(t *testing.T) {
	packages := listPackages(t)
	var ruled []string
	for _, rule := range importRules {
		ruled = append(ruled, matching(packages, rule.packages)...)
	}
	for path, p := range packages {
		if p.Module != nil && p.Module.Path == modulePath {
			require.Contains(t, ruled, path, "add it to importRules")
		}
	}
}

// allowedRequirements are the modules that go.mod may name, each with its reason. A requirement counts for every user,
// even where no package of it is imported.
var allowedRequirements = map[string]string{
	"github.com/jackc/pgx/v5":             "the driver below",
	"github.com/XSAM/otelsql":             "spans and metrics of database/sql",
	"go.opentelemetry.io/otel":            "API: attributes and the global providers",
	"go.opentelemetry.io/otel/metric":     "API: metrics",
	"go.opentelemetry.io/otel/trace":      "API: spans",
	"go.opentelemetry.io/otel/sdk":        "tests; and required together with the API it keeps the two in step for users",
	"go.opentelemetry.io/otel/sdk/metric": "tests; the same",
	"github.com/stretchr/testify":         "tests",
}

func TestRequirementsOfTheRootModuleAreTheAllowedOnes(t *testing.T) {
	var mod struct {
		Require []struct {
			Path     string
			Version  string
			Indirect bool
		}
		Replace []struct{ Old, New struct{ Path string } }
		Exclude []struct{ Path string }
	}
	require.NoError(t, json.Unmarshal(goCommand(t, "mod", "edit", "-json", "go.mod"), &mod))
	versions := make(map[string]string)
	for _, r := range mod.Require {
		if !r.Indirect {
			require.Contains(t, allowedRequirements, r.Path, "it would be a requirement of every user: put what needs it into a nested module")
			versions[r.Path] = r.Version
		}
	}
	require.Len(t, versions, len(allowedRequirements), "go.mod requires %v", versions)
	for path, version := range versions {
		if strings.HasPrefix(path, "go.opentelemetry.io/otel") {
			require.Equal(t, versions["go.opentelemetry.io/otel"], version, "%s: one version for all of OpenTelemetry", path)
		}
	}
	require.Empty(t, mod.Replace, "go install refuses a module with a replace directive")
	require.Empty(t, mod.Exclude, "it has no effect for users")
}

// listedPackage is what go list says of a package.
type listedPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
	Module     *struct{ Path string }
}

var listed struct {
	sync.Mutex
	packages map[string]listedPackage
}

// listPackages returns all packages of the module and what they need, by import path.
func listPackages(t *testing.T) map[string]listedPackage {
	t.Helper()
	listed.Lock()
	defer listed.Unlock()
	if listed.packages != nil {
		return listed.packages
	}
	packages := make(map[string]listedPackage)
	d := json.NewDecoder(bytes.NewReader(goCommand(t, "list", "-deps", "-json=ImportPath,Standard,Imports,Deps,Module", "./...")))
	for {
		var p listedPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		packages[p.ImportPath] = p
	}
	require.Contains(t, packages, modulePath)
	listed.packages = packages
	return packages
}

func goCommand(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "go %s: %s", strings.Join(args, " "), &stderr)
	return out
}

// matching returns the packages of the module that the patterns mean.
func matching(packages map[string]listedPackage, patterns []string) (paths []string) {
	for _, pattern := range patterns {
		full := strings.TrimSuffix(modulePath+"/"+pattern, "/")
		for path := range packages {
			if matches(path, []string{full}) {
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func matches(path string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if prefix, all := strings.CutSuffix(pattern, "/..."); all {
			return path == prefix || strings.HasPrefix(path, prefix+"/")
		}
		return path == pattern
	})
}

// wayTo returns the shortest chain of imports from one package to another.
func wayTo(packages map[string]listedPackage, from, to string) []string {
	ways := [][]string{{from}}
	seen := map[string]bool{from: true}
	for len(ways) > 0 {
		way := ways[0]
		ways = ways[1:]
		for _, next := range packages[way[len(way)-1]].Imports {
			if next == to {
				return append(way, next)
			}
			if !seen[next] {
				seen[next] = true
				ways = append(ways, append(slices.Clone(way), next))
			}
		}
	}
	return nil
}
