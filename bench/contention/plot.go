package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Size of the picture of one scenario.
const (
	panelWidth  = 16 * vg.Centimeter
	panelHeight = 11 * vg.Centimeter
)

// draw draws the curves of the scenarios that have some, one above the other.
func (r report) draw(file string) error {
	var panels []*plot.Plot
	for _, m := range r.sections {
		p, err := m.panel()
		if err != nil {
			return fmt.Errorf("plot %s: %w", m.scenario.name, err)
		}
		if p != nil {
			panels = append(panels, p)
		}
	}
	height := panelHeight * vg.Length(max(1, len(panels)))
	canvas := vgsvg.New(panelWidth, height)
	whole := draw.New(canvas)
	for i, p := range panels {
		top := vg.Length(i) * panelHeight
		p.Draw(draw.Crop(whole, 0, 0, height-panelHeight-top, -top))
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil { //nolint:gosec // a picture for everybody
		return fmt.Errorf("write the plot: %w", err)
	}
	return nil
}

// panel draws the curves of a scenario; nil where it has none.
func (m matrix) panel() (*plot.Plot, error) {
	lines := make(map[string]plotter.XYs)
	var names []string
	for _, workers := range curve {
		for _, r := range m.cells[cell{workers: workers, processes: 1}] {
			if lines[r.name] == nil {
				names = append(names, r.name)
			}
			lines[r.name] = append(lines[r.name], plotter.XY{X: float64(workers), Y: r.rate})
		}
	}
	if len(names) == 0 || len(lines[names[0]]) < 2 {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = m.scenario.title, "workers", "commits per second"
	p.X.Scale = plot.LogScale{}
	ticks := make(plot.ConstantTicks, len(curve))
	for i, workers := range curve {
		ticks[i] = plot.Tick{Value: float64(workers), Label: fmt.Sprint(workers)}
	}
	p.X.Tick.Marker = ticks
	p.Y.Min = 0
	p.Legend.Top, p.BackgroundColor = true, color.White
	p.Legend.TextStyle.Font.Size = vg.Points(9)
	p.Add(plotter.NewGrid())
	highest := 0.0
	for i, name := range names {
		line, points, err := plotter.NewLinePoints(lines[name])
		if err != nil {
			return nil, err
		}
		line.Color, points.Color, points.Shape = plotutil.DarkColors[i%len(plotutil.DarkColors)], plotutil.DarkColors[i%len(plotutil.DarkColors)], plotutil.Shape(i)
		if strings.HasPrefix(name, ownName) {
			line.Width = vg.Points(2)
		} else {
			line.Dashes = plotutil.Dashes(1)
		}
		p.Add(line, points)
		p.Legend.Add(name, line, points)
		for _, at := range lines[name] {
			highest = max(highest, at.Y)
		}
	}
	p.Y.Max = 1.6 * highest // room for the legend
	return p, nil
}
