package retrypg

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/sqlstate"
	"github.com/retrypg/retrypg/metrics"
)

var updateDocs = flag.Bool("update-docs", false, "write the tables of the documentation anew from the code")

const howToUpdate = "go test -run 'Doc|Readme' . -update-docs"

func TestReadmeHasTheTableOfMetricsAsTheCodeHasIt(t *testing.T) {
	var b strings.Builder
	b.WriteString("| name | kind | unit | attributes | what it measures |\n|---|---|---|---|---|\n")
	for _, in := range metrics.Instruments() {
		attributes := make([]string, len(in.Attributes))
		for i, a := range in.Attributes {
			attributes[i] = "`" + string(a) + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s |\n", in.Name, in.Kind, in.Unit, strings.Join(attributes, ", "),
			strings.TrimSuffix(in.Description, "."))
	}
	requireSection(t, "README.md", "metrics", b.String())
}

func TestDocsHaveTheTableOfSQLSTATEsAsTheCodeHasIt(t *testing.T) {
	var b strings.Builder
	b.WriteString("| code | condition | retry | outcome | why |\n|---|---|---|---|---|\n")
	for _, e := range sqlstate.Entries() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", e.Code, e.Name, Retry(e.Retry), Outcome(e.Outcome),
			strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`).Replace(e.Why))
	}
	requireSection(t, "docs/sqlstate.md", "sqlstates", b.String())
}

// The words of the table are written by hand; its codes are those of the code.
func TestReadmeNamesEverySQLSTATEThatIsRepeatedWithItsClass(t *testing.T) {
	codes := make(map[Retry][]string)
	for _, e := range sqlstate.Entries() {
		codes[Retry(e.Retry)] = append(codes[Retry(e.Retry)], e.Code)
	}
	readme := readDoc(t, "README.md")
	code := regexp.MustCompile(`\b[0-9A-Z]{5}\b`)
	for _, class := range []Retry{RetryStatement, RetryTransaction, RetryReconnect, RetryWait, RetryFailover} {
		name := "Retry" + strings.ToUpper(class.String()[:1]) + class.String()[1:]
		row := regexp.MustCompile("(?m)^\\| `" + name + "` \\|(.*?)\\|").FindStringSubmatch(readme)
		require.NotNil(t, row, "README.md has no row for %v", class)
		named := code.FindAllString(row[1], -1)
		slices.Sort(named)
		require.Equal(t, codes[class], named, "README.md, row of %v", class)
	}
}

// requireSection compares what stands in a document between two markers with what the code says.
func requireSection(t *testing.T, file, name, want string) {
	t.Helper()
	begin, end := "<!-- begin: "+name+" -->\n", "<!-- end: "+name+" -->"
	before, rest, found := strings.Cut(readDoc(t, file), begin)
	require.True(t, found, "%s has no line %q", file, begin)
	got, after, found := strings.Cut(rest, end)
	require.True(t, found, "%s has no line %q", file, end)
	if *updateDocs && got != want {
		require.NoError(t, os.WriteFile(file, []byte(before+begin+want+end+after), 0o644))
		return
	}
	require.Equal(t, want, got, "%s: write the table anew: %s", file, howToUpdate)
}

func readDoc(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}
