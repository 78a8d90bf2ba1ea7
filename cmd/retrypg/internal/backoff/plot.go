package backoff

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	_ "gonum.org/v1/plot/vg/vgimg" // the format png
	_ "gonum.org/v1/plot/vg/vgsvg" // the format svg

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// PlotFormat returns the format of a file by its name.
func PlotFormat(file string) (string, error) {
	switch ext := strings.ToLower(filepath.Ext(file)); ext {
	case ".svg", ".png":
		return ext[1:], nil
	}
	return "", fmt.Errorf("plot into %q: give a file name that ends in .svg or .png", file)
}

// Size of a plot: that of a figure on a page.
const (
	plotWidth  = 20 * vg.Centimeter
	plotHeight = 12 * vg.Centimeter
)

// PlotFile draws the mean of each wait as a line, on a band from the shortest to the longest.
func (r *Report) PlotFile(file string) error {
	p := newPlot("Waits between attempts", "after attempt", "seconds")
	p.Legend.Left = true // the waits grow to the right
	for i, s := range r.Policies {
		mean := make(plotter.XYs, len(s.Waits))
		band := make(plotter.XYs, 2*len(s.Waits))
		for j, w := range s.Waits {
			x := float64(w.After)
			mean[j] = plotter.XY{X: x, Y: w.Mean}
			band[j] = plotter.XY{X: x, Y: w.Longest}
			band[len(band)-1-j] = plotter.XY{X: x, Y: w.Shortest}
		}
		area, err := plotter.NewPolygon(band)
		if err != nil {
			return fmt.Errorf("plot %s: %w", s.Policy, err)
		}
		area.Color, area.LineStyle.Width = translucent(plotutil.Color(i)), 0
		line, points, err := plotter.NewLinePoints(mean)
		if err != nil {
			return fmt.Errorf("plot %s: %w", s.Policy, err)
		}
		line.Color, points.Color = plotutil.Color(i), plotutil.Color(i)
		points.Shape = plotutil.Shape(i)
		p.Add(area, line, points)
		p.Legend.Add(s.Kind+", "+s.Jitter, line, points)
	}
	return save(p, file)
}

// PlotFile draws the attempts per slot as one line for each policy.
func (s *Storm) PlotFile(file string) error {
	title := fmt.Sprintf("%s clients after an outage of %s", terminal.Grouped(s.Clients), readable(s.Outage))
	p := newPlot(title, "seconds", "attempts per 100 ms")
	for i, sp := range s.Policies {
		steps := make(plotter.XYs, len(sp.PerSlot)+1)
		for slot, n := range sp.PerSlot {
			steps[slot] = plotter.XY{X: float64(slot) * s.Slot, Y: float64(n)}
		}
		steps[len(sp.PerSlot)] = plotter.XY{X: float64(len(sp.PerSlot)) * s.Slot}
		line, err := plotter.NewLine(steps)
		if err != nil {
			return fmt.Errorf("plot %s: %w", sp.Policy, err)
		}
		line.StepStyle, line.Color, line.Width = plotter.PostStep, plotutil.Color(i), vg.Points(1.5)
		p.Add(line)
		p.Legend.Add(sp.Jitter, line)
	}
	return save(p, file)
}

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Legend.Top = true
	p.BackgroundColor = color.White
	p.Y.Min = 0
	p.Add(plotter.NewGrid())
	return p
}

func translucent(c color.Color) color.Color {
	r, g, b, _ := c.RGBA()
	return color.NRGBA{R: uint8(r >> 8), G: uint8(g >> 8), B: uint8(b >> 8), A: 40}
}

// save writes the plot in one piece, in the format that the name of the file says.
func save(p *plot.Plot, file string) error {
	format, err := PlotFormat(file)
	if err != nil {
		return err
	}
	writer, err := p.WriterTo(plotWidth, plotHeight, format)
	if err != nil {
		return fmt.Errorf("plot into %q: %w", file, err)
	}
	var b bytes.Buffer
	if _, err := writer.WriteTo(&b); err != nil {
		return fmt.Errorf("plot into %q: %w", file, err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	return nil
}
