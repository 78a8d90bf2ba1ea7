//go:build chromium

package htmlreport

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

var screenshots = flag.String("report.screenshots", "", "directory that the pictures of the report are written to")

// saved writes the report of newRun to a file and returns its URL.
func saved(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.html")
	require.NoError(t, os.WriteFile(path, []byte(written(t, newRun())), 0o600))
	return "file://" + path
}

// drawn is what is seen on a canvas.
type drawn struct {
	Figure  string         `json:"figure"`
	Columns map[string]int `json:"columns"` // columns of pixels that have a colour of the style, by its name
	Of      int            `json:"of"`      // columns in all
}

// look counts the columns of each canvas in which a pixel has, nearly, a colour of the style.
const look = `(() => {
	const style = getComputedStyle(document.documentElement);
	const names = ["p0", "p1", "p2", "unknown"];
	const colors = names.map((n) => style.getPropertyValue("--" + n).trim().match(/[0-9a-f]{2}/g).map((h) => parseInt(h, 16)));
	return [...document.querySelectorAll(".plot canvas")].map((canvas) => {
		const { width, height } = canvas;
		const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
		const columns = {};
		colors.forEach((color, n) => {
			let found = 0;
			for (let x = 0; x < width; x++) {
				for (let y = 0; y < height; y++) {
					const at = 4 * (y * width + x);
					if (data[at + 3] > 200 && color.every((c, k) => Math.abs(c - data[at + k]) < 12)) { found++; break; }
				}
			}
			columns[names[n]] = found;
		});
		return { figure: canvas.closest("figure").id, columns, of: width };
	});
})()`

func TestTheReportIsShownOnEveryScreenWithoutAnErrorOrARequest(t *testing.T) {
	browser := chromium(t)
	url := saved(t)
	for _, s := range screens {
		t.Run(s.name+" "+s.scheme, func(t *testing.T) {
			ctx, cancel := chromedp.NewContext(browser)
			defer cancel()
			w := watch(ctx, t)
			show(ctx, t, s, url)
			picture(ctx, t, s)
			requests, messages := w.seen()
			require.Equal(t, []string{url}, requests, "the file, and nothing else")
			require.Empty(t, messages)
			require.LessOrEqual(t, evaluate[int64](ctx, t, `document.documentElement.scrollWidth`), s.width, "nothing is beside the screen")
			require.Equal(t, map[string]string{"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[s.scheme],
				evaluate[string](ctx, t, `getComputedStyle(document.body).backgroundColor`))
			requireDrawn(t, evaluate[[]drawn](ctx, t, look))
			require.Equal(t, []string{"pgx: 224 errors, 0 unknown", "pgx + loop: 8 errors, 0 unknown", "retrypg: 0 errors, 1 unknown"},
				evaluate[[]string](ctx, t, `[...document.querySelectorAll(".lane")].map((l) => l.textContent)`))
		})
	}
}

// requireDrawn requires what the charts of newRun show.
func requireDrawn(t *testing.T, canvases []drawn) {
	t.Helper()
	var figures []string
	for _, c := range canvases {
		figures = append(figures, c.Figure)
	}
	require.Equal(t, []string{"throughput", "errors", "errors", "errors", "gaps", "slowest"}, figures)
	share := func(i int, color string) float64 {
		return float64(canvases[i].Columns[color]) / float64(canvases[i].Of)
	}
	for _, i := range []int{0, 4} {
		require.Greater(t, share(i, "p2"), 0.7, "%s: the line goes from side to side", figures[i])
	}
	for _, i := range []int{0, 5} {
		for _, program := range []string{"p0", "p1", "p2"} {
			require.Greater(t, share(i, program), 0.05, "%s: a line of each program", figures[i])
		}
	}
	require.Greater(t, share(1, "p0"), 0.15, "pgx told errors for 5 of 20 seconds")
	require.InDelta(t, 0.01, share(2, "p1"), 0.01, "pgx + loop told errors for 0.2 of 20 seconds")
	require.Positive(t, share(2, "p1"))
	require.Zero(t, share(3, "p2"), "retrypg told no error")
	require.InDelta(t, 0.01, share(3, "unknown"), 0.01, "and once that it does not know")
	require.Positive(t, share(3, "unknown"))
}

// picture keeps what is seen where the flag says so.
func picture(ctx context.Context, t *testing.T, s screen) {
	t.Helper()
	if *screenshots == "" {
		return
	}
	beyond := true
	shot, err := chromedp.Call(ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: &beyond})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(*screenshots, s.name+"-"+s.scheme+".png"), shot.Data, 0o600))
}
