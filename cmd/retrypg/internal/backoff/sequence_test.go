package backoff

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

func TestTheTableHasTheWaitsOfThePolicy(t *testing.T) {
	r, err := Sequences(policies(t, []string{"exponential"}, []string{"none"}), 6, 3, 1)
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, r.Write(&b, terminal.Look{}))
	require.Equal(t, `exponential(100ms to 1s, x2, jitter none)
after attempt     shortest        mean     longest     sum, mean     sum, most
1                    100ms       100ms       100ms         100ms         100ms
2                    200ms       200ms       200ms         300ms         300ms
3                    400ms       400ms       400ms         700ms         700ms
4                    800ms       800ms       800ms          1.5s          1.5s
5                       1s          1s          1s          2.5s          2.5s

6 attempts, each policy drawn 3 times, seed 1
`, b.String())
}

func TestTheSameSeedGivesTheSameSequence(t *testing.T) {
	all := policies(t, []string{All}, []string{"full", "equal", "decorrelated", "proportional"})
	run := func(seed uint64) *Report {
		r, err := Sequences(all, 5, 20, seed)
		require.NoError(t, err)
		return r
	}
	require.Equal(t, run(7), run(7))
	require.NotEqual(t, run(7).Policies, run(8).Policies)
}

func TestTheSumOfTheMeansIsTheMeanOfTheSums(t *testing.T) {
	r, err := Sequences(policies(t, []string{"linear"}, []string{"full"}), 8, 100, 1)
	require.NoError(t, err)
	sum := 0.0
	for i, w := range r.Policies[0].Waits {
		sum += w.Mean
		require.Equal(t, i+1, w.After)
		require.InDelta(t, sum, w.SumMean, 1e-9)
		require.LessOrEqual(t, w.SumMean, w.SumMax)
	}
}

func TestSequencesAreBounded(t *testing.T) {
	for says, given := range map[string][2]int{"1 attempts": {1, 1}, "1001 attempts": {1001, 1}, "0 draws": {2, 0}, "1000001 draws": {2, 1_000_001}} {
		_, err := Sequences(nil, given[0], given[1], 1)
		require.ErrorContains(t, err, says)
	}
}

func TestTablesFitAStandardTerminalAndColoursDoNotMoveColumns(t *testing.T) {
	r, err := Sequences(policies(t, []string{All}, []string{All}), 12, 10, 1)
	require.NoError(t, err)
	storm, err := SimulateStorm(policies(t, []string{"exponential"}, []string{All}), StormSettings{Clients: 100_000, Outage: 3e9, Attempts: 5})
	require.NoError(t, err)
	for _, write := range []func(io.Writer, terminal.Look) error{r.Write, storm.Write} {
		var plain, painted strings.Builder
		require.NoError(t, write(&plain, terminal.Look{}))
		require.NoError(t, write(&painted, terminal.Look{Color: true}))
		for _, line := range strings.Split(plain.String(), "\n") {
			require.LessOrEqual(t, len(line), 80, line)
		}
		require.NotContains(t, plain.String(), "\x1b")
		bare := painted.String()
		for _, s := range terminal.Sequences() {
			bare = strings.ReplaceAll(bare, s, "")
		}
		require.NotEqual(t, painted.String(), bare)
		require.Equal(t, plain.String(), bare)
	}
}

func TestDurationsHaveThreeDigitsThatCount(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "0s", 1e-9: "1ns", 0.0000005489: "549ns", 0.0024987: "2.5ms", 0.1234567: "123ms", 1: "1s", 59.96: "1m0s", 12.3456: "12.3s",
	} {
		require.Equal(t, want, readable(seconds))
	}
}
