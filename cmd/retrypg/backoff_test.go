package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/backoff"
)

// strictly decodes the one JSON object of text, which must have no field that is not of T.
func strictly[T any](t *testing.T, text string) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&v), text)
	require.False(t, d.More())
	return v
}

func TestBackoffShowsThePolicyOfTransactionsWithEachJitter(t *testing.T) {
	r := tool(t, nil, "backoff", "--draws", "10")
	require.Equal(t, 0, r.status, r.stderr)
	for _, jitter := range []string{"none", "full", "equal", "decorrelated", "proportional:0.25"} {
		require.Contains(t, r.stdout, "exponential(5ms to 1s, x2, jitter "+jitter+")\n")
	}
	require.Contains(t, r.stdout, "10 attempts, each policy drawn 10 times, seed 1\n")
	require.Empty(t, r.stderr)
}

func TestBackoffPrintsJSONInSeconds(t *testing.T) {
	r := tool(t, nil, "backoff", "--kind", "linear,fixed", "--jitter", "none", "--initial", "100ms", "--increment", "50ms",
		"--attempts", "3", "--draws", "2", "--seed", "9", "--json")
	require.Equal(t, 0, r.status, r.stderr)
	report := strictly[backoff.Report](t, r.stdout)
	require.Equal(t, backoff.Report{Attempts: 3, Draws: 2, Seed: 9, Policies: []backoff.Sequence{
		{Policy: "linear(100ms to 1s, +50ms, jitter none)", Kind: "linear", Jitter: "none", Waits: []backoff.Wait{
			{After: 1, Shortest: 0.1, Mean: 0.1, Longest: 0.1, SumMean: 0.1, SumMax: 0.1},
			{After: 2, Shortest: 0.15, Mean: 0.15, Longest: 0.15, SumMean: 0.25, SumMax: 0.25},
		}},
		{Policy: "fixed(100ms, jitter none)", Kind: "fixed", Jitter: "none", Waits: []backoff.Wait{
			{After: 1, Shortest: 0.1, Mean: 0.1, Longest: 0.1, SumMean: 0.1, SumMax: 0.1},
			{After: 2, Shortest: 0.1, Mean: 0.1, Longest: 0.1, SumMean: 0.2, SumMax: 0.2},
		}},
	}}, report)
	require.Contains(t, r.stdout, `"sum_mean": 0.25`)
}

func TestAStormIsPrintedAsATableAndAsJSON(t *testing.T) {
	args := []string{"backoff", "storm", "--clients", "1000", "--initial", "50ms", "--seed", "3"}
	table := tool(t, nil, args...)
	require.Equal(t, 0, table.status, table.stderr)
	require.Contains(t, table.stdout, "1,000 clients fail together at 0 s; the server is back after 1s.")
	r := tool(t, nil, append(args, "--json")...)
	storm := strictly[backoff.Storm](t, r.stdout)
	require.Equal(t, 1000, storm.Clients)
	require.InDelta(t, 0.1, storm.Slot, 0)
	require.Len(t, storm.Policies, len(backoff.Jitters))
	for _, p := range storm.Policies {
		require.Equal(t, 1000, p.Served, p.Policy)
	}
	require.Equal(t, r, tool(t, nil, append(args, "--json")...), "the same seed")
}

func TestThePlotIsWrittenBesidesTheTable(t *testing.T) {
	for _, args := range [][]string{{"backoff", "--draws", "10"}, {"backoff", "storm"}} {
		file := filepath.Join(t.TempDir(), "plot.svg")
		r := tool(t, nil, append(args, "--plot", file)...)
		require.Equal(t, 0, r.status, r.stderr)
		require.NotEmpty(t, r.stdout)
		svg, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Contains(t, string(svg), "<svg")
		r = tool(t, nil, append(args, "--plot", filepath.Join(t.TempDir(), "missing", "plot.svg"))...)
		require.Equal(t, exitNotWritten, r.status)
		require.Contains(t, r.stderr, "write the plot")
	}
}

func TestWrongUsageOfBackoffEndsWith64(t *testing.T) {
	for says, args := range map[string][]string{
		"unexpected argument":    {"now"},
		`kind "cubic"`:           {"--kind", "cubic"},
		"give none, full":        {"--jitter", "some"},
		"needs a wait to grow":   {"--kind", "fixed", "--jitter", "decorrelated"},
		"must be positive":       {"--initial", "2s"},
		"1 attempts":             {"--attempts", "1"},
		".svg or .png":           {"--plot", "plot.gif"},
		"a storm has one":        {"storm", "--kind", "all"},
		"unexpected argument \"": {"storm", "now"},
		"0 clients":              {"storm", "--clients", "0"},
		"20 million attempts":    {"storm", "--kind", "fixed", "--jitter", "none", "--initial", "0"},
		"unknown flag: --fast":   {"--fast"},
	} {
		r := tool(t, nil, append([]string{"backoff"}, args...)...)
		require.Equal(t, exitUsage, r.status, "%v: %s", args, r.stderr)
		require.Contains(t, r.stderr, says)
		require.Empty(t, r.stdout)
	}
}
