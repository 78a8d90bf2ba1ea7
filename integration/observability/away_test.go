//go:build observability

package observability_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestTheDemoIsTheSameWithoutItsCollector(t *testing.T) {
	demo := start(t, nil, built(t, "retrypg"), "demo", "--json", "--report=", "--duration", "8s", "--workers", "2", "--otlp", freeAddr(t), "--otlp-interval", "500ms")
	require.Equal(t, 0, demo.exit(t))
	var report struct {
		Kept     bool
		Programs []struct{ OK int }
	}
	require.NoError(t, json.Unmarshal([]byte(demo.stdout.String()), &report))
	require.True(t, report.Kept)
	require.Len(t, report.Programs, 3)
	require.Positive(t, report.Programs[2].OK)
	require.Equal(t, 1, strings.Count(demo.stderr.String(), "telemetry cannot be sent"), demo.stderr)
}

func TestTelemetryComesBackWithTheCollector(t *testing.T) {
	sink, traces := newTraceSink(t)
	c := newCollector(t, traces)
	load := start(t, nil, built(t, "retrypg"), "load", "--workers", "1", "--otlp", c.otlp, "--otlp-interval", "200ms", pgt.Shared(t).DSN())
	arrives := func() error { return has("http://"+c.metrics+"/metrics", `job="retrypg-load"`) }
	eventually(t, arrives)
	c.stop(t)
	load.says(t, "telemetry cannot be sent to http://"+c.otlp)
	c.start(t)
	eventually(t, arrives)
	sink.says(t, "service.name: Str(retrypg-load)")
	load.stop(t)
	require.Equal(t, 143, load.exit(t))
	require.Contains(t, load.stdout.String(), "transfers_failed=0 transfers_unknown=0")
	require.Contains(t, load.stdout.String(), "lookups_failed=0")
	require.Equal(t, 1, strings.Count(load.stderr.String(), "telemetry cannot be sent"), load.stderr)
}

// has returns an error unless the document at the URL contains text.
func has(url, text string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && !strings.Contains(string(body), text) {
		err = fmt.Errorf("%s does not have %s", url, text)
	}
	return err
}
