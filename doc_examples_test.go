package retrypg

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Options are left out: there are many, most take one number, and those that a program starts with have examples.
var optionTypes = []string{"Option", "TuningOption"}

func TestEveryEntryPointHasAnExample(t *testing.T) {
	for _, dir := range []string{".", "policy", "breaker"} {
		p := packageDoc(t, dir)
		entries := p.Funcs
		for _, typ := range p.Types {
			if !slices.Contains(optionTypes, typ.Name) {
				entries = slices.Concat(entries, typ.Funcs) // constructors
			}
			for _, method := range typ.Methods {
				if method.Name == "Reconfigure" { // by which a program changes what is in use
					entries = append(entries, method)
				}
			}
		}
		require.NotEmpty(t, entries)
		var without []string
		for _, f := range entries {
			if len(f.Examples) == 0 {
				without = append(without, strings.TrimPrefix(f.Recv+".", ".")+f.Name)
			}
		}
		require.Empty(t, without, "entry points of %s without an Example", p.ImportPath)
	}
}

func TestEveryExportedNameHasAComment(t *testing.T) {
	for _, dir := range []string{".", "policy", "breaker", "metrics"} {
		p := packageDoc(t, dir)
		functions, values := p.Funcs, slices.Concat(p.Consts, p.Vars)
		for _, typ := range p.Types {
			require.NotEmpty(t, typ.Doc, "%s.%s", p.Name, typ.Name)
			functions = slices.Concat(functions, typ.Funcs, typ.Methods)
			values = slices.Concat(values, typ.Consts, typ.Vars)
		}
		for _, f := range functions {
			require.NotEmpty(t, f.Doc, "%s.%s %s", p.Name, f.Recv, f.Name)
		}
		for _, v := range values {
			if v.Doc != "" {
				continue // of the whole block
			}
			for _, spec := range v.Decl.Specs {
				value := spec.(*ast.ValueSpec)
				require.True(t, value.Doc != nil || value.Comment != nil, "%s.%s", p.Name, value.Names[0])
			}
		}
	}
}

// packageDoc returns the documentation of a package as pkg.go.dev shows it, with its examples.
func packageDoc(t *testing.T, dir string) *doc.Package {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if base := filepath.Base(name); strings.HasSuffix(base, "_test.go") && !strings.HasPrefix(base, "example_") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, file)
	}
	p, err := doc.NewFromFiles(fset, files, path.Join(modulePath, dir))
	require.NoError(t, err)
	return p
}
