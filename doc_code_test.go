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
	"breaker":  modulePath + "/breaker",
	"context":  "context",
	"errors":   "errors",
	"fmt":      "fmt",
	"gorm":     "gorm.io/gorm",
	"log":      "log",
	"metric":   "go.opentelemetry.io/otel/metric",
	"os":       "os",
	"pgx":      "github.com/jackc/pgx/v5",
	"pgxpool":  "github.com/jackc/pgx/v5/pgxpool",
	"policy":   modulePath + "/policy",
	"postgres": "gorm.io/driver/postgres",
	"retrypg":  modulePath,
	"slog":     "log/slog",
	"sql":      "database/sql",
	"sqlx":     "github.com/jmoiron/sqlx",
	"time":     "time",
	"trace":    "go.opentelemetry.io/otel/trace",
}

// docParameters are the variables that it may use.
const docParameters = "ctx context.Context, dsn string, db *sql.DB, " +
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
			if regexp.MustCompile(`\b(gorm|sqlx)\.`).MatchString(b.code) {
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

func TestEveryLinkOfTheDocumentsLeadsSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)
	for _, file := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(readDoc(t, file), -1) {
			switch target, anchor := m[1], m[2]; {
			case strings.Contains(target, "://"):
			case target != "":
				_, err := os.Stat(filepath.Join(filepath.Dir(file), target))
				require.NoError(t, err, "in %s", file)
			default:
				require.Regexp(t, "(?im)^#+ "+regexp.QuoteMeta(strings.TrimPrefix(anchor, "#"))+"$", readDoc(t, file), "in %s", file)
			}
		}
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

// program makes a program of a block, which is one already or the body of a function. Errors of the compiler name the
// document and its line.
func program(b goBlock) string {
	position := fmt.Sprintf("//line %s:%d\n", b.file, b.line)
	if strings.HasPrefix(b.code, "package ") {
		return position + b.code
	}
	var s strings.Builder
	s.WriteString("package main\n\nimport (\n")
	for _, name := range slices.Sorted(maps.Keys(docImports)) {
		if regexp.MustCompile(`\b` + name + `\.`).MatchString(docParameters + b.code) {
			fmt.Fprintf(&s, "\t%s %q\n", name, docImports[name])
		}
	}
	// A scope of its own lets the block declare what is a parameter too.
	fmt.Fprintf(&s, ")\n\nfunc main() {}\n\nfunc _(%s) error {\n\t{\n%s%s\t}\n\treturn nil\n}\n", docParameters, position, b.code)
	return s.String()
}
