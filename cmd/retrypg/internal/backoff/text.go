package backoff

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// WriteJSON writes v, a Report or a Storm, as one JSON object.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Write writes one table for each policy, at most 80 columns wide.
func (r *Report) Write(w io.Writer, look terminal.Look) error {
	var b strings.Builder
	for i, s := range r.Policies {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s\n", look.Bold(s.Policy))
		b.WriteString(look.Dim(fmt.Sprintf("%-14s%12s%12s%12s%14s%14s", "after attempt", "shortest", "mean", "longest", "sum, mean", "sum, most")) + "\n")
		for _, wait := range s.Waits {
			fmt.Fprintf(&b, "%-14d%12s%12s%12s%14s%14s\n", wait.After, readable(wait.Shortest), readable(wait.Mean),
				readable(wait.Longest), readable(wait.SumMean), readable(wait.SumMax))
		}
	}
	fmt.Fprintf(&b, "\n%s\n", look.Dim(fmt.Sprintf("%d attempts, each policy drawn %s times, seed %d", r.Attempts, terminal.Grouped(r.Draws), r.Seed)))
	_, err := io.WriteString(w, b.String())
	return err
}

// stormColumn is the width of one policy's column: with five of them and the time a line has 80 columns.
const stormColumn = 14

// Write writes one column for each policy.
func (s *Storm) Write(w io.Writer, look terminal.Look) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s clients fail together at 0 s; the server is back after %s.\n", terminal.Grouped(s.Clients), readable(s.Outage))
	for _, p := range s.Policies[:1] {
		fmt.Fprintf(&b, "%s, with each jitter\n", strings.Replace(p.Policy, ", jitter "+p.Jitter, "", 1))
	}
	line := func(label string, value func(StormPolicy) string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "%-10s", label)
		for _, p := range s.Policies {
			fmt.Fprintf(&b, "%*s", stormColumn, value(p))
		}
		return b.String() + "\n"
	}
	b.WriteString("\n" + look.Dim("attempts per 100 ms, from each time on") + "\n")
	b.WriteString(look.Bold(strings.TrimSuffix(line("", func(p StormPolicy) string { return shortened(p.Jitter) }), "\n")) + "\n")
	slots := 0
	for _, p := range s.Policies {
		slots = max(slots, len(p.PerSlot))
	}
	for slot := range slots {
		at := time.Duration(slot) * Slot
		b.WriteString(line(fmt.Sprintf("%.1f s", at.Seconds()), func(p StormPolicy) string {
			if slot >= len(p.PerSlot) {
				return "."
			}
			return terminal.Grouped(p.PerSlot[slot])
		}))
	}
	b.WriteString(strings.Repeat("-", 10+stormColumn*len(s.Policies)) + "\n")
	b.WriteString(line("attempts", func(p StormPolicy) string { return terminal.Grouped(p.Attempts) }))
	b.WriteString(line("peak", func(p StormPolicy) string { return terminal.Grouped(p.Peak) }))
	b.WriteString(line("at return", func(p StormPolicy) string { return terminal.Grouped(p.ReturnPeak) }))
	b.WriteString(line("served by", func(p StormPolicy) string { return readable(p.LastServed) }))
	if s.Attempts > 0 {
		b.WriteString(line("gave up", func(p StormPolicy) string { return terminal.Grouped(p.GaveUp) }))
	}
	b.WriteString(look.Dim("peak: the most in one line but the first; at return: from the server's return on") + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// shortened makes the name of a jitter fit its column.
func shortened(jitter string) string {
	return strings.Replace(jitter, "proportional", "prop", 1)
}

// readable writes seconds with three digits that count.
func readable(seconds float64) string {
	d := time.Duration(math.Round(seconds * float64(time.Second)))
	for unit := time.Duration(1); unit < time.Hour; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit).String()
		}
	}
	return d.String()
}
