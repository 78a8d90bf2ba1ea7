package backoff

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func plotted(t *testing.T, plot func(file string) error, name string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, plot(file))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return text
}

func TestPlotsAreWellFormedAndNameEachPolicy(t *testing.T) {
	r, err := Sequences(policies(t, []string{"exponential"}, []string{All}), 5, 10, 1)
	require.NoError(t, err)
	s := storm(t, []string{All}, StormSettings{Clients: 100, Outage: time.Second})
	for _, plot := range []func(string) error{r.PlotFile, s.PlotFile} {
		svg := plotted(t, plot, "plot.SVG")
		for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
			if _, err := d.Token(); err != nil {
				require.True(t, errors.Is(err, io.EOF), err)
				break
			}
		}
		for _, name := range []string{"none", "full", "equal", "decorrelated", "proportional:0.25", "seconds"} {
			require.Contains(t, string(svg), name)
		}
		image, err := png.Decode(bytes.NewReader(plotted(t, plot, "plot.png")))
		require.NoError(t, err)
		require.Greater(t, image.Bounds().Dx(), image.Bounds().Dy())
		require.Error(t, plot(filepath.Join(t.TempDir(), "missing", "plot.svg")))
	}
}

func TestAPlotIsSVGOrPNG(t *testing.T) {
	for _, file := range []string{"plot", "plot.pdf", "svg"} {
		_, err := PlotFormat(file)
		require.ErrorContains(t, err, ".svg or .png")
	}
}
