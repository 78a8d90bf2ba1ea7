//go:build observability

package observability_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rare are the beginnings of the metrics that count what a program may meet once in its life. Their counters are born with
// their first value, which rate and increase do not see.
var rare = []string{
	"retry_admission_wait_duration", "retry_commit_checks", "retry_commit_unreplicated", "retry_connect_wait_duration",
	"retry_evictions", "retry_outage_duration",
}

// sinceStart is the one panel that shows such counters as they are.
const sinceStart = "Commits unknown or not replicated"

// ruleTest is a test of promtool's.
type ruleTest struct {
	Name        string       `json:"name"`
	Interval    string       `json:"interval"`
	InputSeries []ruleSeries `json:"input_series"`
	Expressions []ruleExpr   `json:"promql_expr_test"`
}

type ruleSeries struct {
	Series string `json:"series"`
	Values string `json:"values"`
}

type ruleExpr struct {
	Expr     string       `json:"expr"`
	EvalTime string       `json:"eval_time"`
	Samples  []ruleSample `json:"exp_samples"`
}

type ruleSample struct {
	Labels string  `json:"labels"`
	Value  float64 `json:"value"`
}

// TestThePanelsOfRareEventsShowTheFirst has each such counter appear after ten minutes, with a value that does not change
// any more.
func TestThePanelsOfRareEventsShowTheFirst(t *testing.T) {
	var tests []ruleTest
	tested := make(map[string]bool)
	for _, panel := range readDashboard(t).Panels {
		for _, target := range panel.Targets {
			series, isRare := bornLate(target.Expr, tested)
			if !isRare {
				continue
			}
			shown := "(" + chosen(target.Expr) + ") > 0"
			once := ruleTest{Name: panel.Title + " " + target.RefID, Interval: "15s", InputSeries: series}
			once.Expressions = []ruleExpr{{Expr: "count(" + shown + ")", EvalTime: "10m30s", Samples: []ruleSample{{"{}", 1}}}}
			if panel.Title != sinceStart {
				once.Expressions = append(once.Expressions, ruleExpr{Expr: shown, EvalTime: "30m", Samples: []ruleSample{}})
			}
			tests = append(tests, once)
		}
	}
	for _, name := range rare {
		require.True(t, tested[name], "no panel shows %s", name)
	}
	text, err := json.Marshal(map[string]any{"tests": tests}) // which is YAML, too
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "dashboard_test.yml")
	require.NoError(t, os.WriteFile(file, text, 0o644))
	out, err := exec.Command(installed(t, "promtool"), "test", "rules", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// bornLate returns series of all metrics in an expression, of which the rare ones begin late, and whether there are any of
// these, which it notes in tested.
func bornLate(expr string, tested map[string]bool) (series []ruleSeries, isRare bool) {
	for _, name := range metricNames(expr) {
		values := "1x160"
		for _, begin := range rare {
			if strings.HasPrefix(name, begin) {
				values, isRare, tested[begin] = "_x40 1x120", true, true
			}
		}
		labels := []string{`retry_commit_outcome="unknown"`}
		if strings.HasSuffix(name, "_bucket") {
			labels = []string{`le="1"`, `le="+Inf"`}
		}
		for _, label := range labels {
			series = append(series, ruleSeries{name + `{job="shop",server_address="db1",` + label + `}`, values})
		}
	}
	return series, isRare
}
