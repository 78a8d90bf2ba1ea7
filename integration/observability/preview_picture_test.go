//go:build observability

package observability_test

import (
	"encoding/json"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// previewStep is the time between two points of the picture.
const previewStep = time.Second

// picture is what preview.js draws.
type picture struct {
	Dashboard dashboard                   `json:"-"`
	Model     json.RawMessage             `json:"dashboard"` // as Grafana gets it
	Answers   map[int]map[string][]series `json:"answers"`   // by the panel's ID and the target's refId
	Away      []series                    `json:"away"`      // of the annotation
	Seconds   float64                     `json:"seconds"`
	Step      float64                     `json:"step"`
}

// series is one element of a range vector.
type series struct {
	Metric map[string]string `json:"metric"`
	Points []point           `json:"points"`
}

// point is the number of a step, and a value, which is finite.
type point [2]float64

// newPicture asks everything that the dashboard asks.
func newPicture(t *testing.T, p prometheus, began time.Time, span time.Duration) picture {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, dashboardFile))
	require.NoError(t, err)
	pic := picture{
		Dashboard: readDashboard(t), Model: text, Answers: make(map[int]map[string][]series),
		Seconds: span.Seconds(), Step: previewStep.Seconds(),
	}
	ask := func(expr string) []series {
		// 20s: what Grafana makes of the scrape interval of docker-compose.yml.
		found, err := p.queryRange(chosenFor(expr, "20s", span.String()), began, span)
		require.NoError(t, err)
		return found
	}
	for _, panel := range pic.Dashboard.Panels {
		pic.Answers[panel.ID] = make(map[string][]series)
		for _, target := range panel.Targets {
			pic.Answers[panel.ID][target.RefID] = ask(target.Expr)
		}
	}
	for _, a := range pic.Dashboard.Annotations.List {
		pic.Away = append(pic.Away, ask(a.Expr)...)
	}
	return pic
}

func (pic picture) hasData(p panel) bool {
	for _, found := range pic.Answers[p.ID] {
		for _, s := range found {
			if len(s.Points) > 0 {
				return true
			}
		}
	}
	return false
}

// queryRange returns the results of an expression at each step of a time.
func (p prometheus) queryRange(expr string, began time.Time, span time.Duration) ([]series, error) {
	seconds := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
	var data struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	err := p.ask("/api/v1/query_range", url.Values{
		"query": {expr}, "start": {seconds(began)}, "end": {seconds(began.Add(span))}, "step": {previewStep.String()},
	}, &data)
	var found []series
	for _, r := range data.Result {
		s := series{Metric: r.Metric}
		for _, v := range r.Values {
			value, err := strconv.ParseFloat(v[1].(string), 64)
			if err != nil {
				return nil, err
			}
			if math.IsNaN(value) || math.IsInf(value, 0) {
				continue // a gap: 0/0
			}
			at := time.UnixMilli(int64(math.Round(v[0].(float64) * 1000)))
			s.Points = append(s.Points, point{math.Round(at.Sub(began).Seconds() / previewStep.Seconds()), value})
		}
		found = append(found, s)
	}
	return found, err
}
