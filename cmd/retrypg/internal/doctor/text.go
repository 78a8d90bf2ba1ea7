package doctor

import (
	"fmt"
	"io"
	"strings"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// indent is where the text of a finding begins.
const indent = 12

// Write writes the report for people.
func (r *Report) Write(w io.Writer, look terminal.Look) error {
	var b strings.Builder
	for _, h := range r.Hosts {
		b.WriteString(look.Bold(h.title()) + "\n")
		writeFindings(&b, look, h.Findings)
		b.WriteByte('\n')
	}
	b.WriteString(look.Bold("DSN") + "\n")
	writeFindings(&b, look, r.Findings)
	if len(r.Changes) > 0 {
		fmt.Fprintf(&b, "\n%s\n  %s\n", look.Bold("suggested DSN"), r.Suggested)
		for _, c := range r.Changes {
			fmt.Fprintf(&b, "%*s%s=%s: %s\n", indent, "", c.Key, c.Value, c.Why)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// title names a host with what it is.
func (h *Host) title() string {
	title := hostConfig{name: h.Host, port: h.Port}.String()
	if !h.Reachable {
		return title + "  not reached"
	}
	title += "  " + strings.TrimSpace(h.Kind+" "+h.Version)
	if h.Role != "" {
		title += ", " + h.Role
	}
	if h.Pooler {
		title += ", behind a pooler"
	}
	return title
}

func writeFindings(b *strings.Builder, look terminal.Look, findings []Finding) {
	for _, f := range findings {
		label := fmt.Sprintf("  %-*s", indent-2, f.Level)
		switch f.Level {
		case OK:
			label = look.Good(label)
		case Warning:
			label = look.Warning(label)
		case Problem:
			label = look.Bad(label)
		}
		for _, line := range terminal.Wrap(f.Check+": "+f.Text, look.Columns()-indent) {
			b.WriteString(label + line + "\n")
			label = strings.Repeat(" ", indent)
		}
		for _, line := range terminal.Wrap(f.Advice, look.Columns()-indent-2) {
			b.WriteString(strings.Repeat(" ", indent+2) + look.Dim(line) + "\n")
		}
	}
}
