package sqlstate

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/sqlstate/gen"
)

func TestGeneratedTableIsUpToDate(t *testing.T) {
	source, err := os.ReadFile("sqlstate.tsv")
	require.NoError(t, err)
	want, err := gen.Render(source)
	require.NoError(t, err)
	have, err := os.ReadFile("table.go")
	require.NoError(t, err)
	require.Equal(t, string(want), string(have), "run go generate ./internal/sqlstate")
}

func TestTableHasAll264CodesAndEachIsFound(t *testing.T) {
	entries := Entries()
	require.Len(t, entries, 264)
	for _, e := range entries {
		found, ok := Lookup(e.Code)
		require.True(t, ok, e.Code)
		require.Equal(t, e, found)
		require.NotEmpty(t, e.Name, e.Code)
		require.NotEmpty(t, e.Class, e.Code)
		require.NotEmpty(t, e.Why, e.Code)
	}
}

func TestLookupFindsNothingElse(t *testing.T) {
	for _, code := range []string{"", "4", "40", "40000x", "40P0", "ZZZZZ", "00000 ", "\x00", "40p01"} {
		_, ok := Lookup(code)
		require.False(t, ok, "%q", code)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = Lookup("40P01") }))
}

func TestChangingEntriesLeavesTheTableAlone(t *testing.T) {
	Entries()[0].Name = "changed"
	e, _ := Lookup("00000")
	require.Equal(t, "successful_completion", e.Name)
}

// The rows on which the library acts, written down a second time: a change to one of them must be meant.
func TestRowsThatAllowARetry(t *testing.T) {
	want := map[string]string{
		"08000": "reconnect unknown", "08001": "wait not_started", "08003": "reconnect unknown",
		"08004": "wait not_started", "08006": "reconnect unknown", "08P01": "reconnect unknown",
		"25006": "failover rolled_back", "25P03": "reconnect rolled_back", "26000": "statement rolled_back",
		"40000": "transaction rolled_back", "40001": "transaction rolled_back", "40P01": "transaction rolled_back",
		"53000": "transaction rolled_back", "53200": "transaction rolled_back", "53300": "wait not_started",
		"55006": "transaction rolled_back", "55P03": "transaction rolled_back", "57P01": "reconnect rolled_back",
		"57P02": "reconnect unknown", "57P03": "wait not_started", "57P05": "reconnect not_started",
		"72000": "transaction rolled_back", "HV001": "transaction rolled_back", "HV00N": "transaction rolled_back",
	}
	retries := [...]string{"never", "statement", "transaction", "reconnect", "wait", "failover"}
	outcomes := [...]string{"unknown", "not_started", "rolled_back", "committed"}
	have := map[string]string{}
	for _, e := range Entries() {
		if e.Retry != Never {
			have[e.Code] = retries[e.Retry] + " " + outcomes[e.Outcome]
		}
	}
	require.Equal(t, want, have)
}

func TestRenderNamesTheLineItCannotRead(t *testing.T) {
	const head = "code\tcondition_name\tclass\tseverity\tretry\toutcome\twhy\n"
	const good = "40001\tserialization_failure\t40 - Transaction Rollback\tE\ttransaction\trolled_back\tbecause\n"
	_, err := gen.Render([]byte(head + good))
	require.NoError(t, err)
	for _, c := range []struct{ name, text, want string }{
		{"no header", good, "line 1"},
		{"missing column", head + "40001\tx\n", "line 2 has 2 columns"},
		{"twice", head + good + good, "line 3"},
		{"short code", head + strings.Replace(good, "40001", "4000", 1), "line 2"},
		{"wrong class", head + strings.Replace(good, "40 -", "41 -", 1), "line 2"},
		{"unknown retry", head + strings.Replace(good, "transaction\t", "sometimes\t", 1), "line 2"},
		{"unknown outcome", head + strings.Replace(good, "rolled_back", "gone", 1), "line 2"},
	} {
		_, err := gen.Render([]byte(c.text))
		require.ErrorContains(t, err, c.want, c.name)
	}
}
