//go:build observability

package observability_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) { pgt.Main(m) }

// TestEveryQueryOfTheDashboardAndOfTheAlertsFindsData runs the comparison and the endless load at the same time, with
// all faults of both, and asks a Prometheus for everything that is drawn and alerted on.
func TestEveryQueryOfTheDashboardAndOfTheAlertsFindsData(t *testing.T) {
	sink, traces := newTraceSink(t)
	c := newCollector(t, traces)
	p := newPrometheus(t, c)
	server := pgt.New(t, pgtest.Options{Fsync: true})
	keepUp(t, server)
	sampled := []string{"OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.02"}
	export := []string{"--otlp", c.otlp, "--otlp-interval", "500ms"}
	load := start(t, sampled, built(t, "retrypg"), slices.Concat([]string{"load", "--fault-every", "3s", server.DSN()}, export)...)
	demo := start(t, sampled, built(t, "retrypg"), slices.Concat([]string{"demo", "--report=", "--duration", "20s", "--workers", "4"}, export)...)

	loseCommits(t, server)
	require.Equal(t, 0, demo.exit(t), "the demo")
	d := readDashboard(t)
	var found []string
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			expr := chosen(target.Expr)
			var samples []sample
			eventually(t, func() (err error) {
				samples, err = p.query(expr)
				return plausible(panel, samples, err)
			})
			found = append(found, fmt.Sprintf("%-34s %-2s %s", panel.Title, target.RefID, shown(samples)))
			requireMetrics(t, p, target.Expr)
		}
	}
	t.Logf("the panels:\n%s", strings.Join(found, "\n"))

	for _, a := range d.Annotations.List {
		_, err := p.query(chosen(a.Expr))
		require.NoError(t, err, a.Name)
		requireMetrics(t, p, a.Expr)
	}
	for _, v := range d.Templating.List {
		requireChoices(t, p, v)
	}
	requireAlerts(t, p)
	for _, span := range []string{"retrypg.transaction", "retrypg.attempt", "service.name: Str(retrypg-load)", "service.name: Str(retrypg-demo)"} {
		sink.says(t, span)
	}
	require.NotContains(t, demo.stderr.String()+load.stderr.String(), "telemetry cannot be sent")
	require.NotContains(t, load.stdout.String(), "could not be caused")
}

// keepUp starts a server again whenever it has ended, as a container's restart policy does.
func keepUp(t *testing.T, server *pgtest.Cluster) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = server.StartAsync() // the queries would find out
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond): // the end of a server sends no event
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// loseCommits makes what the faults of the load make by chance only: commits that are done while nobody waits for the
// standby any more, and commits of which the server cannot tell, because it has crashed since.
func loseCommits(t *testing.T, server *pgtest.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	const waiting = "application_name = 'retrypg load' and wait_event = 'SyncRep'"
	lost := func(lose func() error) {
		eventually(t, func() error { return server.Set(ctx, "synchronous_standby_names", "nobody") })
		// The load may break the server meanwhile.
		eventually(t, func() error { return server.WaitUntil(ctx, "exists (select from pg_stat_activity where "+waiting+")") })
		eventually(t, lose)
		eventually(t, func() error { return server.Reset(ctx, "synchronous_standby_names") })
	}
	lost(func() error {
		n, err := server.TerminateBackends(ctx, waiting)
		if err == nil && n == 0 {
			err = fmt.Errorf("no commit waits for a standby")
		}
		return err
	})
	lost(func() error {
		text, err := server.Value(ctx, "select pid from pg_stat_activity where "+waiting+" limit 1")
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("no commit waits for a standby: %w", err)
		}
		return server.CrashBackend(pid)
	})
}

// chosen is an expression with everything chosen in the dashboard, as Grafana would send it for some minutes.
func chosen(expr string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$__range", "5m", "$job", ".*", "$server", ".*").Replace(expr)
}

