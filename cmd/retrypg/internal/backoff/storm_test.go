package backoff

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

func storm(t *testing.T, jitters []string, s StormSettings) *Storm {
	t.Helper()
	result, err := SimulateStorm(policies(t, []string{"exponential"}, jitters), s)
	require.NoError(t, err)
	return result
}

func TestClientsWithoutJitterComeTogether(t *testing.T) {
	// Attempts at 0, 0.1, 0.3, 0.7, 1.5 s; the last one is served.
	s := storm(t, []string{"none"}, StormSettings{Clients: 10, Outage: time.Second})
	p := s.Policies[0]
	require.Equal(t, []int{10, 10, 0, 10, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 10}, p.PerSlot)
	require.Equal(t, 50, p.Attempts)
	require.Equal(t, 10, p.Peak)
	require.InDelta(t, 0.1, p.PeakAt, 1e-9)
	require.Equal(t, 10, p.ReturnPeak)
	require.Equal(t, 10, p.Served)
	require.Zero(t, p.GaveUp)
	require.InDelta(t, 1.5, p.LastServed, 1e-9)
}

func TestClientsThatGiveUpAreNotServed(t *testing.T) {
	p := storm(t, []string{"none"}, StormSettings{Clients: 10, Outage: time.Second, Attempts: 4}).Policies[0]
	require.Equal(t, 40, p.Attempts)
	require.Equal(t, 10, p.GaveUp)
	require.Zero(t, p.Served)
	require.Zero(t, p.LastServed)
	require.Zero(t, p.ReturnPeak)
}

func TestEveryAttemptIsCountedAndEveryClientEnds(t *testing.T) {
	for _, p := range storm(t, []string{All}, StormSettings{Clients: 1000, Outage: 2 * time.Second, Attempts: 8, Seed: 3}).Policies {
		sum := 0
		for _, n := range p.PerSlot {
			sum += n
		}
		require.Equal(t, p.Attempts, sum, p.Policy)
		require.Equal(t, 1000, p.Served+p.GaveUp, p.Policy)
	}
}

func TestJitterSpreadsTheReturn(t *testing.T) {
	s := storm(t, []string{"none", "full"}, StormSettings{Clients: 1000, Outage: 2 * time.Second, Seed: 1})
	require.Equal(t, 1000, s.Policies[0].ReturnPeak)
	require.Less(t, s.Policies[1].ReturnPeak, 300)
}

func TestTheSameSeedGivesTheSameStorm(t *testing.T) {
	run := func(seed uint64) *Storm {
		return storm(t, []string{All}, StormSettings{Clients: 100, Outage: time.Second, Seed: seed})
	}
	require.Equal(t, run(7), run(7))
	require.NotEqual(t, run(7).Policies, run(8).Policies)
}

func TestAStormIsBounded(t *testing.T) {
	for says, s := range map[string]StormSettings{
		"0 clients":       {Outage: 1},
		"100001 clients":  {Clients: 100_001, Outage: 1},
		"an outage of 0s": {Clients: 1},
		"at most 10m0s":   {Clients: 1, Outage: time.Hour},
		"1 attempts":      {Clients: 1, Outage: 1, Attempts: 1},
		"-1 attempts":     {Clients: 1, Outage: 1, Attempts: -1},
	} {
		_, err := SimulateStorm(policies(t, []string{"linear"}, []string{"none"}), s)
		require.ErrorContains(t, err, says)
	}
	endless := settings([]string{"fixed"}, []string{"none"})
	endless.Initial = 0
	p, err := endless.Policies()
	require.NoError(t, err)
	_, err = SimulateStorm(p, StormSettings{Clients: 1, Outage: 1})
	require.ErrorIs(t, err, errEndless)
}

func TestTheStormIsATable(t *testing.T) {
	var b strings.Builder
	s := storm(t, []string{"none"}, StormSettings{Clients: 1000, Outage: 250 * time.Millisecond, Attempts: 3})
	require.NoError(t, s.Write(&b, terminal.Look{}))
	require.Equal(t, `1,000 clients fail together at 0 s; the server is back after 250ms.
exponential(100ms to 1s, x2), with each jitter

attempts per 100 ms, from each time on
                    none
0.0 s              1,000
0.1 s              1,000
0.2 s                  0
0.3 s              1,000
------------------------
attempts           3,000
peak               1,000
at return          1,000
served by          300ms
gave up                0
peak: the most in one line but the first; at return: from the server's return on
`, b.String())
}
