//go:build observability

package observability_test

import (
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

var preview = flag.String("observability.preview", "", "PNG file that a picture of the dashboard is written to; empty: none is made")

const (
	previewAfter  = 25 * time.Second  // of the load: what is shown begins, as all rates have their window by then
	previewFor    = 170 * time.Second // what is shown: two rounds of the four faults
	previewFaults = 20 * time.Second  // how often something breaks
	previewAway   = 6 * time.Second   // how long the server is away after it was shut down: long enough to be seen
)

// previewLost is when commits are lost, between two faults.
var previewLost = []time.Duration{42 * time.Second, 107 * time.Second}

// TestThePreviewHasDataInEveryPanel makes docs/dashboard.png: what the dashboard shows of some minutes of the load.
func TestThePreviewHasDataInEveryPanel(t *testing.T) {
	if *preview == "" {
		t.Skip("no -observability.preview: make dashboard-preview gives it")
	}
	c := newCollector(t, freeAddr(t)) // which gets no trace
	p := newPrometheus(t, c)
	server := pgt.New(t, pgtest.Options{Fsync: true})
	keepUp(t, server, previewAway)
	load := start(t, []string{"OTEL_TRACES_SAMPLER=always_off"}, built(t, "retrypg"), "load", "--fault-every", previewFaults.String(),
		"--otlp", c.otlp, "--otlp-interval", "500ms", server.DSN())
	eventually(t, func() error { return has("http://"+c.metrics+"/metrics", "retry_budget_tokens{") })
	began := time.Now().Add(previewAfter)
	runs := func(until time.Duration) {
		select {
		case <-time.After(time.Until(began.Add(until))):
		case <-load.ended:
			require.Fail(t, "the load has ended")
		}
	}
	for _, at := range previewLost {
		runs(at)
		loseCommits(t, server)
	}
	runs(previewFor)
	picture := newPicture(t, p, began, previewFor)
	for _, panel := range picture.Dashboard.Panels {
		require.Equal(t, panel.Type != "row", picture.hasData(panel), panel.Title)
	}
	draw(t, picture, *preview)
}
