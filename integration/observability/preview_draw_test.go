//go:build observability

package observability_test

import (
	_ "embed" // the parts of the page
	"html/template"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	//go:embed preview/preview.html.tmpl
	previewLayout string
	//go:embed preview/preview.css
	previewStyle string
	//go:embed preview/preview.js
	previewScript string
)

// draw writes a page with the picture, and a screenshot of it to a PNG file.
func draw(t *testing.T, pic picture, file string) {
	t.Helper()
	vendored := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, "cmd/retrypg/internal/htmlreport/uplot", name))
		require.NoError(t, err)
		return string(text)
	}
	page, err := filepath.Abs(filepath.Join(root, ".cache/dashboard.html"))
	require.NoError(t, err)
	f, err := os.Create(page)
	require.NoError(t, err)
	require.NoError(t, template.Must(template.New("").Parse(previewLayout)).Execute(f, map[string]any{
		"Picture": pic,
		"Styles":  template.CSS(vendored("uPlot.min.css") + previewStyle),
		"Charts":  template.JS(vendored("uPlot.iife.min.js")),
		"Script":  template.JS(previewScript),
	}))
	require.NoError(t, f.Close())

	bottom := 0
	for _, p := range pic.Dashboard.Panels {
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
	}
	require.NoError(t, os.RemoveAll(file)) // an older one would hide that none is written
	document := screenshot(t, page, file, previewWidth, previewTop+bottom*previewRow)
	require.Equal(t, len(pic.Dashboard.Panels), strings.Count(document, `data-drawn=`), "every panel is drawn")
	require.FileExists(t, file)
}

// Pixels; preview.css has the same numbers.
const (
	previewWidth = 1400
	previewTop   = 46 // the header and the margins
	previewRow   = 28 // a row of Grafana's grid
)

// screenshot writes what a browser shows of a page, and returns the document that its scripts have made.
func screenshot(t *testing.T, page, file string, width, height int) string {
	t.Helper()
	args := []string{
		"--headless", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(), "--timeout=20000",
		"--window-size=" + strconv.Itoa(width) + "," + strconv.Itoa(height), "--screenshot=" + file, "--dump-dom", "file://" + page,
	}
	if os.Geteuid() == 0 {
		args = append([]string{"--no-sandbox"}, args...) // else it does not start as root
	}
	browser := exec.CommandContext(t.Context(), chromium(t), args...)
	var complaints strings.Builder
	browser.Stderr = &complaints
	document, err := browser.Output()
	require.NoError(t, err, "%s", &complaints)
	return string(document)
}

// chromium is the path of the browser.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	require.Fail(t, "there is no chromium, chromium-browser or google-chrome: install one")
	return ""
}
