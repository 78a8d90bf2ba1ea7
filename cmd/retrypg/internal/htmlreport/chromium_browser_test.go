//go:build chromium

package htmlreport

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// limit bounds everything that a test asks of its browser.
const limit = 2 * time.Minute

// screen is what a report is looked at with.
type screen struct {
	name          string
	width, height int64
	mobile        bool
	scheme        string // light or dark
}

var screens = []screen{
	{"desktop", 1280, 900, false, "light"},
	{"desktop", 1280, 900, false, "dark"},
	{"phone", 390, 844, true, "light"},
	{"phone", 390, 844, true, "dark"},
}

// chromium starts a browser for the test and returns the context of its first tab.
func chromium(t *testing.T) context.Context {
	t.Helper()
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	require.NotEmpty(t, program, "there is no chromium, chromium-browser or google-chrome: install one")
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(program), chromedp.UserDataDir(t.TempDir()), chromedp.DisableGPU)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // else it does not start as root
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel) // waits until the browser has ended
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	do(ctx, t)
	return ctx
}

func do(ctx context.Context, t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	require.NoError(t, chromedp.Do(ctx, steps...))
}

// evaluate returns the value of an expression in the page.
func evaluate[T any](ctx context.Context, t *testing.T, expression string) T {
	t.Helper()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	return value
}

// until waits for an expression in the page to be true.
func until(expression string) chromedp.Action[chromedp.Void] {
	return chromedp.Poll[chromedp.Void](expression)
}

// send sends a command that has no result.
func send[P, R any](command cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, command, params)
		return err
	})
}

// prefer is a user who prefers a colour scheme.
func prefer(scheme string) chromedp.Action[chromedp.Void] {
	return send(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// chartsAreThere waits until the last chart is drawn.
func chartsAreThere() chromedp.Action[chromedp.Void] {
	return chromedp.WaitVisible(chromedp.CSS("#slowest canvas"))
}

// show opens the report on a screen.
func show(ctx context.Context, t *testing.T, s screen, url string) {
	t.Helper()
	do(ctx, t,
		send(network.Enable, network.EnableParams{}), send(log.Enable, cdp.Empty{}),
		send(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: s.width, Height: s.height, DeviceScaleFactor: 1, Mobile: s.mobile,
		}),
		prefer(s.scheme), chromedp.Navigate(url), chartsAreThere(),
	)
}

// watched is what a tab did besides showing the page.
type watched struct {
	mu       sync.Mutex
	requests []string // URLs
	messages []string // of the console, and errors
}

// watch notes what a tab does from now on.
func watch(ctx context.Context, t *testing.T) *watched {
	t.Helper()
	w := &watched{}
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			w.requests = append(w.requests, e.Request.URL)
		case *runtime.EventConsoleAPICalled:
			w.messages = append(w.messages, fmt.Sprintf("console.%s: %v", e.Type, e.Args))
		case *runtime.EventExceptionThrown:
			w.messages = append(w.messages, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			w.messages = append(w.messages, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
		}
	}))
	return w
}

func (w *watched) seen() (requests, messages []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.requests), slices.Clone(w.messages)
}
