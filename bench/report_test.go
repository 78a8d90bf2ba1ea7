package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAReportHasItsMachineVersionsAndTables(t *testing.T) {
	r := report{
		machine: machine{
			date: "2026-01-02", cpu: "a processor", cores: 2, system: "linux/amd64", toolkit: "go1.26",
			versions: []string{"example.org/peer v1.2.3"},
		},
		rounds: 5, loadBefore: "0.10 0.20 0.30", loadAfter: "1.00 0.20 0.30", took: time.Minute,
		sections: []section{{
			group: group{title: "some work", work: "It is done.", aim: "none.", note: "Mind this.", base: "peer"},
			results: []result{
				{contender: contender{name: "peer"}, median: 1234, spread: 0.1, allocs: 3, ratio: 1, base: true},
				{contender: contender{name: "own"}, median: 12.34, spread: 0.01, ratio: 0.01, more: -1221.66},
			},
		}},
	}
	require.Equal(t, preface+`
Measured on 2026-01-02 with go1.26 on linux/amd64, a processor, 2 cores, in 1m0s, 5 turns each. Load averages: 0.10 0.20 0.30 before, 1.00 0.20 0.30 after.

| module | version |
|---|---|
| example.org/peer | v1.2.3 |

## Some work

It is done.

Aim: none.

Mind this.

|          |    time |    ± | allocations |    ratio |     more |
|----------|--------:|-----:|------------:|---------:|---------:|
| **peer** | 1.23 µs | 10 % |           3 | **1.00** |          |
| own      | 12.3 ns |  1 % |           0 |     0.01 | -1.22 µs |
`, r.markdown())
}

func TestAGroupThatCountsRoundTripsHasAColumnForThem(t *testing.T) {
	r := report{sections: []section{{
		group:   group{title: "far away", trips: func() int { return 0 }},
		results: []result{{contender: contender{name: "peer"}, median: 6.54e6, ratio: 1, base: true, trips: 3}},
	}}}
	require.Contains(t, r.markdown(), `
|          |    time |   ± | allocations |    ratio | round trips |
|----------|--------:|----:|------------:|---------:|------------:|
| **peer** | 6.54 ms | 0 % |           0 | **1.00** |           3 |
`)
}

func TestDurationsHaveThreeDigitsThatCount(t *testing.T) {
	for ns, want := range map[float64]string{
		0.284: "0.28 ns", 9.87: "9.87 ns", 98.76: "98.8 ns", 987.6: "988 ns", 9876: "9.88 µs", 98760: "98.8 µs", 987600: "988 µs", 6_000_000: "6.00 ms", 9_876_000: "9.88 ms", 15_000_000: "15.0 ms", 123_000_000: "123 ms",
	} {
		require.Equal(t, want, duration(ns))
	}
	require.Equal(t, "+1.50 ns", signed(1.5))
	require.Equal(t, "-150 ns", signed(-150))
}

func TestEveryModuleOfContendersIsInTheBuild(t *testing.T) {
	versions := thisMachine().versions
	if len(versions) == 0 {
		t.Log("this binary does not know its modules")
		return
	}
	require.Len(t, versions, len(contenderModules))
}

func TestAGroupIsFoundByAPartOfItsTitle(t *testing.T) {
	all := []group{{title: "breaker, open"}, {title: "breaker, closed"}, {title: "budget"}}
	found, err := selected(all, "breaker")
	require.NoError(t, err)
	require.Len(t, found, 2)
	_, err = selected(all, "nothing")
	require.Error(t, err)
}
