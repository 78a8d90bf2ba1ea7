package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/backoff"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/classify"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/doctor"
)

func document(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + file)
	require.NoError(t, err)
	return string(text)
}

// What doctor prints depends on a server, so that its example is a copy of what was seen.
func TestTheOutputInTheDocumentsIsThatOfTheTool(t *testing.T) {
	example := regexp.MustCompile("(?ms)^```\n\\$ retrypg ((?:classify|backoff) [^\n]*)\n(.*?)^```$")
	shown := 0
	for _, file := range []string{"README.md", "docs/tool.md"} {
		for _, m := range example.FindAllStringSubmatch(document(t, file), -1) {
			r := tool(t, nil, strings.Fields(m[1])...)
			require.Equal(t, 0, r.status, r.stderr)
			require.Equal(t, r.stdout, m[2], "%s: retrypg %s", file, m[1])
			shown++
		}
	}
	require.GreaterOrEqual(t, shown, 4)
}

func TestEveryFieldOfTheJSONIsInTheDocuments(t *testing.T) {
	text := document(t, "docs/tool.md")
	for _, v := range []any{doctor.Report{}, []classify.Result{}, backoff.Report{}, backoff.Storm{}} {
		for _, field := range jsonFields(reflect.TypeOf(v)) {
			require.Regexp(t, "`(?:hosts\\[\\]\\.)?"+field+"`", text)
		}
	}
}

// jsonFields are the names of the fields of a type, and of what it holds.
func jsonFields(typ reflect.Type) (names []string) {
	switch typ.Kind() {
	case reflect.Slice, reflect.Pointer:
		return jsonFields(typ.Elem())
	case reflect.Struct:
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if name != "" {
				names = append(append(names, name), jsonFields(typ.Field(i).Type)...)
			}
		}
	}
	return names
}

func TestEveryCommandIsInTheReadme(t *testing.T) {
	readme := document(t, "README.md")
	for _, command := range newRoot(nil, nil).Commands() {
		require.True(t, strings.Contains(readme, "`retrypg "+command.Name()), "README.md does not tell of %s", command.Name())
	}
}
