//go:build observability

package observability_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// limit bounds everything that is waited for.
const limit = time.Minute

// poll is how often something is asked for that sends no event.
const poll = 100 * time.Millisecond

// root is the root of the repository.
const root = "../.."

// built is the path of a program that make test-observability builds.
func built(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, ".cache/bin", name))
	require.NoError(t, err)
	_, err = os.Stat(path)
	require.NoError(t, err, "not built: run make test-observability")
	return path
}

// installed is the path of a program of the package prometheus.
func installed(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	require.NoError(t, err, "Prometheus is not installed: install the package prometheus")
	return path
}

// output is what a process printed. It is safe for concurrent use.
type output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// process is a program that runs until the test ends.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr *output
	ended          chan struct{}
}

func start(t *testing.T, env []string, program string, args ...string) *process {
	t.Helper()
	p := &process{
		cmd:    exec.Command(program, args...),
		stdout: &output{changed: make(chan struct{}, 1)}, stderr: &output{changed: make(chan struct{}, 1)},
		ended: make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	require.NoError(t, p.cmd.Start())
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("%s %s printed:\n%s\n%s", program, strings.Join(args, " "), tail(p.stdout), tail(p.stderr))
		}
	})
	return p
}

func tail(o *output) string {
	text := o.String()
	return text[max(0, len(text)-4000):]
}

// stop ends the process, with SIGTERM at first. It may be called again.
func (p *process) stop(t *testing.T) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(limit):
		t.Errorf("%s does not end", p.cmd.Path)
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// exit waits for the end of the process and returns its status.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(2 * limit):
		require.Fail(t, "the process does not end", p.cmd.Path)
	}
	return p.cmd.ProcessState.ExitCode()
}

// says waits until the process has printed something on standard error.
func (p *process) says(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(limit)
	for !strings.Contains(p.stderr.String(), text) {
		select {
		case <-p.stderr.changed:
		case <-timeout:
			require.Fail(t, "it was not printed", "%q in:\n%s", text, p.stderr)
		}
	}
}

// eventually repeats f until it returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			require.NoError(t, err)
		}
		time.Sleep(poll)
	}
}

// get returns an error unless the URL answers with 200.
func get(url string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// collector is where a collector listens.
type collector struct {
	*process
	env           []string
	otlp, metrics string
}

// newCollector starts a collector with the configuration of docker-compose.yml, which hands traces on to an address.
func newCollector(t *testing.T, traces string) *collector {
	t.Helper()
	c := &collector{otlp: freeAddr(t), metrics: freeAddr(t)}
	c.env = []string{
		"OTLP_ENDPOINT=" + c.otlp, "PROMETHEUS_ENDPOINT=" + c.metrics, "HEALTH_ENDPOINT=" + freeAddr(t), "TRACES_ENDPOINT=" + traces,
	}
	c.start(t)
	return c
}

// start starts it, for the first time or again.
func (c *collector) start(t *testing.T) {
	t.Helper()
	c.process = start(t, c.env, built(t, "collector"), "--config", filepath.Join(root, "deploy/collector/collector.yaml"))
	eventually(t, func() error { return get("http://" + c.metrics + "/metrics") })
}

// newTraceSink starts a collector that prints what spans it gets, in the place of Jaeger, and returns its address.
func newTraceSink(t *testing.T) (*process, string) {
	t.Helper()
	addr := freeAddr(t)
	config := filepath.Join(t.TempDir(), "sink.yaml")
	require.NoError(t, os.WriteFile(config, []byte(`
receivers: {otlp: {protocols: {grpc: {endpoint: `+addr+`}}}}
exporters: {debug: {verbosity: detailed}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
`), 0o644))
	p := start(t, nil, built(t, "collector"), "--config", config)
	p.says(t, "Everything is ready")
	return p, addr
}

// newPrometheus starts a Prometheus with the configuration of docker-compose.yml, but that it scrapes more often, and
// returns its URL.
func newPrometheus(t *testing.T, c *collector) prometheus {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/prometheus.yml"))
	require.NoError(t, err)
	config := regexp.MustCompile(`_interval: 5s`).ReplaceAllString(string(text), "_interval: 1s")
	config = strings.Replace(config, "collector:8889", c.metrics, 1)
	require.Contains(t, config, c.metrics)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o644))
	require.NoError(t, os.CopyFS(filepath.Join(dir, "rules"), os.DirFS(filepath.Join(root, "deploy/prometheus/rules"))))
	addr := freeAddr(t)
	start(t, nil, installed(t, "prometheus"), "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	p := prometheus{url: "http://" + addr}
	eventually(t, func() error { return get(p.url + "/-/ready") })
	return p
}
