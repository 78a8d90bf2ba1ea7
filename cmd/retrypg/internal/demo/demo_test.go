package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) { pgt.Main(m) }

func TestDemoShowsThatRetrypgNeitherLosesNorDuplicatesNorDenies(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a PostgreSQL server, and -short was given")
	}
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })

	var progress strings.Builder
	report, err := Run(t.Context(), Options{Duration: 10 * time.Second, Workers: 4, Screen: NewScreen(&progress, terminal.Look{})})
	t.Log("\n" + progress.String())
	require.NoError(t, err)
	var table strings.Builder
	require.NoError(t, report.Write(&table, terminal.Look{}))
	t.Log("\n" + table.String())

	for _, p := range schedule {
		require.Contains(t, progress.String(), p.name)
	}
	require.Len(t, report.Programs, 3)
	require.Empty(t, report.Check())
	row := report.Programs[retrypgProgram]
	require.Equal(t, "retrypg", row.Name)
	require.Zero(t, row.Lost)
	require.Zero(t, row.Duplicated)
	require.Zero(t, row.FalseErrors)
	require.Zero(t, row.AccountsOff)
	require.True(t, row.Balanced)
	for _, row := range report.Programs {
		require.Equal(t, row.Asked, row.OK+row.Errors+row.Unknown, "each transfer of %s was answered", row.Name)
		require.Positive(t, row.OK, "%s", row.Name)
		require.Positive(t, row.Killed, "%s met the same faults", row.Name)
		require.Positive(t, row.CutBefore, "%s met the same faults", row.Name)
		require.Positive(t, row.CutAfter, "%s met the same faults", row.Name)
	}
	requireTimelineOf(t, report)
}

// requireTimelineOf requires that the timeline adds up to the report, and has all phases in their order.
func requireTimelineOf(t *testing.T, report *Report) {
	t.Helper()
	timeline := report.Timeline
	require.Len(t, timeline.Told, len(report.Programs))
	for i, row := range report.Programs {
		var sum Bucket
		for _, b := range timeline.Told[i] {
			sum = sum.merge(b)
		}
		require.Equal(t, [...]int{row.OK, row.Errors, row.Unknown}, [...]int{sum.OK, sum.Errors, sum.Unknown}, row.Name)
		require.InDelta(t, row.LongestGap, sum.Gap.Seconds(), 0, row.Name)
		require.Positive(t, sum.Slowest, row.Name)
	}
	require.Len(t, timeline.Phases, len(schedule))
	var clock time.Duration
	for i, p := range timeline.Phases {
		require.Equal(t, schedule[i].name, p.Name)
		require.LessOrEqual(t, clock, p.Begin)
		require.Less(t, p.Begin, p.End)
		clock = p.End
		if p.Name == "calm" {
			require.Zero(t, p.Fault)
			continue
		}
		require.LessOrEqual(t, p.Begin, p.Fault.Begin, p.Name)
		require.Less(t, p.Fault.Begin, p.Fault.End, p.Name)
		require.LessOrEqual(t, p.Fault.End, p.End, p.Name)
		for _, e := range p.Events {
			require.LessOrEqual(t, p.Begin, e.At, e.Text)
			require.LessOrEqual(t, e.At, p.End, e.Text)
		}
	}
	require.LessOrEqual(t, clock, timeline.Length)
}

func TestOptionsOutOfBoundsAreRefused(t *testing.T) {
	require.NoError(t, Options{}.Validate())
	require.NoError(t, Options{Duration: MinDuration, Workers: MaxWorkers}.Validate())
	require.ErrorContains(t, Options{Duration: MinDuration - 1}.Validate(), "too short")
	require.ErrorContains(t, Options{Duration: -time.Second}.Validate(), "too short")
	require.ErrorContains(t, Options{Workers: -1}.Validate(), "-1 workers")
	require.ErrorContains(t, Options{Workers: MaxWorkers + 1}.Validate(), "25 workers")
}
