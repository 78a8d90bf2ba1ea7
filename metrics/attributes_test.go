package metrics

import (
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestOnlySQLStatesPassAsCodes(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"40001", "57P03", "XX000", "HV00A", "00000", "ZZZZZ"} {
		require.Equal(t, code, parseSQLState(code).String())
	}
	for _, code := range []string{"", "4000", "400011", "4000a", "4000 ", "40\x0001", "é001", "４0", "40-01"} {
		require.Equal(t, sqlstate{}, parseSQLState(code), "%q", code)
	}
}

func FuzzWhatIsRecordedIsBounded(f *testing.F) {
	f.Add("40001")
	f.Add("max_attempts")
	f.Add(strings.Repeat("é", 40))
	f.Add("\xff\x80 DROP TABLE")
	codeForm := regexp.MustCompile(`^([0-9A-Z]{5})?$`)
	wordForm := regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)
	f.Fuzz(func(t *testing.T, s string) {
		code := parseSQLState(s).String()
		require.Regexp(t, codeForm, code)
		require.True(t, code == "" || code == s)
		require.Regexp(t, wordForm, boundedWord(s))
		name := boundedName(s)
		require.LessOrEqual(t, len(name), maxNameBytes)
		require.True(t, utf8.ValidString(name))
		if len(s) <= maxNameBytes && utf8.ValidString(s) {
			require.Equal(t, s, name)
		}
		require.LessOrEqual(t, stopReasonIndex(s), reasonOther)
		require.Positive(t, stopReasonIndex(s))
		require.LessOrEqual(t, operationIndex(Operation(s)), opOther)
	})
}

func TestOperationsAndIndexesAgree(t *testing.T) {
	t.Parallel()
	for i, op := range operations {
		require.EqualValues(t, i, operationIndex(op))
	}
}

func TestOnlyTheStandardLibraryAndTheOpenTelemetryAPIAreImported(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		source, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range source.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
				continue
			}
			require.Regexp(t, `^go\.opentelemetry\.io/otel($|/(attribute|codes|metric|trace)($|/noop$))`, path, file.Name())
		}
	}
}
