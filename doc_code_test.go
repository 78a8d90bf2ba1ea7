package retrypg

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docImports are the packages that a piece of a program in the documentation may use without saying so.
var docImports = map[string]string{
	"breaker": modulePath + "/breaker",
	"context": "context",
	"errors":  "errors",
	"fmt":     "fmt",
	"http":    "net/http",
	"log":     "log",
	"math":    "math",
	"metric":  "go.opentelemetry.io/otel/metric",
	"os":      "os",
	"pgconn":  "github.com/jackc/pgx/v5/pgconn",
	"pgx":     "github.com/jackc/pgx/v5",
	"pgxpool": "github.com/jackc/pgx/v5/pgxpool",
	"policy":  modulePath + "/policy",
	"retrypg": modulePath,
	"signal":  "os/signal",
	"slog":    "log/slog",
	"sql":     "database/sql",
	"strconv": "strconv",
	"syscall": "syscall",
	"testing": "testing",
	"time":    "time",
	"trace":   "go.opentelemetry.io/otel/trace",
}

// compatImports are the same of packages that the root module does not require: a block that uses one is built in the
// module of the tests with these libraries.
var compatImports = map[string]string{
	"bun":              "github.com/uptrace/bun",
	"dialect":          "entgo.io/ent/dialect",
	"entsql":           "entgo.io/ent/dialect/sql",
	"goose":            "github.com/pressly/goose/v3",
	"gorm":             "gorm.io/gorm",
	"iofs":             "github.com/golang-migrate/migrate/v4/source/iofs",
	"lock":             "github.com/pressly/goose/v3/lock",
	"migrate":          "github.com/golang-migrate/migrate/v4",
	"migratepgx":       "github.com/golang-migrate/migrate/v4/database/pgx/v5",
	"pgdialect":        "github.com/uptrace/bun/dialect/pgdialect",
	"postgres":         "gorm.io/driver/postgres",
	"river":            "github.com/riverqueue/river",
	"riverdatabasesql": "github.com/riverqueue/river/riverdriver/riverdatabasesql",
	"riverpgxv5":       "github.com/riverqueue/river/riverdriver/riverpgxv5",
	"sqlcpgx":          modulePath + "/integration/compat/sqlc/sqlcpgx",
	"sqlcsql":          modulePath + "/integration/compat/sqlc/sqlcsql",
	"sqlx":             "github.com/jmoiron/sqlx",
	"squirrel":         "github.com/Masterminds/squirrel",
}

// docParameters are the variables that it may use. Where it declares functions, it may use none of them.
const docParameters = "ctx context.Context, dsn string, db *sql.DB, pool *retrypg.Pool, " +
	"tracerProvider trace.TracerProvider, meterProvider metric.MeterProvider"

func TestEveryGoBlockOfTheDocumentsCompiles(t *testing.T) {
	root, err := os.Getwd()
	require.NoError(t, err)
	modules := strings.Fields(string(goCommand(t, "list", "-m", "-f", "{{.Dir}}")))
	// Packages that the root module does not require are checked in a module that does.
	programs := map[string][]string{".": nil, "integration/compat": nil}
	for _, file := range documents(t) {
		for _, b := range goBlocks(t, file) {
			module := "."
			if slices.ContainsFunc(slices.Collect(maps.Keys(compatImports)), b.uses) {
				module = "integration/compat"
			}
			programs[module] = append(programs[module], program(b))
		}
	}
	require.NotEmpty(t, programs["."])
	for module, sources := range programs {
		t.Run(module, func(t *testing.T) {
			for _, source := range sources {
				_, err := parser.ParseFile(token.NewFileSet(), "", source, 0)
				require.NoError(t, err)
			}
			if !slices.Contains(modules, filepath.Join(root, module)) {
				t.Logf("parsed only: %s is not in the workspace", module)
				return
			}
			// The files exist in an overlay only: nothing is written into the tree.
			dir, replace, args := t.TempDir(), make(map[string]string), []string{"build"}
			for i, source := range sources {
				name := fmt.Sprintf("block%d", i)
				file := filepath.Join(dir, name+".go")
				require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
				replace[filepath.Join(root, module, "doc_blocks", name, "main.go")] = file
				args = append(args, "./doc_blocks/"+name)
			}
			overlay, err := json.Marshal(map[string]any{"Replace": replace})
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
			cmd := exec.CommandContext(t.Context(), "go", slices.Insert(args, 1, "-overlay="+filepath.Join(dir, "overlay.json"), "-o="+dir+"/")...)
			cmd.Dir = filepath.Join(root, module)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}

func TestEveryMakeTargetOfTheDocumentsExists(t *testing.T) {
	makefile := readDoc(t, "Makefile")
	command := regexp.MustCompile("(?m)(?:`|^)make ([a-z-]+)")
	for _, file := range documents(t) {
		for _, m := range command.FindAllStringSubmatch(readDoc(t, file), -1) {
			require.Regexp(t, "(?m)^"+m[1]+":", makefile, "%s names make %s", file, m[1])
		}
	}
}

// documents returns the Markdown files for users and contributors.
func documents(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.md")
	require.NoError(t, err)
	more, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	require.Contains(t, files, "README.md")
	require.NotEmpty(t, more)
	return append(files, more...)
}

// goBlock is a code block of a document.
type goBlock struct {
	file string
	line int // of its first line of code
	code string
}

func goBlocks(t *testing.T, file string) (blocks []goBlock) {
	t.Helper()
	text := readDoc(t, file)
	for _, at := range regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatchIndex(text, -1) {
		code := text[at[2]:at[3]]
		blocks = append(blocks, goBlock{file: file, line: 1 + strings.Count(text[:at[2]], "\n"), code: code})
	}
	return blocks
}

// uses reports whether the code names something of a package.
func (b goBlock) uses(pkg string) bool {
	return regexp.MustCompile(`\b` + pkg + `\.[A-Z]`).MatchString(b.code)
}

// program makes a program of a block, which is one already, or declares functions, or is the body of one. Errors of the
// compiler name the document and its line.
func program(b goBlock) string {
	position := fmt.Sprintf("//line %s:%d\n", b.file, b.line)
	if strings.HasPrefix(b.code, "package ") {
		return position + b.code
	}
	declares := regexp.MustCompile(`(?m)^func [(A-Z_a-z]`).MatchString(b.code)
	if !declares {
		// A scope of its own lets the block declare what is a parameter too.
		b.code = fmt.Sprintf("func _(%s) error {\n\t{\n%s%s\t}\n\treturn nil\n}\n", docParameters, position, b.code)
		position = ""
	}
	var s strings.Builder
	s.WriteString("package main\n\nimport (\n")
	for _, imports := range []map[string]string{docImports, compatImports} {
		for _, name := range slices.Sorted(maps.Keys(imports)) {
			if b.uses(name) {
				fmt.Fprintf(&s, "\t%s %q\n", name, imports[name])
			}
		}
	}
	fmt.Fprintf(&s, ")\n\nfunc main() {}\n\n%s%s", position, b.code)
	return s.String()
}
