package reach_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

var chaosRuns = flag.Int("chaos.runs", 0, "how often TestChaos runs each situation with each client; 0 skips it")

// situation is a row of the table.
type situation struct {
	name  string // of the test, for -run TestChaos/name
	what  string
	reach string
	kinds []kind
	run   func(t *testing.T, k kind) *result
}

var situations = []situation{
	{
		"late", "server appears 4 s after the client: first success", "100 ms, 0 errors",
		slices.Concat(ours, plain),
		func(t *testing.T, k kind) *result { return appearsLate(t, k, 4*time.Second) },
	},
	{
		"waiters", "3 callers without deadline wait for a pool of 3, outage of 10 s: first / all", "together, 0 errors",
		slices.Concat(ours, plain),
		func(t *testing.T, k kind) *result { return waiters(t, k, 0, 10*time.Second) },
	},
	{
		"crash", "crash restart: first / all 8", "100 / 150 ms, 0 errors",
		slices.Concat(ours, withLedger, plain), crash,
	},
	{
		"failover", "failover to a synchronous standby: first / all 8", "100 / 150 ms, 0 errors",
		slices.Concat(ours, withLedger, plain), failover,
	},
	{
		"dark", "failover, old primary silent: first / all 8", "2 s, 0 errors",
		slices.Concat(ours, withLedger, plain), darkFailover,
	},
	{
		"demotion", "demotion with live connections: first / all 8", "150 ms, 0 times 25006",
		slices.Concat(ours, plain), demotion,
	},
	{
		"switchover", "switch-over, old primary comes back as a standby: first / all 8", "150 ms, 0 times 25006",
		slices.Concat(ours, plain), switchOver,
	},
	{
		"full", "server full for 5 s, 200 callers, pool of 40: first / 99 % served", "20 attempts/s, 400 ms, 0 errors",
		slices.Concat(ours, plain),
		func(t *testing.T, k kind) *result { return full(t, k, 5*time.Second) },
	},
	{
		"killer", "random backend terminated every 50 ms for 10 s", "p99 50 ms, throughput of the best, 0 errors",
		slices.Concat(ours, plain),
		func(t *testing.T, k kind) *result { return killer(t, k, 10*time.Second) },
	},
	{
		"hole", "black hole for 10 s, no deadline, then reset: first / all 8", "500 ms, none hangs",
		slices.Concat(ours, plain),
		func(t *testing.T, k kind) *result { return blackHole(t, k, false, 10*time.Second) },
	},
	{
		"silence", "black hole for 10 s, no deadline, connections silent for ever: first / all 8", "500 ms, none hangs",
		slices.Concat(ours, plain),
		func(t *testing.T, k kind) *result { return blackHole(t, k, true, 10*time.Second) },
	},
}

// TestChaos measures. It fails only where what we told was not true: what was reached is for the reader to judge.
func TestChaos(t *testing.T) {
	if *chaosRuns <= 0 {
		t.Skip("it measures: run it with make chaos")
	}
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, strings.Join(header, "\t"))
	for _, s := range situations {
		t.Run(s.name, func(t *testing.T) {
			for i, k := range s.kinds {
				row := s.measure(t, k)
				what, reach := "", ""
				if i == 0 {
					what, reach = s.what, s.reach
				}
				_, _ = fmt.Fprintln(table, strings.Join(append([]string{what, reach, k.name}, row.cells()...), "\t"))
				t.Logf("%s: %s: %v", s.name, k.name, row.cells())
			}
		})
	}
	_ = table.Flush() // it writes to memory
	t.Logf("%d runs each; times are medians, errors are sums\n%s", *chaosRuns, text.String())
}

// measure runs a situation with one client several times; once only with one of which somebody was not served again, as
// that takes long and is not different the next time.
func (s situation) measure(t *testing.T, k kind) (row row) {
	t.Helper()
	for n := range *chaosRuns {
		t.Run(fmt.Sprintf("%s %d", strings.ReplaceAll(k.name, "/", " "), n+1), func(t *testing.T) {
			r := s.run(t, k)
			if k.ours {
				r.sound(t)
			}
			row = append(row, r)
		})
		if len(row) > 0 && row[len(row)-1].back < row[len(row)-1].callers {
			break
		}
	}
	return row
}
