// Package htmlreport writes what a run of the demo has shown as one HTML file, with charts over time. The file loads
// nothing and its policy forbids that it does: it can be sent, kept, and opened without a network.
package htmlreport

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the parts of the file
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
)

var (
	//go:embed report.html.tmpl
	layout string
	//go:embed report.css
	style string
	//go:embed report.js
	script string
	//go:embed uplot/uPlot.iife.min.js
	chartScript string
	//go:embed uplot/uPlot.min.css
	chartStyle string
	//go:embed uplot/LICENSE
	chartLicence string
)

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{"mark": class}).Parse(layout))

// class is the CSS class of a mark.
func class(m demo.Mark) string {
	switch m {
	case demo.Good:
		return "good"
	case demo.Bad:
		return "bad"
	}
	return ""
}

// Write writes the report, which must have a timeline. It says what program and machine it was made with.
func Write(w io.Writer, report *demo.Report, env Environment) error {
	if report.Timeline == nil {
		return errors.New("the report has no timeline: it was not made by a run of the demo")
	}
	var b bytes.Buffer
	if err := reportTemplate.Execute(&b, newDocument(report, env)); err != nil {
		return fmt.Errorf("make the HTML report: %w", err)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// policy allows the one style and the one script that are in the file, and no request at all.
func policy(style, script string) string {
	return fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; base-uri 'none'; form-action 'none'", source(style), source(script))
}

// source names an inline text by its hash, as Content Security Policy Level 3 does.
func source(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
