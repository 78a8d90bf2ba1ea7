package retrypg

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/metrics"
)

const (
	dashboardFile = "deploy/grafana/dashboards/retrypg.json"
	alertsFile    = "deploy/prometheus/rules/retrypg.yml"
)

// inPrometheus returns the names that an instrument has there (docs/observability.md, Names in Prometheus).
func inPrometheus(in metrics.Instrument) []string {
	name := strings.ReplaceAll(in.Name, ".", "_")
	if in.Unit == "s" {
		name += "_seconds"
	}
	switch in.Kind {
	case metrics.KindCounter:
		return []string{name + "_total"}
	case metrics.KindHistogram:
		return []string{name + "_bucket", name + "_sum", name + "_count"}
	}
	return []string{name}
}

var (
	groupedBy  = regexp.MustCompile(`\b(?:by|without) \([^)]*\)`)
	metricUsed = regexp.MustCompile(`\b((?:retry|db)_\w+)(?:\{([^}]*)\})?`)
	labelUsed  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
)

// metricsUsed are the metrics in expressions of Prometheus, each with the labels that it is selected by.
func metricsUsed(expressions string) map[string][]string {
	used := make(map[string][]string)
	for _, m := range metricUsed.FindAllStringSubmatch(groupedBy.ReplaceAllString(expressions, ""), -1) {
		selected := used[m[1]]
		for _, l := range labelUsed.FindAllStringSubmatch(m[2], -1) {
			selected = append(selected, l[1])
		}
		used[m[1]] = selected
	}
	return used
}

// dashboardExpressions returns all queries of the dashboard.
func dashboardExpressions(t *testing.T) string {
	t.Helper()
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	require.NoError(t, json.Unmarshal([]byte(readDoc(t, dashboardFile)), &d))
	var all []string
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	return strings.Join(all, "\n")
}

// alertExpressions returns the queries of the alerts: without their comments.
func alertExpressions(t *testing.T) string {
	t.Helper()
	text := regexp.MustCompile(`(?m)#.*$`).ReplaceAllString(readDoc(t, alertsFile), "")
	found := regexp.MustCompile(`(?s)\n        expr:(.*?)\n        (?:for|labels):`).FindAllStringSubmatch(text, -1)
	require.Len(t, found, strings.Count(text, "- alert: "))
	var all []string
	for _, m := range found {
		all = append(all, m[1])
	}
	return strings.Join(all, "\n")
}

func TestTheDashboardAndTheAlertsAskForMetricsAndLabelsThatExist(t *testing.T) {
	labels := make(map[string][]string)
	for _, in := range metrics.Instruments() {
		has := []string{"job", "instance", "server_address", "server_port"}
		for _, a := range in.Attributes {
			has = append(has, strings.ReplaceAll(string(a), ".", "_"))
		}
		for _, name := range inPrometheus(in) {
			labels[name] = has
		}
	}
	for file, expressions := range map[string]string{dashboardFile: dashboardExpressions(t), alertsFile: alertExpressions(t)} {
		used := metricsUsed(expressions)
		require.NotEmpty(t, used, file)
		for name, selected := range used {
			if strings.HasPrefix(name, "db_sql_connection_") {
				continue // otelsql's
			}
			require.NotNil(t, labels[name], "%s asks for %s, which is no metric", file, name)
			require.Subset(t, labels[name], selected, "%s: what %s is selected by", file, name)
		}
	}
}

func TestTheDashboardShowsEveryMetric(t *testing.T) {
	used := metricsUsed(dashboardExpressions(t))
	for _, in := range metrics.Instruments() {
		if strings.HasPrefix(in.Name, "db.client.connection.") {
			continue // of a Pool: the panels of the pool are of database/sql's
		}
		shown := false
		for _, name := range inPrometheus(in) {
			_, isUsed := used[name]
			shown = shown || isUsed
		}
		require.True(t, shown, "no panel shows %s", in.Name)
	}
}
