//go:build observability

package observability_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// dashboard is what the tests look at of Grafana's model.
type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Templating    struct{ List []variable }
	Annotations   struct{ List []annotation }
	Panels        []panel
}

type annotation struct {
	Name, Expr string
	Datasource source
}

type variable struct {
	Name, Type string
	Query      any
	Datasource *source
	AllValue   string
}

type source struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               source
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct {
		Defaults struct {
			Unit     string
			Min, Max *float64
			Mappings []struct {
				Type    string
				Options map[string]any
			}
		}
	}
	Targets []target
}

type target struct {
	RefID, Expr, LegendFormat string
	Datasource                source
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/grafana/dashboards/retrypg.json"))
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

// grafanaColumns is the width of Grafana's grid.
const grafanaColumns = 24

func TestTheDashboardIsWellFormed(t *testing.T) {
	d := readDashboard(t)
	require.Equal(t, "retrypg", d.UID)
	require.GreaterOrEqual(t, d.SchemaVersion, 41)
	prometheus := source{"prometheus", "${datasource}"}
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
		if v.Type == "query" {
			require.Equal(t, &prometheus, v.Datasource, v.Name)
			require.Equal(t, ".*", v.AllValue, v.Name)
		}
	}
	require.Equal(t, []string{"datasource", "job", "server"}, names)

	ids := make(map[int]bool)
	cells := make(map[[2]int]string)
	titles := make(map[string]bool)
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], "two panels have the id %d", p.ID)
		ids[p.ID] = true
		require.NotEmpty(t, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, cells[[2]int{x, y}], "%q lies over another panel", p.Title)
				cells[[2]int{x, y}] = p.Title
			}
		}
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, grafanaColumns, p.Title)
		require.Positive(t, p.GridPos.W*p.GridPos.H, p.Title)
		if p.Type == "row" {
			continue
		}
		require.False(t, titles[p.Title+p.Type], "two panels are called %q", p.Title)
		titles[p.Title+p.Type] = true
		require.Greater(t, len(p.Description), 60, "%q says what it means and what to do", p.Title)
		require.Equal(t, prometheus, p.Datasource, p.Title)
		require.NotEmpty(t, p.FieldConfig.Defaults.Unit, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		refs := make(map[string]bool)
		for _, target := range p.Targets {
			require.False(t, refs[target.RefID], "%s: two targets are %s", p.Title, target.RefID)
			refs[target.RefID] = true
			require.NotEmpty(t, target.LegendFormat, p.Title)
			require.Equal(t, prometheus, target.Datasource, p.Title)
			require.Contains(t, target.Expr, `job=~"$job"`, p.Title)
			require.Contains(t, target.Expr, `server_address=~"$server"`, p.Title)
			require.Equal(t, strings.Count(target.Expr, "{"), strings.Count(target.Expr, `{job=~"$job",server_address=~"$server"`),
				"each selector of %q asks for the chosen services and servers", p.Title)
		}
	}
}