// plausible returns an error unless there is a result that may be shown in the panel.
func plausible(p panel, samples []sample, err error) error {
	if err != nil {
		return err
	}
	finite := 0
	for _, s := range samples {
		if math.IsNaN(s.value) {
			continue // 0/0: nothing of the kind happened to this one within the last minute
		}
		finite++
		least, most := 0.0, 1e6
		switch defaults := p.FieldConfig.Defaults; {
		case defaults.Unit == "percentunit":
			most = 1
		case defaults.Unit == "s":
			most = 120
		case len(defaults.Mappings) > 0:
			if _, ok := defaults.Mappings[0].Options[strconv.FormatFloat(s.value, 'f', -1, 64)]; !ok {
				return fmt.Errorf("%s: %v is none of the states", p.Title, s.value)
			}
		}
		if s.value < least || s.value > most {
			return fmt.Errorf("%s: %v %v is not from %v to %v", p.Title, s.labels, s.value, least, most)
		}
	}
	if finite == 0 {
		return fmt.Errorf("%s: nothing is shown: %v", p.Title, samples)
	}
	return nil
}

// shown is a result in one line.
func shown(samples []sample) string {
	var text []string
	for _, s := range samples {
		if !math.IsNaN(s.value) {
			text = append(text, fmt.Sprintf("%s %.4g", strings.Join(slices.Sorted(maps.Values(s.labels)), "/"), s.value))
		}
	}
	slices.Sort(text)
	return strings.Join(text, ", ")
}

// requireMetrics requires that there is data of every metric in an expression: a part that is missing may be hidden by an
// "or".
func requireMetrics(t *testing.T, p prometheus, expr string) {
	t.Helper()
	names := metricNames(expr)
	require.NotEmpty(t, names, expr)
	for _, name := range names {
		eventually(t, func() error {
			samples, err := p.query("count({__name__=\"" + name + "\"})")
			if err == nil && len(samples) == 0 {
				err = fmt.Errorf("there is no metric %s", name)
			}
			return err
		})
	}
}

var (
	labelsOfMetrics = regexp.MustCompile(`\{[^}]*\}|\b(?:by|without) \([^)]*\)|#.*`) // and comments
	metricName      = regexp.MustCompile(`\b(?:retry|db)_\w+`)
)

// metricNames are those of our metrics in an expression.
func metricNames(expr string) []string {
	names := metricName.FindAllString(labelsOfMetrics.ReplaceAllString(expr, ""), -1)
	slices.Sort(names)
	return slices.Compact(names)
}

// requireChoices requires that a variable of the dashboard has something to choose.
func requireChoices(t *testing.T, p prometheus, v variable) {
	t.Helper()
	if v.Type != "query" {
		return
	}
	text := v.Query.(map[string]any)["query"].(string)
	parts := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(text)
	require.Len(t, parts, 3, text)
	samples, err := p.query("count by (" + parts[2] + ") (" + chosen(parts[1]) + ")")
	require.NoError(t, err)
	require.NotEmpty(t, samples, text)
	for _, s := range samples {
		require.NotEmpty(t, s.labels[parts[2]], text)
	}
	if v.Name == "job" {
		require.Len(t, samples, 2, "the two programs are told apart: %v", samples)
	}
}

// requireAlerts requires that Prometheus has evaluated every alert, that there is data of what it looks at, and that it
// says what to do.
func requireAlerts(t *testing.T, p prometheus) {
	t.Helper()
	rules, err := p.rules()
	require.NoError(t, err)
	require.NotEmpty(t, rules)
	var table []string
	for _, r := range rules {
		require.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], r.Name)
		for _, name := range []string{"summary", "description", "action"} {
			require.NotEmpty(t, r.Annotations[name], "%s has no %s", r.Name, name)
		}
		samples, err := p.query(r.Query)
		require.NoError(t, err, r.Name)
		table = append(table, fmt.Sprintf("%-26s %d now", r.Name, len(samples)))
		if r.Name != "RetrypgTelemetryDown" { // up is Prometheus' own
			requireMetrics(t, p, r.Query)
		}
	}
	t.Logf("the alerts, and of how many series they are true:\n%s", strings.Join(table, "\n"))
}

func TestEachAlertFiresOnWhatItIsForAndNotOnWhatIsLikeIt(t *testing.T) {
	promtool := installed(t, "promtool")
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"},
		{"check", "rules", "rules/retrypg.yml"},
		{"test", "rules", "rules/retrypg_test.yml"},
	} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Join(root, "deploy/prometheus")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "promtool %v: %s", args, out)
	}
	rules, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/rules/retrypg.yml"))
	require.NoError(t, err)
	tests, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/rules/retrypg_test.yml"))
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)- alert: (\w+)$`).FindAllStringSubmatch(string(rules), -1) {
		require.Contains(t, string(tests), `alertname="`+m[1]+`", alertstate="firing"`, "no test has it fire")
	}
}
