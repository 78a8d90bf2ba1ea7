package main

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// machine is where and with what was measured.
type machine struct {
	date     string
	cpu      string
	cores    int
	system   string
	toolkit  string   // version of Go
	versions []string // of the contenders, as "path version"
}

// contenderModules are the modules whose versions belong to the numbers.
var contenderModules = []string{
	"github.com/XSAM/otelsql", "github.com/avast/retry-go/v5", "github.com/cenkalti/backoff/v5", "github.com/cenkalti/backoff/v7",
	"github.com/cockroachdb/cockroach-go/v2", "github.com/eapache/go-resiliency", "github.com/failsafe-go/failsafe-go",
	"github.com/jackc/pgx/v5", "github.com/ngrok/sqlmw", "github.com/sethvargo/go-retry", "github.com/sony/gobreaker/v2",
	"go.opentelemetry.io/otel", "golang.org/x/time",
}

func thisMachine() machine {
	m := machine{
		date: time.Now().UTC().Format(time.DateOnly), cpu: cpuModel(), cores: runtime.GOMAXPROCS(0),
		system: runtime.GOOS + "/" + runtime.GOARCH, toolkit: runtime.Version(),
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return m
	}
	for _, dep := range info.Deps {
		if slices.Contains(contenderModules, dep.Path) {
			m.versions = append(m.versions, dep.Path+" "+dep.Version)
		}
	}
	slices.Sort(m.versions)
	return m
}

// cpuModel returns the name of the processor where the system tells it.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "processor unknown"
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "processor unknown"
}

// load returns the load averages where the system tells them, as in "0.10 0.20 0.30".
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(b))
	return strings.Join(fields[:min(3, len(fields))], " ")
}
