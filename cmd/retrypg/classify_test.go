package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/classify"
)

func TestClassifySaysWhatIsDoneWithEachError(t *testing.T) {
	r := tool(t, nil, "classify", "40P01", "unique_violation", "connection refused")
	require.Equal(t, 0, r.status, r.stderr)
	for _, says := range []string{
		"40P01 deadlock_detected\n", "run again from BEGIN after a backoff",
		"\n\n23505 unique_violation\n", "\n\nconnection refused\n", "while connecting",
	} {
		require.Contains(t, r.stdout, says)
	}
	require.Empty(t, r.stderr)
	require.NotContains(t, r.stdout, "\x1b", "no terminal, no sequences")
}

func TestClassifyPrintsJSON(t *testing.T) {
	r := tool(t, nil, "classify", "--json", "--severity", "fatal", "57P01", "EOF what")
	require.Equal(t, exitNotKnown, r.status)
	results := strictly[[]classify.Result](t, r.stdout)
	require.Len(t, results, 2)
	require.Equal(t, "57P01", results[0].SQLState)
	require.Len(t, results[0].Verdicts, 1)
	v := results[0].Verdicts[0]
	require.Equal(t, []string{"FATAL", "", "reconnect", "rolled_back"}, []string{v.Severity, v.Routine, v.Retry, v.Outcome})
	require.Equal(t, classify.Again, v.Actions.Transaction.Does)
	require.Equal(t, classify.Perhaps, v.Actions.Statement.Does)
	require.Contains(t, r.stdout, `"condition": "admin_shutdown"`)
	require.False(t, results[1].Known)
	require.NotContains(t, r.stdout, `"proxy"`)
}

func TestClassifyEndsWith1WhereNothingIsKnown(t *testing.T) {
	r := tool(t, nil, "classify", "deadlok_detected", "40001")
	require.Equal(t, exitNotKnown, r.status)
	require.Contains(t, r.stdout, "nearest    deadlock_detected\n")
	require.Contains(t, r.stdout, "40001 serialization_failure\n", "the others are printed all the same")
	require.Contains(t, r.stderr, `nothing is known of "deadlok_detected"`)
}

func TestWrongUsageOfClassifyEndsWith64(t *testing.T) {
	for says, args := range map[string][]string{
		"no error given":         {},
		"no error given:":        {""},
		`severity "LOUD"`:        {"--severity", "loud", "40001"},
		"has no routine":         {"--proxy", "--routine", "x", "40001"},
		"unknown flag: --colour": {"--colour", "40001"},
	} {
		r := tool(t, nil, append([]string{"classify"}, args...)...)
		require.Equal(t, exitUsage, r.status, r.stderr)
		require.Contains(t, r.stderr, says)
		require.Empty(t, r.stdout)
	}
}
