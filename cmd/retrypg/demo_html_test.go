package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
)

// shortRun is a report that an HTML file can be made of.
func shortRun() *demo.Report {
	return &demo.Report{
		Programs: []demo.Row{{Name: "retrypg"}},
		Timeline: &demo.Timeline{Width: time.Second, Length: time.Second, Told: [][]demo.Bucket{{{OK: 1}}}},
	}
}

// shownHTML returns what showHTML says.
func shownHTML(t *testing.T, path string, asked bool) (string, error) {
	t.Helper()
	var out strings.Builder
	err := showHTML(&out, path, asked, shortRun())
	return out.String(), err
}

func TestTheHTMLReportIsWrittenAgainInTheSamePlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not there yet")
	path := filepath.Join(dir, "report.html")
	for range 2 {
		out, err := shownHTML(t, path, false)
		require.NoError(t, err)
		require.Equal(t, "\nreport: "+fileURL(path)+"\n", out)
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
}

func TestAnEmptyNameMeansNoHTMLReport(t *testing.T) {
	out, err := shownHTML(t, "", true)
	require.NoError(t, err)
	require.Empty(t, out)
}

func TestOnlyAnHTMLReportThatWasAskedForMustBeWritten(t *testing.T) {
	taken := t.TempDir() // a directory is where the file should be
	_, err := shownHTML(t, taken, true)
	require.ErrorContains(t, err, taken)
	out, err := shownHTML(t, taken, false)
	require.NoError(t, err)
	require.Contains(t, out, "report: none: ")

	require.NoError(t, os.WriteFile(filepath.Join(taken, "file"), nil, 0o600))
	out, err = shownHTML(t, filepath.Join(taken, "file", "report.html"), false)
	require.NoError(t, err)
	require.Contains(t, out, "report: none, as its directory cannot be made: ")
}

func TestThereIsADefaultForTheHTMLReportWhereTheSystemNamesAPlace(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", "")
	require.True(t, strings.HasPrefix(defaultHTML(), home), defaultHTML())
	t.Setenv("HOME", "")
	require.Empty(t, defaultHTML())
}

func TestTheURLOfAFileIsEscaped(t *testing.T) {
	require.Equal(t, "file:///home/a%20b/100%25%23.html", fileURL("/home/a b/100%#.html"))
	require.Equal(t, "file:///C:/report.html", fileURL("C:/report.html"))
}
